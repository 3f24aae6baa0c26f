//! A token bucket whose rate can change while others wait for it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Share of a second that may be spent at once; also the slice in which large bodies pay.
const BURST: f64 = 0.1;
/// Shortest wait, so that rounding never makes a busy loop.
const TICK: Duration = Duration::from_millis(1);

/// Hands out bytes at a rate, first come, first served.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Whoever holds it is next; the mutex is fair.
    turn: tokio::sync::Mutex<()>,
    level: Mutex<Level>,
    changed: Notify,
}

#[derive(Debug)]
struct Level {
    rate: Option<u64>,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Option<u64>) -> Self {
        let mut level = Level { rate: rate.map(sane), tokens: 0.0, filled: Instant::now() };
        level.tokens = level.capacity();
        Self { turn: tokio::sync::Mutex::default(), level: Mutex::new(level), changed: Notify::new() }
    }

    pub(super) fn rate(&self) -> Option<u64> {
        self.level().rate
    }

    pub(super) fn set(&self, rate: Option<u64>) {
        let mut level = self.level();
        level.fill(Instant::now());
        level.rate = rate.map(sane);
        level.tokens = level.tokens.min(level.capacity());
        // Wakes the one whose turn it is; a wake-up nobody needs is remembered and does no harm.
        self.changed.notify_one();
    }

    /// Waits until that many bytes may pass.
    pub(super) async fn pay(&self, mut bytes: u64) {
        while bytes > 0 && self.rate().is_some() {
            let _turn = self.turn.lock().await;
            bytes -= self.slice(bytes).await;
        }
    }

    /// Waits for the next slice of the bytes; returns how many it is.
    async fn slice(&self, bytes: u64) -> u64 {
        loop {
            let wait = match self.level().take(bytes, Instant::now()) {
                Ok(taken) => return taken,
                Err(wait) => wait,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn level(&self) -> MutexGuard<'_, Level> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Level {
    /// Takes a slice, or says how long until there is one.
    fn take(&mut self, bytes: u64, now: Instant) -> Result<u64, Duration> {
        self.fill(now);
        let Some(rate) = self.rate else { return Ok(bytes) };
        let slice = bytes.min(self.capacity() as u64);
        let missing = slice as f64 - self.tokens;
        if missing <= 0.0 {
            self.tokens = -missing;
            return Ok(slice);
        }
        Err(Duration::from_secs_f64(missing / rate as f64).max(TICK))
    }

    fn fill(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.filled);
        self.filled = now;
        if let Some(rate) = self.rate {
            self.tokens = (self.tokens + time.as_secs_f64() * rate as f64).min(self.capacity());
        }
    }

    fn capacity(&self) -> f64 {
        self.rate.map_or(0.0, |rate| (rate as f64 * BURST).floor().max(1.0))
    }
}

fn sane(rate: u64) -> u64 {
    rate.max(1)
}
