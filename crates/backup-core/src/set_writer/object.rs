//! Stores one object: two halves that run side by side, joined by a queue of frames in order.
//!
//! The *feeder* reads the source, waits for room for each frame and starts its compression; the *sink* takes the
//! frames in order, assembles parts and gives them to the uploads. All blocking work runs on blocking threads, so both
//! halves can live in the caller's own task and end with it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::DataPath;
use super::lanes::Lanes;
use super::members::Members;
use crate::codec::{Compressed, Compressors};
use crate::encryption::Recipients;
use crate::error::Error;
use crate::key::Key;
use crate::manifest::Codec;
use crate::pipeline::FrameBuffers;
use crate::pipeline::Frames;
use crate::pipeline::assembler::{Assembler, Stored};
use crate::pipeline::parts::{Part, PartBudget, Share};
use crate::pipeline::room::{FrameBudget, FrameRoom};
use crate::store::Attributes;
use crate::upload::UploadOptions;

/// Work on less than this many bytes is done at once, instead of being sent to a blocking thread.
const INLINE: usize = 16 << 10;

/// What all objects of a set share: workers, budgets, buffers.
pub(super) struct Machine {
    frames: FrameBudget,
    buffers: FrameBuffers,
    compressors: Arc<Compressors>,
    budget: PartBudget,
    recipients: Recipients,
    attributes: Attributes,
    upload: UploadOptions,
    depth: usize,
}

/// What was stored of one object.
pub(super) struct Content {
    pub(super) plain: u64,
    pub(super) stored: Stored,
    /// Bytes of each frame before encryption.
    pub(super) frames: Vec<u32>,
}

/// A frame after compression. Its room is given back when its bytes are in a part.
struct Frame {
    plain: usize,
    data: Compressed,
    _room: FrameRoom,
}

impl Frame {
    fn stored(&self) -> Result<u32, Error> {
        let len = self.data.as_slice().len();
        u32::try_from(len).map_err(|_| Error::Internal { what: format!("a frame of {len} bytes") })
    }
}

/// A frame in the queue.
enum Job {
    Done(io::Result<Frame>),
    Running(JoinHandle<io::Result<Frame>>),
}

impl Machine {
    pub(super) fn new(
        path: &DataPath,
        recipients: Recipients,
        attributes: Attributes,
    ) -> Result<Self, Error> {
        if path.frame == 0 || path.workers == 0 || path.part_size == 0 || path.parts_in_flight == 0 {
            let what = "frame, workers, part size and parts in flight must not be zero".to_owned();
            return Err(Error::Internal { what });
        }
        // With a single frame, compression and assembly would take turns.
        let depth = path.workers.max(2);
        Ok(Self {
            frames: FrameBudget::new(depth, path.frame),
            buffers: FrameBuffers::new(path.frame),
            compressors: Arc::new(Compressors::new(path.level)),
            budget: PartBudget::new(path.parts_in_flight + 1),
            recipients,
            attributes,
            upload: UploadOptions::default().part_size(path.part_size).parts_in_flight(path.parts_in_flight),
            depth,
        })
    }

    /// Buffers for whoever feeds [`Machine::store`].
    pub(super) fn buffers(&self) -> &FrameBuffers {
        &self.buffers
    }

    /// Stores `input` as one object.
    pub(super) async fn store<S>(
        &self,
        members: &Members,
        key: &Key,
        name: &str,
        codec: Codec,
        input: S,
    ) -> Result<Content, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let lanes = Lanes::new(members, key, &self.attributes, self.upload);
        let assembler = Assembler::new(&self.recipients).map_err(internal)?;
        let mut sink = Sink {
            lanes,
            share: self.budget.share(),
            assembler: Some(assembler),
            plain: 0,
            frames: Vec::new(),
        };
        let (sender, receiver) = mpsc::channel(self.depth);
        let fed = async {
            let source = |source| Error::Source { object: name.to_owned(), source };
            self.feed(codec, input, &sender).await.map_err(source)?;
            drop(sender);
            Ok(())
        };
        let both = async { tokio::try_join!(fed, sink.drain(receiver)) };
        match both.await {
            Ok(_) => sink.finish().await,
            Err(error) => {
                sink.lanes.abort().await;
                Err(error)
            }
        }
    }

    /// Reads the source and starts the compression of its frames. An empty source is one empty frame.
    async fn feed<S>(&self, codec: Codec, input: S, queue: &mpsc::Sender<Job>) -> io::Result<()>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let mut frames = Frames::new(input, self.buffers.clone());
        let mut next = Some(frames.next().await.unwrap_or_else(|| Ok(Bytes::new()))?);
        while let Some(frame) = next {
            let room = self.frames.room(frame.len(), codec).await.map_err(io::Error::other)?;
            if queue.send(self.start(codec, frame, room)).await.is_err() {
                // The sink failed and says why.
                return Ok(());
            }
            next = frames.next().await.transpose()?;
        }
        Ok(())
    }

    fn start(&self, codec: Codec, frame: Bytes, mut room: FrameRoom) -> Job {
        let compressors = self.compressors.clone();
        let plain = frame.len();
        let compress = move || {
            let data = compressors.compress(codec, frame)?;
            room.shrink(data.as_slice().len());
            Ok(Frame { plain, data, _room: room })
        };
        if plain <= INLINE || codec == Codec::None {
            Job::Done(compress())
        } else {
            Job::Running(spawn_blocking(compress))
        }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("frame", &self.buffers.size())
            .field("upload", &self.upload)
            .finish_non_exhaustive()
    }
}

/// Where the frames of one object go.
struct Sink<'a> {
    lanes: Lanes<'a>,
    share: Share,
    /// Absent only while it is on a blocking thread.
    assembler: Option<Assembler>,
    plain: u64,
    frames: Vec<u32>,
}

impl Sink<'_> {
    async fn drain(&mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), Error> {
        while let Some(job) = queue.recv().await {
            let frame = match job {
                Job::Done(frame) => frame,
                Job::Running(job) => job.await.map_err(lost)?,
            };
            let frame = frame.map_err(internal)?;
            self.plain += frame.plain as u64;
            self.frames.push(frame.stored()?);
            self.push(frame).await?;
        }
        Ok(())
    }

    async fn push(&mut self, mut frame: Frame) -> Result<(), Error> {
        let len = frame.data.as_slice().len();
        let mut taken = 0;
        while taken < len {
            self.make_room().await;
            let mut assembler = self.assembler.take().expect("it comes back from every fill");
            let fill = move || {
                let more = assembler.fill(&frame.data.as_slice()[taken..])?;
                Ok::<_, io::Error>((assembler, frame, taken + more))
            };
            let filled = if len <= INLINE { fill() } else { spawn_blocking(fill).await.map_err(lost)? };
            let (assembler, frame_back, now_taken) = filled.map_err(internal)?;
            (frame, taken) = (frame_back, now_taken);
            self.assembler = Some(assembler);
            self.pass_on().await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Content, Error> {
        match self.flush().await {
            Ok((content, rest)) => {
                self.lanes.finish(rest, content.stored.len).await?;
                Ok(content)
            }
            Err(error) => {
                self.lanes.abort().await;
                Err(error)
            }
        }
    }

    /// Writes what is left in the assembler but for the last part.
    async fn flush(&mut self) -> Result<(Content, Bytes), Error> {
        self.assembler().finish().map_err(internal)?;
        while self.assembler().has_overflow() {
            self.make_room().await;
            self.pass_on().await?;
        }
        let rest = self.assembler().take_rest().map_or_else(Bytes::new, Part::freeze);
        let (plain, frames) = (self.plain, std::mem::take(&mut self.frames));
        Ok((Content { plain, stored: self.assembler().stored(), frames }, rest))
    }

    async fn make_room(&mut self) {
        if self.assembler().needs_part() {
            let size = self.lanes.next_part();
            let part = self.share.part(size).await;
            self.assembler().supply(part);
        }
    }

    async fn pass_on(&mut self) -> Result<(), Error> {
        match self.assembler().take_full() {
            Some(part) => self.lanes.write(&part.freeze()).await,
            None => Ok(()),
        }
    }

    fn assembler(&mut self) -> &mut Assembler {
        self.assembler.as_mut().expect("it comes back from every fill")
    }
}

/// Compression and encryption of bytes in memory do not fail on any input.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn internal(error: io::Error) -> Error {
    Error::Internal { what: error.to_string() }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn lost(error: JoinError) -> Error {
    if error.is_panic() {
        return Error::Internal { what: "a worker panicked".to_owned() };
    }
    Error::Cancelled
}
