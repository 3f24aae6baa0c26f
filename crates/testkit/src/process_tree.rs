//! Finding and killing a process with everything below it.
//!
//! A process is named by its id *and* its start time, so that an id that the kernel has given to somebody else in
//! the meantime is never signalled.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// One process, safe against reuse of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    started: u64,
}

/// The part of `/proc/<pid>/stat` needed here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

impl Process {
    /// The process that has this id now; `None` when there is none.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// The id.
    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it still runs; one that ended and waits for its parent does not.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Sends a signal if it still runs.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may end between the check and the call: then there is nothing left to signal.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it with all its descendants and waits until none runs.
    ///
    /// It is stopped first, so that it neither starts more children nor reaps (and so frees the id of) any while the
    /// list is made.
    pub(crate) fn kill_tree(self) {
        self.signal(Signal::STOP);
        let mut doomed = self.descendants();
        for process in &doomed {
            process.signal(Signal::STOP);
        }
        // Children of a child that was still running during the first look.
        doomed = self.descendants();
        doomed.push(self);
        for process in &doomed {
            process.signal(Signal::KILL);
        }
        let patience = Instant::now() + Duration::from_secs(10);
        while doomed.iter().any(|process| process.is_alive()) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn descendants(self) -> Vec<Self> {
        let all = all_processes();
        let mut found = vec![];
        let mut parents = vec![self.pid];
        while let Some(parent) = parents.pop() {
            for (pid, stat) in all.iter().filter(|(_, stat)| stat.parent == parent) {
                found.push(Self { pid: *pid, started: stat.started });
                parents.push(*pid);
            }
        }
        found
    }
}

fn all_processes() -> Vec<(i32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect()
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is the program's name in parentheses and may itself hold spaces and parentheses.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<_> = rest.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) R 1 (b)) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 10 11";
        assert_eq!(parse_stat(line), Some(Stat { state: 'S', parent: 7, started: 98765 }));
        assert_eq!(parse_stat("42 (short) S 7"), None);
    }

    #[test]
    fn killing_a_tree_ends_grandchildren_too() {
        let mut shell =
            Command::new("/bin/sh").args(["-c", "sleep 600 & sh -c 'sleep 600; :' & wait"]).spawn().unwrap();
        let process = Process::find(shell.id().cast_signed()).unwrap();
        while process.descendants().len() < 3 {
            std::thread::yield_now();
        }
        let descendants = process.descendants();
        process.kill_tree();
        assert!(descendants.iter().all(|process| !process.is_alive()));
        assert_eq!(shell.wait().unwrap().signal(), Some(9));
        assert!(!process.is_alive());
    }
}
