//! The other way to get at blocks: only the frames that hold them, by range.

use std::ops::Range;
use std::sync::Arc;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::object_reader::FrameReader;
use futures::{StreamExt, TryStreamExt, stream};

use super::ClusterRestoreError;
use super::set_index::Pack;
use super::stream_pack::Writer;
use super::work::{Block, PackWork};

/// Plain bytes fetched together. Requests at the same time are [`IN_FLIGHT`], so this bounds memory.
const MOST: u64 = 8 << 20;
/// Requests at the same time for one pack.
const IN_FLIGHT: usize = 3;

/// Needed blocks that are fetched together, and the frames they lie in.
#[derive(Debug)]
struct Batch {
    frames: Range<u64>,
    /// With the number of their file.
    blocks: Vec<(usize, Block)>,
}

/// Whether so few frames of a pack are needed that asking for them alone is better.
pub(super) fn is_worth_it(pack: &Pack, work: &PackWork) -> bool {
    let needed: u64 = batches(pack, work).iter().map(|batch| batch.frames.end - batch.frames.start).sum();
    needed * 2 <= pack.pack.stored.len() as u64
}

/// Fetches what the files of a pack need and writes it.
pub(super) async fn fetch(
    writer: &Writer,
    reader: &FrameReader,
    pack: &Pack,
    work: Arc<PackWork>,
) -> Result<(), ClusterRestoreError> {
    prepare(writer, &work).await?;
    let ends = frame_ends(pack);
    let fetching = batches(pack, &work).into_iter().map(|batch| {
        let stored = ends[index(batch.frames.start)]..ends[index(batch.frames.end)];
        let plain =
            batch.frames.start * pack.pack.frame..pack.pack.plain.min(batch.frames.end * pack.pack.frame);
        let (writer, work, object) = (writer.clone(), work.clone(), pack.pack.object.clone());
        async move {
            writer.check_cancelled()?;
            let length = plain.end - plain.start;
            let write = move |content: &[u8]| {
                batch.prove(&writer, &work, &object, plain.start, content)?;
                Ok(batch.write(&writer, &work, &object, plain.start, content))
            };
            reader.read(stored, length, write).await?
        }
    });
    stream::iter(fetching).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
    finish(writer, &work).await
}

/// Makes files that are not there.
async fn prepare(writer: &Writer, work: &Arc<PackWork>) -> Result<(), ClusterRestoreError> {
    let (writer, work) = (writer.clone(), work.clone());
    blocking(move || work.files.iter().try_for_each(|file| writer.open(file).map(drop))).await
}

/// Lengths, modes and times.
async fn finish(writer: &Writer, work: &Arc<PackWork>) -> Result<(), ClusterRestoreError> {
    let (writer, work) = (writer.clone(), work.clone());
    let close = move || work.files.iter().try_for_each(|file| writer.close(file, &writer.reopen(file)?));
    blocking(close).await
}

async fn blocking<F>(work: F) -> Result<(), ClusterRestoreError>
where
    F: FnOnce() -> Result<(), ClusterRestoreError> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CoreError::Internal { what: error.to_string() })?
}

impl Batch {
    /// Whether all blocks are what the index says. If not, it is for this copy, and another one may be right.
    fn prove(
        &self,
        writer: &Writer,
        work: &PackWork,
        object: &str,
        start: u64,
        content: &[u8],
    ) -> Result<(), String> {
        self.blocks.iter().try_for_each(|(file, block)| {
            let bytes = &content[index(block.at - start)..][..block.length];
            writer.prove(object, &work.files[*file], block, bytes).map_err(|error| error.to_string())
        })
    }

    fn write(
        &self,
        writer: &Writer,
        work: &PackWork,
        object: &str,
        start: u64,
        content: &[u8],
    ) -> Result<(), ClusterRestoreError> {
        let mut open = None;
        for (number, block) in &self.blocks {
            let file = &work.files[*number];
            let target = match open.take() {
                Some((same, target)) if same == *number => target,
                _ => writer.reopen(file)?,
            };
            let bytes = &content[index(block.at - start)..][..block.length];
            writer.write(object, file, &target, block, bytes)?;
            open = Some((*number, target));
        }
        Ok(())
    }
}

/// Puts needed blocks together that lie side by side.
fn batches(pack: &Pack, work: &PackWork) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let files = work.files.iter().enumerate();
    let needed = files.flat_map(|(number, file)| {
        file.blocks().filter(|block| block.needed).map(move |block| (number, block))
    });
    for (number, block) in needed {
        let first = block.at / pack.pack.frame;
        let end = (block.at + block.length as u64).div_ceil(pack.pack.frame);
        match batches.last_mut() {
            Some(last) if first <= last.frames.end && (end - last.frames.start) * pack.pack.frame <= MOST => {
                last.frames.end = last.frames.end.max(end);
                last.blocks.push((number, block));
            }
            _ => batches.push(Batch { frames: first..end, blocks: vec![(number, block)] }),
        }
    }
    batches
}

/// Where each frame ends in the stored bytes; the first entry is where the first one begins.
fn frame_ends(pack: &Pack) -> Vec<u64> {
    let mut end = 0;
    let ends = pack.pack.stored.iter().map(|length| {
        end += u64::from(*length);
        end
    });
    std::iter::once(0).chain(ends.collect::<Vec<_>>()).collect()
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("what is in memory has an index")
}
