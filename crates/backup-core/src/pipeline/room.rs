//! Room for frames: a number of them, and the bytes they take before and after compression.
//!
//! A frame asks for its plain bytes and as many for the result. Once it is compressed it keeps what the result
//! really takes, so that data that compresses well has more frames under way in the same memory.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::manifest::Codec;

/// Bytes of one permit.
const UNIT: usize = 1 << 10;

/// Room shared by all objects of a set.
#[derive(Clone, Debug)]
pub(crate) struct FrameBudget {
    frames: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl FrameBudget {
    /// Room for `frames` frames that do not compress, and for one more of those that do.
    pub(crate) fn new(frames: usize, frame: usize) -> Self {
        let bytes = units(2 * frame) as usize * frames;
        Self { frames: Arc::new(Semaphore::new(frames + 1)), bytes: Arc::new(Semaphore::new(bytes)) }
    }

    /// Waits for room for a frame of `len` bytes.
    pub(crate) async fn room(&self, len: usize, codec: Codec) -> Result<FrameRoom, AcquireError> {
        // Always in this order: who has the first only waits for those who have both.
        let frame = self.frames.clone().acquire_owned().await?;
        let wanted = if codec == Codec::None { len } else { 2 * len };
        let bytes = self.bytes.clone().acquire_many_owned(units(wanted)).await?;
        Ok(FrameRoom { _frame: frame, bytes })
    }
}

/// What one frame takes; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct FrameRoom {
    _frame: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

impl FrameRoom {
    /// Gives back all but what `len` bytes take.
    pub(crate) fn shrink(&mut self, len: usize) {
        let spare = self.bytes.num_permits().saturating_sub(units(len) as usize);
        drop(self.bytes.split(spare));
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const FRAME: usize = 4 << 20;

    fn now(budget: &FrameBudget) -> Option<FrameRoom> {
        budget.room(FRAME, Codec::Zstd).now_or_never().map(Result::unwrap)
    }

    #[test]
    fn what_compresses_well_lets_one_more_frame_in() {
        let budget = FrameBudget::new(2, FRAME);
        let (mut first, mut second) = (now(&budget).unwrap(), now(&budget).unwrap());
        assert!(now(&budget).is_none());
        first.shrink(FRAME);
        assert!(now(&budget).is_none(), "a result as large as the frame leaves no room");
        first.shrink(FRAME / 3);
        assert!(now(&budget).is_none());
        second.shrink(FRAME / 3);
        let third = now(&budget).unwrap();
        assert!(now(&budget).is_none(), "the number of frames is bounded too");
        drop((first, second, third));
        assert!(now(&budget).is_some());
    }
}
