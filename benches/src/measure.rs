use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
    let begin = Instant::now();
    let mut child = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", &variant.command])
        .stdout(Stdio::null())
        .spawn()
        .expect("bash is there");
    let watch = MemoryWatch::over(child.id());
    let status = child.wait().expect("the child is ours");
    let wall = begin.elapsed();
    let peak = watch.end();
    assert!(status.success(), "{} failed: {}", variant.name, variant.command);
    Measured {
        wall,
        client_cpu: children_cpu().saturating_sub(children_before),
        server_cpu: cpu_of_tree(server).saturating_sub(server_before),
        peak,
        size: size(&variant.output),
    }
}

/// Samples the resident sets of a process and its descendants.
struct MemoryWatch {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl MemoryWatch {
    fn over(root: u32) -> Self {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, highest) = (Arc::clone(&stop), Arc::clone(&peak));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for process in tree(root) {
                    highest.fetch_max(resident(process), Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { stop, peak, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sampler does not panic");
        self.peak.load(Ordering::Relaxed)
    }
}

/// The high-water mark of one process in bytes, shared libraries included.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn tree(root: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = processes().filter_map(|id| Some((id, stat(id)?.parent))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(all.iter().filter(|(_, its)| *its == parent).map(|(id, _)| *id));
        next += 1;
    }
    found
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

struct Stat {
    parent: u32,
    /// Own and waited-for children's CPU in clock ticks.
    ticks: u64,
}

fn stat(process: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = (11..15).map(|at| number(at).unwrap_or(0)).sum();
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, ticks })
}

/// Linux counts CPU time of processes in hundredths of a second.
fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

fn cpu_of_tree(root: u32) -> Duration {
    from_ticks(tree(root).into_iter().filter_map(stat).map(|stat| stat.ticks).sum())
}

/// CPU of all children that have ended.
fn children_cpu() -> Duration {
    let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        own.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    from_ticks(number(13) + number(14))
}

fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if meta.is_file() {
        return meta.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}
