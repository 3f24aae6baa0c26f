//! How far a long operation is: counters that cost next to nothing, read by whoever wants to show them.
//!
//! A library gets a [`Progress`], counts into it and never looks back; a program takes a [`ProgressSnapshot`] as often
//! as it likes. Nothing here knows about terminals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// Shared counters of one operation; clones count into the same ones.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    phase: Mutex<String>,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    items_done: AtomicU64,
    items_total: AtomicU64,
}

/// The state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ProgressSnapshot {
    /// What is being done, in a few words.
    pub phase: String,
    /// Bytes done in this phase.
    pub bytes_done: u64,
    /// Bytes to do, when that is known.
    pub bytes_total: Option<u64>,
    /// Items (tables, objects, sets) done in this phase.
    pub items_done: u64,
    /// Items to do, when that is known.
    pub items_total: Option<u64>,
}

impl Progress {
    /// New counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a phase: names it and sets every counter back.
    pub fn begin(&self, phase: &str) {
        let mut name = self.0.phase.lock().unwrap_or_else(PoisonError::into_inner);
        phase.clone_into(&mut name);
        let counters = [&self.0.bytes_done, &self.0.bytes_total, &self.0.items_done, &self.0.items_total];
        for counter in counters {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Counts bytes.
    pub fn add_bytes(&self, bytes: u64) {
        self.0.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts items.
    pub fn add_items(&self, items: u64) {
        self.0.items_done.fetch_add(items, Ordering::Relaxed);
    }

    /// Says how many bytes this phase has; 0 means unknown.
    pub fn expect_bytes(&self, bytes: u64) {
        self.0.bytes_total.store(bytes, Ordering::Relaxed);
    }

    /// Says how many items this phase has; 0 means unknown.
    pub fn expect_items(&self, items: u64) {
        self.0.items_total.store(items, Ordering::Relaxed);
    }

    /// The counters now. They move independently, so a snapshot taken between two of them is off by one step.
    #[must_use]
    pub fn snapshot(&self) -> ProgressSnapshot {
        let known = |counter: &AtomicU64| Some(counter.load(Ordering::Relaxed)).filter(|total| *total > 0);
        let phase = self.0.phase.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ProgressSnapshot {
            phase,
            bytes_done: self.0.bytes_done.load(Ordering::Relaxed),
            bytes_total: known(&self.0.bytes_total),
            items_done: self.0.items_done.load(Ordering::Relaxed),
            items_total: known(&self.0.items_total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_together_and_a_new_phase_starts_at_zero() {
        let progress = Progress::new();
        progress.begin("dumping");
        progress.expect_bytes(10);
        let worker = progress.clone();
        std::thread::spawn(move || worker.add_bytes(4)).join().unwrap();
        progress.add_items(2);
        let now = progress.snapshot();
        assert_eq!(
            (now.bytes_done, now.bytes_total, now.items_done, now.items_total),
            (4, Some(10), 2, None)
        );
        progress.begin("checking");
        assert_eq!(
            progress.snapshot(),
            ProgressSnapshot { phase: "checking".to_owned(), ..Default::default() }
        );
    }
}
