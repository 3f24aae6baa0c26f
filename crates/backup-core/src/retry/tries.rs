//! The attempts of one call: how many were made, and how long to wait for the next.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use super::RetryPolicy;
use crate::store::{Cause, StoreError};

/// Why the last error is the last one.
#[derive(Debug, thiserror::Error)]
#[error("gave up after {attempts} attempts in {:.1} s", .time.as_secs_f64())]
struct GaveUp {
    attempts: u32,
    time: Duration,
    source: Cause,
}

/// Attempts since the last progress.
pub(super) struct Tries {
    policy: RetryPolicy,
    random: StdRng,
    failed: u32,
    /// Begin of the first attempt; after progress, the first failure.
    began: Option<Instant>,
}

impl Tries {
    pub(super) fn new(policy: RetryPolicy, seed: u64) -> Self {
        Self { policy, random: StdRng::seed_from_u64(seed), failed: 0, began: Some(Instant::now()) }
    }

    /// Whether an earlier attempt failed, so that its work may have been done all the same.
    pub(super) fn repeated(&self) -> bool {
        self.failed > 0
    }

    /// Something was achieved: the next failure is a first one again. Time the consumer takes does not count.
    pub(super) fn progress(&mut self) {
        self.failed = 0;
        self.began = None;
    }

    /// Waits for the next attempt, or returns the error if there must be none.
    pub(super) async fn pause(&mut self, error: StoreError) -> Result<(), StoreError> {
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        if !error.is_temporary() {
            return Err(error);
        }
        self.failed += 1;
        let delay = self.delay().max(asked_for(&error));
        let spent = now - began;
        if self.failed >= self.policy.attempts || spent.saturating_add(delay) > self.policy.total {
            return Err(self.give_up(error, spent));
        }
        tracing::debug!(%error, attempt = self.failed, ?delay, "a store call is repeated");
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Between half and all of the delay that doubles with every failure.
    fn delay(&mut self) -> Duration {
        let doubled = self.policy.base.saturating_mul(1_u32 << (self.failed - 1).min(31));
        doubled.min(self.policy.cap).mul_f64(self.random.random_range(0.5..=1.0))
    }

    fn give_up(&self, error: StoreError, time: Duration) -> StoreError {
        match error {
            StoreError::Temporary { op, what, retry_after, source } if self.failed > 1 => {
                let source = Box::new(GaveUp { attempts: self.failed, time, source });
                StoreError::Temporary { op, what, retry_after, source }
            }
            error => error,
        }
    }
}

fn asked_for(error: &StoreError) -> Duration {
    match error {
        StoreError::Temporary { retry_after: Some(delay), .. } => *delay,
        _ => Duration::ZERO,
    }
}
