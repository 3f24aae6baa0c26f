//! Room for the parts that are filled and uploaded, shared by the objects of a set.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::buffers::{Buffer, Pool};

/// Room for a number of parts.
#[derive(Clone, Debug)]
pub(crate) struct PartBudget {
    room: Arc<Semaphore>,
    pool: Pool,
}

impl PartBudget {
    /// Room for `parts` parts.
    pub(crate) fn new(parts: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(parts)), pool: Pool::default() }
    }

    /// What one object takes out of the budget.
    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), taken: Arc::default() }
    }
}

/// One object's share of the budget.
#[derive(Debug)]
pub(crate) struct Share {
    budget: PartBudget,
    taken: Arc<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    parts: AtomicUsize,
    freed: Notify,
}

impl Share {
    /// Waits for room for one more part of `size` bytes.
    ///
    /// An object that has no part at all gets one at once, beyond the budget if need be: objects whose sources wait
    /// for each other would otherwise block each other for ever.
    pub(crate) async fn part(&self, size: usize) -> Part {
        let permit = self.permit().await;
        self.taken.parts.fetch_add(1, Ordering::SeqCst);
        let room = Room { taken: self.taken.clone(), _permit: permit };
        Part { bytes: self.budget.pool.take(size), size, _room: room }
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let mut acquire = std::pin::pin!(self.budget.room.clone().acquire_owned());
        loop {
            let freed = self.taken.freed.notified();
            let has_none = self.taken.parts.load(Ordering::SeqCst) == 0;
            tokio::select! {
                biased;
                permit = &mut acquire => return permit.ok(),
                () = std::future::ready(()), if has_none => return None,
                () = freed => {}
            }
        }
    }
}

/// A part that is being filled or uploaded; its room is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Part {
    // Declared before the room, so that the memory is back in the pool when the next one is taken.
    bytes: Buffer,
    size: usize,
    _room: Room,
}

impl Part {
    /// How much more fits.
    pub(crate) fn free(&self) -> usize {
        self.size - self.bytes.len()
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes as much of `bytes` as fits and returns how much that was.
    pub(crate) fn fill(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.free());
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// The finished part; clones share its memory.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Debug)]
struct Room {
    taken: Arc<Taken>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.parts.fetch_sub(1, Ordering::SeqCst);
        self.taken.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_budget_is_shared_but_nobody_goes_without() {
        let budget = PartBudget::new(2);
        let (greedy, late) = (budget.share(), budget.share());
        let first = greedy.part(8).now_or_never().unwrap();
        let _second = greedy.part(8).now_or_never().unwrap();
        assert!(greedy.part(8).now_or_never().is_none(), "the budget is spent");
        let own = late.part(8).now_or_never().unwrap();
        assert!(late.part(8).now_or_never().is_none(), "only the first part is free");
        drop(first);
        drop(late.part(8).now_or_never().unwrap());
        drop(own);
        drop(greedy.part(8).now_or_never().unwrap());
    }

    #[tokio::test]
    async fn an_object_waiting_for_its_own_last_part_goes_on() {
        let budget = PartBudget::new(1);
        let (holder, waiter) = (budget.share(), budget.share());
        let _held = holder.part(8).await;
        let own = waiter.part(8).await;
        let (next, ()) = tokio::join!(waiter.part(8), async { drop(own) });
        assert!(next.is_empty());
    }

    #[test]
    fn memory_is_used_again_once_every_copy_is_gone() {
        let share = PartBudget::new(1).share();
        let mut part = share.part(4).now_or_never().unwrap();
        assert_eq!(part.fill(b"abcdef"), 4);
        let bytes = part.freeze();
        let copy = bytes.clone();
        let address = copy.as_ptr();
        drop(bytes);
        assert!(share.part(4).now_or_never().is_none());
        drop(copy);
        assert_eq!(share.part(4).now_or_never().unwrap().bytes.as_ptr(), address);
    }
}
