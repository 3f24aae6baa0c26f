//! Cuts a stream of bytes into frames.

use std::io;
use std::pin::Pin;

use bytes::{BufMut, Bytes};
use futures::{Stream, StreamExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::buffers::{Buffer, FrameBuffers};

/// Reads a pipe, socket or file as chunks of exactly one frame (the last may be shorter), which go through the set
/// without being copied again.
///
/// # Errors
/// The reader's own error ends the stream.
pub fn read_frames<R>(reader: R, buffers: FrameBuffers) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    R: AsyncRead + Send + Unpin,
{
    let frame = buffers.size();
    stream::try_unfold(reader, move |mut reader| {
        let mut buffer = buffers.take();
        async move {
            while buffer.len() < frame {
                let room = frame - buffer.len();
                let mut space = (&mut *buffer).limit(room);
                if reader.read_buf(&mut space).await? == 0 {
                    break;
                }
            }
            let chunk = (!buffer.is_empty()).then(|| Bytes::from_owner(buffer));
            Ok(chunk.map(|chunk| (chunk, reader)))
        }
    })
}

/// Turns chunks of any size into frames: chunks of at least a frame are cut without copying, smaller ones are
/// collected with a single copy.
pub(crate) struct Frames<S> {
    input: Pin<Box<S>>,
    buffers: FrameBuffers,
    collected: Option<Buffer>,
    rest: Bytes,
    ended: bool,
}

impl<S: Stream<Item = io::Result<Bytes>>> Frames<S> {
    pub(crate) fn new(input: S, buffers: FrameBuffers) -> Self {
        let input = Box::pin(input);
        Self { input, buffers, collected: None, rest: Bytes::new(), ended: false }
    }

    /// The next frame, `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(frame) = self.cut() {
                return Some(Ok(frame));
            }
            if self.ended {
                let last = self.collected.take()?;
                return Some(Ok(Bytes::from_owner(last)));
            }
            match self.input.next().await {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(error)) => return Some(Err(error)),
                None => self.ended = true,
            }
        }
    }

    /// A full frame from what is at hand; `rest` is empty when there is none.
    fn cut(&mut self) -> Option<Bytes> {
        let size = self.buffers.size();
        if self.collected.is_none() && self.rest.len() >= size {
            return Some(self.rest.split_to(size));
        }
        if self.rest.is_empty() {
            return None;
        }
        let collected = self.collected.get_or_insert_with(|| self.buffers.take());
        let taken = self.rest.split_to((size - collected.len()).min(self.rest.len()));
        collected.extend_from_slice(&taken);
        if collected.len() < size {
            self.rest = Bytes::new();
            return None;
        }
        self.collected.take().map(Bytes::from_owner)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use proptest::prelude::*;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    async fn frames_of(chunks: Vec<Bytes>, size: usize) -> Vec<Bytes> {
        let mut frames = Frames::new(stream::iter(chunks.into_iter().map(Ok)), FrameBuffers::new(size));
        let mut all = Vec::new();
        while let Some(frame) = frames.next().await {
            all.push(frame.unwrap());
        }
        all
    }

    proptest! {
        #[test]
        fn any_chunks_become_full_frames(chunks in prop::collection::vec(0_usize..50, 0..20), size in 1_usize..40) {
            let total: usize = chunks.iter().sum();
            let content: Vec<u8> = (0..total).map(|i| i.to_le_bytes()[0]).collect();
            let mut left = Bytes::from(content.clone());
            let chunks: Vec<_> = chunks.into_iter().map(|len| left.split_to(len)).collect();
            let frames = run(frames_of(chunks, size));
            prop_assert_eq!(frames.concat(), content);
            let (last, full) = frames.split_last().map_or((None, &[][..]), |(last, full)| (Some(last), full));
            prop_assert!(full.iter().all(|frame| frame.len() == size));
            prop_assert!(last.is_none_or(|last| !last.is_empty() && last.len() <= size));
        }
    }

    #[test]
    fn chunks_of_frame_size_are_not_copied() {
        let chunk = Bytes::from(vec![1; 8]);
        let frames = run(frames_of(vec![chunk.clone(), chunk.clone()], 8));
        assert!(frames.iter().all(|frame| frame.as_ptr() == chunk.as_ptr()));
    }

    #[test]
    fn a_reader_is_cut_into_full_frames() {
        let content = [3; 25];
        let frames: Vec<_> = run(read_frames(&content[..], FrameBuffers::new(10)).try_collect()).unwrap();
        assert_eq!(frames.iter().map(Bytes::len).collect::<Vec<_>>(), [10, 10, 5]);
    }
}
