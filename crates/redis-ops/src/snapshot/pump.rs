//! Moves a snapshot into an object: one task reads frames, one thread looks at them, the set stores them.

use std::io;

use backstay_backup_core::manifest::{Codec, ObjectEntry};
use backstay_backup_core::pipeline::FrameBuffers;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::set_writer::SetWriter;
use bytes::Bytes;
use futures::stream;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::psync::FullSync;
use crate::rdb::{RdbError, RdbFacts, RdbScanner};

/// Where an RDB comes from.
pub(super) enum Input {
    Replica(Box<FullSync>),
    File(tokio::fs::File, String),
}

impl Input {
    /// Appends at most about `room` bytes; 0 at the end.
    async fn read(&mut self, into: &mut Vec<u8>, room: usize) -> Result<usize, Error> {
        match self {
            Self::Replica(full) => full.read(into, room).await,
            Self::File(file, path) => {
                let mut limited = bytes::BufMut::limit(into, room);
                let read = file.read_buf(&mut limited).await;
                read.map_err(|source| Error::File { op: "read", path: path.clone(), source })
            }
        }
    }
}

/// What was stored, and what it holds.
pub(super) struct Stored {
    pub(super) entry: ObjectEntry,
    pub(super) rdb: RdbFacts,
}

/// A piece, or nothing when the source failed.
type Piece = Option<Bytes>;

/// Stores a snapshot as an object that exists only if the snapshot is whole and undamaged.
pub(super) async fn store(
    set: &SetWriter,
    name: &str,
    codec: Codec,
    mut input: Input,
    progress: &Progress,
) -> Result<Stored, Error> {
    let (pieces, to_look_at) = mpsc::channel::<Piece>(1);
    let (looked_at, to_store) = mpsc::channel::<io::Result<Bytes>>(1);
    let counting = progress.clone();
    let looking = tokio::task::spawn_blocking(move || look(to_look_at, &looked_at, &counting));
    let buffers = set.frame_buffers();
    let reading = read(&mut input, &buffers, pieces);
    let frames = stream::unfold(to_store, |mut frames| async move {
        let frame: io::Result<Bytes> = frames.recv().await?;
        Some((frame, frames))
    });
    let (read, stored) = futures::future::join(reading, Box::pin(set.object(name, codec, frames))).await;
    let looked = looking.await;
    // The cause comes first: what the reader met, then what the scanner met, then the store.
    read?;
    let rdb = match looked {
        Ok(Some(looked)) => looked.map_err(|source| Error::Rdb { source })?,
        Ok(None) | Err(_) => {
            let error = stored.err().map(Error::from);
            let lost = || backstay_backup_core::Error::Internal { what: "the scanner stopped".to_owned() };
            return Err(error.unwrap_or_else(|| lost().into()));
        }
    };
    Ok(Stored { entry: stored?, rdb })
}

/// Reads frame after frame until the end, or until nobody wants more.
async fn read(input: &mut Input, buffers: &FrameBuffers, pieces: mpsc::Sender<Piece>) -> Result<(), Error> {
    let mut ended = false;
    while !ended {
        let mut buffer = buffers.take();
        while !ended && buffer.len() < buffers.size() {
            let room = buffers.size() - buffer.len();
            match input.read(&mut buffer, room).await {
                Ok(0) => ended = true,
                Ok(_) => {}
                Err(error) => {
                    // So that the object is not finished with what came so far.
                    let _ = pieces.send(None).await;
                    return Err(error);
                }
            }
        }
        if !buffer.is_empty() && pieces.send(Some(Bytes::from_owner(buffer))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Looks at every frame before it is stored. `None` when the store wants no more.
fn look(
    mut pieces: mpsc::Receiver<Piece>,
    frames: &mpsc::Sender<io::Result<Bytes>>,
    progress: &Progress,
) -> Option<Result<RdbFacts, RdbError>> {
    let mut scanner = RdbScanner::new();
    while let Some(piece) = pieces.blocking_recv() {
        let Some(bytes) = piece else {
            frames.blocking_send(Err(io::Error::other("the snapshot broke off"))).ok()?;
            return None;
        };
        if let Err(error) = scanner.push(&bytes) {
            return fail(frames, error);
        }
        progress.add_bytes(bytes.len() as u64);
        frames.blocking_send(Ok(bytes)).ok()?;
    }
    match scanner.finish() {
        Ok(facts) => Some(Ok(facts)),
        Err(error) => fail(frames, error),
    }
}

fn fail(frames: &mpsc::Sender<io::Result<Bytes>>, error: RdbError) -> Option<Result<RdbFacts, RdbError>> {
    let said = io::Error::new(io::ErrorKind::InvalidData, error.clone());
    let _ = frames.blocking_send(Err(said));
    Some(Err(error))
}
