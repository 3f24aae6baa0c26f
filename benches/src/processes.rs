//! What processes cost, read from `/proc`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What the whole machine has computed so far.
#[derive(Clone, Copy, Debug)]
pub struct Burnt(Duration);

impl Burnt {
    /// Reads the counters.
    #[must_use]
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let numbers: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let busy = numbers.iter().take(8).sum::<u64>() - numbers.iter().skip(3).take(2).sum::<u64>();
        Self(from_ticks(busy))
    }

    /// Processors that others kept busy since, on average over `wall`.
    #[must_use]
    pub fn by_others(self, own: Duration, wall: Duration) -> f64 {
        let all = Self::now().0.saturating_sub(self.0);
        all.saturating_sub(own).as_secs_f64() / wall.as_secs_f64()
    }
}

/// Samples the memory of a process and its descendants.
#[derive(Debug)]
pub struct MemoryWatch {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    together: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl MemoryWatch {
    /// Watches `root` and what it starts, every `pause`.
    #[must_use]
    pub fn over(root: u32, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (peak, together) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (stopped, highest, sum) = (Arc::clone(&stop), Arc::clone(&peak), Arc::clone(&together));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut all = 0;
                for process in tree(root) {
                    highest.fetch_max(resident(process), Ordering::Relaxed);
                    all += proportional(process);
                }
                sum.fetch_max(all, Ordering::Relaxed);
                std::thread::sleep(pause);
            }
        });
        Self { stop, peak, together, thread }
    }

    /// Stops, and returns in bytes the largest single process and the largest sum of all at one moment.
    ///
    /// # Panics
    /// When the sampling thread did.
    #[must_use]
    pub fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sampler does not panic");
        (self.peak.load(Ordering::Relaxed), self.together.load(Ordering::Relaxed))
    }
}

/// What a process occupies in bytes; pages it shares count in proportion.
fn proportional(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    kib(&text, "Pss:")
}

/// The high-water mark of one process in bytes, shared libraries included.
fn resident(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    kib(&text, "VmHWM:")
}

/// A line such as `Pss:   12 kB` in bytes.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
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

/// CPU of a process and its descendants, those that have ended included.
#[must_use]
pub fn cpu_of_tree(root: u32) -> Duration {
    from_ticks(tree(root).into_iter().filter_map(stat).map(|stat| stat.ticks).sum())
}

/// CPU of all children that have ended.
#[must_use]
pub fn children_cpu() -> Duration {
    own_ticks(13..15)
}

/// CPU of this process itself.
#[must_use]
pub fn own_cpu() -> Duration {
    own_ticks(11..13)
}

fn own_ticks(fields: std::ops::Range<usize>) -> Duration {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_the_name = text.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let numbers = behind_the_name.split(' ').skip(fields.start).take(fields.len());
    from_ticks(numbers.filter_map(|text| text.parse::<u64>().ok()).sum())
}
