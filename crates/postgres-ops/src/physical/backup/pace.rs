use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest sleep at a time, so that whoever waits notices when nobody wants the data any more.
const SLICE: Duration = Duration::from_millis(100);

/// Limits how fast files are read, all readers together.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u64>,
    /// When everything that was read would have been read at exactly the rate.
    due: Mutex<Instant>,
}

impl Pace {
    /// Bytes per second; no limit when there is none.
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.map(|rate| rate.max(1)), due: Mutex::new(Instant::now()) }
    }

    /// Waits as long as the bytes that were just read take at the rate, or until `stopped`.
    pub(super) fn wait(&self, bytes: u64, stopped: impl Fn() -> bool) {
        let Some(rate) = self.rate else { return };
        let until = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            // Time in which nothing was read is not made up for.
            *due = (*due).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *due
        };
        while !stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_the_rate_and_stop_waiting_when_told() {
        let pace = Pace::new(Some(1_000_000));
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..5).for_each(|_| pace.wait(10_000, || false)));
            }
        });
        let taken = start.elapsed();
        assert!(taken >= Duration::from_millis(149) && taken < Duration::from_secs(5), "{taken:?}");
        let slow = Pace::new(Some(1));
        let start = Instant::now();
        slow.wait(1_000_000, || start.elapsed() > Duration::from_millis(50));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
