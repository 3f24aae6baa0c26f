use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::processes::{Burnt, MemoryWatch, children_cpu, cpu_of_tree, own_cpu};

/// One way to do the work.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Name in the table.
    pub name: String,
    /// What is timed, for `bash`.
    pub command: String,
    /// What is done before every run, untimed.
    pub before: String,
    /// What it writes: a file or a folder.
    pub output: PathBuf,
}

/// One run of one variant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Wall-clock time.
    pub wall: Duration,
    /// CPU of the command and its children.
    pub client_cpu: Duration,
    /// CPU of the server meanwhile.
    pub server_cpu: Duration,
    /// Largest resident set of a process of the command, in bytes.
    pub peak: u64,
    /// Largest sum of what all processes of the command occupied at one moment, in bytes; shared pages count once.
    pub together: u64,
    /// Processors that others kept busy meanwhile: 0 on a quiet machine.
    pub others: f64,
    /// Bytes written.
    pub size: u64,
}

/// Runs all variants in turn, `rounds` times; the outer list follows `variants`. Each round begins with the next one, so
/// that no variant always follows the same other.
///
/// # Panics
/// When a command fails: its time would mean nothing.
#[must_use]
pub fn measure_rounds(variants: &[Variant], rounds: usize, server: u32) -> Vec<Vec<Measured>> {
    let mut results = vec![Vec::with_capacity(rounds); variants.len()];
    for round in 0..rounds {
        for turn in 0..variants.len() {
            let next = (round + turn) % variants.len();
            shell(&variants[next].before);
            rustix::fs::sync();
            results[next].push(run(&variants[next], server));
            let wall = results[next][round].wall.as_secs_f64();
            // To watch; nobody reads it back.
            let _ = writeln!(io::stderr(), "round {}: {}: {wall:.2} s", round + 1, variants[next].name);
        }
    }
    results
}

fn shell(command: &str) {
    let status = Command::new("bash").args(["-e", "-o", "pipefail", "-c", command]).status();
    assert!(status.is_ok_and(|status| status.success()), "preparation failed: {command}");
}

fn run(variant: &Variant, server: u32) -> Measured {
    let (server_before, children_before) = (cpu_of_tree(server), children_cpu());
    // An S3 server may run in this process.
    let (own_before, burnt) = (own_cpu(), Burnt::now());
    let begin = Instant::now();
    let mut child = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", &variant.command])
        .stdout(Stdio::null())
        .spawn()
        .expect("bash is there");
    let watch = MemoryWatch::over(child.id(), Duration::from_millis(200));
    let status = child.wait().expect("the child is ours");
    let wall = begin.elapsed();
    let (peak, together) = watch.end();
    assert!(status.success(), "{} failed: {}", variant.name, variant.command);
    let client_cpu = children_cpu().saturating_sub(children_before);
    let server_cpu = cpu_of_tree(server).saturating_sub(server_before);
    let others = burnt.by_others(client_cpu + server_cpu + own_cpu().saturating_sub(own_before), wall);
    Measured { wall, client_cpu, server_cpu, peak, together, others, size: size(&variant.output) }
}

/// Bytes of a file or of all files in a folder.
#[must_use]
pub fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    // Links are not followed: pgBackRest has one to its latest backup.
    if !meta.is_dir() {
        return meta.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}
