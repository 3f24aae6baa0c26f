//! Plays PostgreSQL's archiver (push) or its startup process in recovery (get): one command per segment, in order,
//! through the shell, as `system()` does, and every call timed.
//!
//! It is a process of its own, so that the CPU of everything a command leaves behind (a tool that goes on in the
//! background) is counted for it: orphans come to this process, and it waits for them before it ends.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backstay_benches::processes::{Burnt, MemoryWatch, children_cpu, own_cpu};
use clap::Args;
use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};

/// Segments that are pushed or fetched are this large.
pub(crate) const SEGMENT: u64 = 16 << 20;
/// As often as PostgreSQL tries before it waits for a minute.
const TRIES: u32 = 3;

/// What to play.
#[derive(Clone, Debug, Args)]
pub(crate) struct Play {
    /// push or get
    #[arg(long)]
    pub(crate) mode: String,
    /// The data directory with pg_wal, and a file `segments` that names them
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Milliseconds between two calls
    #[arg(long, default_value_t = 0)]
    pub(crate) pause_ms: u64,
    /// The command, with %p and %f
    pub(crate) command: String,
}

/// What a run gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Played {
    /// Every call, in order.
    pub(crate) calls: Vec<Duration>,
    /// Calls that did not end with 0.
    pub(crate) failed: u32,
    /// From the first call to the end of the last, pauses left out.
    pub(crate) wall: Duration,
    /// CPU of all that the commands did.
    pub(crate) cpu: Duration,
    /// CPU of the S3 server meanwhile.
    pub(crate) server_cpu: Duration,
    /// Largest sum of memory at one moment, in bytes.
    pub(crate) memory: u64,
    /// Bytes in the repository afterwards.
    pub(crate) stored: u64,
    /// Processors that others kept busy.
    pub(crate) others: f64,
}

impl Played {
    /// Segments per second.
    pub(crate) fn rate(&self) -> f64 {
        let good = self.calls.len() - self.failed as usize;
        f64::from(u32::try_from(good).expect("few calls")) / self.wall.as_secs_f64()
    }

    /// A quantile of the calls in milliseconds; 1.0 is the worst.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.calls.clone();
        sorted.sort();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "few"
        )]
        let at = (part * sorted.len() as f64) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |call| call.as_secs_f64() * 1e3)
    }
}

/// The process that calls the command; prints what it saw, one number a line.
pub(crate) fn play(play: &Play) -> std::io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    // As the server does it: commands start in its directory and get relative paths.
    std::env::set_current_dir(&play.data)?;
    let wal = PathBuf::from("pg_wal");
    fs::write("postmaster.pid", format!("{}\n{}\n", std::process::id(), play.data.display()))?;
    let names = fs::read_to_string("segments")?;
    let push = play.mode == "push";
    let (mut calls, mut failed, mut paused) = (Vec::new(), 0, Duration::ZERO);
    let begin = Instant::now();
    for name in names.lines() {
        let path = if push { wal.join(name) } else { wal.join("RECOVERYXLOG") };
        let line = play.command.replace("%p", &path.display().to_string()).replace("%f", name);
        failed += call(&line, push, &mut calls)?;
        if push {
            let status = wal.join("archive_status");
            let renamed =
                fs::rename(status.join(format!("{name}.ready")), status.join(format!("{name}.done")));
            // A tool that pushes ahead may rename them itself.
            renamed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        } else {
            let length = fs::metadata(&path)?.len();
            assert!(length == SEGMENT, "{name} has {length} bytes");
            fs::remove_file(&path)?;
        }
        std::thread::sleep(Duration::from_millis(play.pause_ms));
        paused += Duration::from_millis(play.pause_ms);
    }
    let wall = begin.elapsed().saturating_sub(paused);
    // What works ahead of a server ends with it.
    fs::remove_file("postmaster.pid")?;
    while wait(WaitOptions::empty()).is_ok() {}
    let mut out = std::io::stdout().lock();
    writeln!(out, "{failed}\n{}", wall.as_micros())?;
    calls.iter().try_for_each(|call| writeln!(out, "{}", call.as_micros()))
}

/// One segment, with PostgreSQL's retries; the failed calls.
fn call(line: &str, push: bool, calls: &mut Vec<Duration>) -> std::io::Result<u32> {
    for failed in 0..TRIES {
        let begin = Instant::now();
        let status = Command::new("/bin/sh").args(["-c", line]).status()?;
        calls.push(begin.elapsed());
        if status.success() {
            return Ok(failed);
        }
        std::thread::sleep(Duration::from_millis(if push { 1000 } else { 100 }));
    }
    Err(std::io::Error::other(format!("gave up: {line}")))
}

/// Runs the playing process and measures it.
pub(crate) fn measure(prefix: &str, play: &Play, repository: Option<&Path>) -> Played {
    let program = std::env::current_exe().expect("this program has a path");
    let script = format!(
        "exec {prefix}{} play --mode {} --data {} --pause-ms {} -- \"$1\"",
        program.display(),
        play.mode,
        play.data.display(),
        play.pause_ms
    );
    let (burnt, children, server, begin) = (Burnt::now(), children_cpu(), own_cpu(), Instant::now());
    let mut bash = Command::new("bash");
    bash.args(["-c", &script, "play", &play.command]).env("LC_ALL", "C").env("TZ", "UTC");
    let child = bash.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("bash is there");
    let watch = MemoryWatch::over(child.id(), Duration::from_millis(50));
    let output = child.wait_with_output().expect("the child is ours");
    let (_, memory) = watch.end();
    assert!(output.status.success(), "{} failed", play.command);
    let (cpu, server_cpu) = (children_cpu() - children, own_cpu() - server);
    let others = burnt.by_others(cpu + server_cpu, begin.elapsed());
    let stored = repository.map_or(0, backstay_benches::size);
    let text = String::from_utf8(output.stdout).expect("numbers");
    let mut numbers = text.lines().map(|line| line.parse::<u64>().expect("a number"));
    let failed = u32::try_from(numbers.next().expect("the failures")).expect("few");
    let wall = Duration::from_micros(numbers.next().expect("the wall time"));
    Played {
        calls: numbers.map(Duration::from_micros).collect(),
        failed,
        wall,
        cpu,
        server_cpu,
        memory,
        stored,
        others,
    }
}
