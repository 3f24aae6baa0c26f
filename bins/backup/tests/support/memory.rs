//! How much memory a program takes.

use std::process::Command;
use std::time::Duration;

/// Runs a program to its good end; the most memory that it ever had, in MiB, without the programs that it starts.
#[track_caller]
pub fn peak(mut command: Command) -> u64 {
    let mut program = command.spawn().unwrap();
    let status = format!("/proc/{}/status", program.id());
    let mut peak = 0;
    loop {
        // The last one seen: it only grows, and is gone with the process.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let seen = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(seen.unwrap_or_default());
        if let Some(ended) = program.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            assert!(peak > 0, "it was never seen");
            return peak >> 10;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
