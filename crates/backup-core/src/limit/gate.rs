//! A semaphore whose size can change while it is in use.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Lets a number of calls through at the same time, first come, first served.
#[derive(Debug)]
pub(super) struct Gate {
    passes: Semaphore,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    limit: usize,
    /// Passes in use beyond the limit: they are not given out again.
    excess: usize,
}

/// Leave to make one call.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    permit: Option<SemaphorePermit<'a>>,
}

impl Gate {
    pub(super) fn new(limit: usize) -> Self {
        let limit = sane(limit);
        Self { passes: Semaphore::new(limit), counts: Mutex::new(Counts { limit, excess: 0 }) }
    }

    pub(super) fn limit(&self) -> usize {
        self.counts().limit
    }

    pub(super) fn set(&self, limit: usize) {
        let limit = sane(limit);
        let mut counts = self.counts();
        if limit >= counts.limit {
            let more = limit - counts.limit;
            let kept = more.min(counts.excess);
            counts.excess -= kept;
            self.passes.add_permits(more - kept);
        } else {
            let fewer = counts.limit - limit;
            counts.excess += fewer - self.passes.forget_permits(fewer);
        }
        counts.limit = limit;
    }

    pub(super) async fn enter(&self) -> Pass<'_> {
        let permit = self.passes.acquire().await.expect("the semaphore is never closed");
        Pass { gate: self, permit: Some(permit) }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        if let Some(permit) = self.permit.take_if(|_| counts.excess > 0) {
            counts.excess -= 1;
            permit.forget();
        }
        // Giving it back happens under the lock as well, or a change of the limit could miss it.
        drop(self.permit.take());
    }
}

fn sane(limit: usize) -> usize {
    limit.clamp(1, Semaphore::MAX_PERMITS)
}
