//! Brings what lies in the spool into the repositories: records of histories, then segments in order, then merged ones.
//!
//! Whatever fails for a reason that may pass is tried again for ever; meanwhile the spool grows, and says so. What will never succeed
//! stops the archiver: somebody else's bytes under the same name, a repository that refuses us.

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::clock::Clock;
use backstay_backup_core::error::describe;
use backstay_backup_core::sealed::SealOptions;
use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::FollowError;
use super::decide::{Merge, MergePolicy, Stored, merge, pause, together};
use super::facts::Shared;
use super::spool::{Closed, Spool};
use crate::archive::{
    ArchiveError, HistoryRecord, Level, Position, SegmentHead, SegmentName, Span, StreamArchive, TimeIndex,
};

/// Most bytes of segments that wait and are stored as one object.
const TOGETHER: u64 = 8 << 20;
/// What takes longer to store is worth an alarm.
const SLOW: Duration = Duration::from_secs(10);
/// How often it looks for something to merge although nothing was stored.
const LOOK: Duration = Duration::from_secs(10);

/// Stores what waits.
#[derive(Clone, Debug)]
pub(super) struct Uploader {
    pub(super) archive: StreamArchive,
    pub(super) spool: Arc<Spool>,
    pub(super) shared: Shared,
    pub(super) sealing: SealOptions,
    pub(super) merging: MergePolicy,
    pub(super) clock: Arc<dyn Clock>,
}

impl Uploader {
    /// Stores what waits, and what comes, until `done` is cancelled and nothing waits any more, or `stop` is.
    ///
    /// # Errors
    /// What will never succeed.
    pub(super) async fn run(
        &self,
        done: &CancellationToken,
        stop: &CancellationToken,
    ) -> Result<(), FollowError> {
        let mut failures = 0;
        loop {
            if self.shared.get(|facts| facts.lease) {
                let stored = tokio::select! {
                    stored = self.store_or_complain() => stored,
                    // What was stored and not noted is stored again, which is no harm.
                    () = stop.cancelled() => return Ok(()),
                };
                match stored {
                    Ok(true) => {
                        failures = 0;
                        self.shared.store_problem(None);
                        continue;
                    }
                    Ok(false) => {
                        if failures > 0 {
                            self.shared.store_problem(None);
                        }
                        failures = 0;
                    }
                    Err(error) if is_final(&error) => return Err(error),
                    Err(error) => {
                        failures += 1;
                        let problem = describe(&error);
                        if failures == 1 {
                            tracing::error!(
                                problem,
                                "nothing can be stored; what is received waits in the spool"
                            );
                        }
                        self.shared.store_problem(Some(problem));
                    }
                }
            }
            if done.is_cancelled() && failures == 0 && self.shared.queue().is_stored() {
                return Ok(());
            }
            let wait = if failures > 0 { pause(failures) } else { LOOK };
            let done = async {
                if done.is_cancelled() { std::future::pending().await } else { done.cancelled().await }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.work.notified(), if failures == 0 => {}
                () = done => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// As [`Uploader::store_some`], and says so when that takes long: stores try again for minutes before they give up.
    async fn store_or_complain(&self) -> Result<bool, FollowError> {
        let mut storing = std::pin::pin!(self.store_some());
        if let Ok(stored) = tokio::time::timeout(SLOW, &mut storing).await {
            return stored;
        }
        let seconds = SLOW.as_secs();
        tracing::error!(seconds, "nothing was stored for a while; what is received waits in the spool");
        self.shared.store_problem(Some(format!("nothing was stored for {seconds} s")));
        storing.await
    }

    /// Stores the next thing; false when there is none.
    async fn store_some(&self) -> Result<bool, FollowError> {
        let history = self.shared.queue().histories.front().cloned();
        if let Some(record) = history {
            self.store_history(&record).await?;
            return Ok(true);
        }
        let batch = self.next_batch();
        if !batch.is_empty() {
            self.store_batch(batch).await?;
            return Ok(true);
        }
        self.merge_some().await
    }

    async fn store_history(&self, record: &HistoryRecord) -> Result<(), FollowError> {
        match self.archive.store_history(record).await {
            Ok(_) => {}
            Err(error @ ArchiveError::Record { .. }) => {
                // It says less than it might; the bytes are not concerned.
                tracing::error!(problem = describe(&error), "where a history comes from cannot be recorded");
            }
            Err(error) => return Err(error.into()),
        }
        self.spool.drop_history(record.replication_id)?;
        self.shared.queue().histories.pop_front();
        Ok(())
    }

    fn next_batch(&self) -> Vec<(u32, Closed)> {
        let queue = self.shared.queue();
        let epoch = queue.closed.front().map(|(epoch, _)| *epoch);
        let waiting: Vec<_> = queue
            .closed
            .iter()
            .take(1024)
            .take_while(|(of, _)| Some(*of) == epoch)
            .map(|(_, closed)| (closed.name.replication_id, closed.name.span))
            .collect();
        let count = together(&waiting, TOGETHER);
        queue.closed.iter().take(count).cloned().collect()
    }

    async fn store_batch(&self, batch: Vec<(u32, Closed)>) -> Result<(), FollowError> {
        let epoch = batch[0].0;
        let parts: Vec<Closed> = batch.into_iter().map(|(_, closed)| closed).collect();
        let (name, head) = joined(&parts, Level::Fresh);
        let content = self.read(&parts).await?;
        self.archive.store_segment(&name, &head, content, &self.sealing).await?;
        let now = self.clock.now();
        for part in &parts {
            let stored = self.spool.stored(part)?;
            let mut queue = self.shared.queue();
            queue.closed.pop_front();
            queue.stored.push_back(stored);
        }
        self.shared.change(|facts| {
            facts.segments += 1;
            facts.waiting = facts.waiting.saturating_sub(parts.len() as u64);
            facts.stored_at = Some(now);
            if epoch == facts.epoch {
                facts.durable = Some(Position::new(name.replication_id, name.span.end));
            }
        });
        Ok(())
    }

    /// Merges what is enough, or old enough; false when there is nothing to do.
    async fn merge_some(&self) -> Result<bool, FollowError> {
        let (what, parts) = {
            let queue = self.shared.queue();
            let of = |closed: &Closed| Stored {
                id: closed.name.replication_id,
                span: closed.name.span,
                received: closed.head.last_received,
            };
            let stored: Vec<_> = queue.stored.iter().map(of).collect();
            let pressed = self.shared.get(|facts| facts.pressed);
            let what = merge(&stored, self.clock.now(), &self.merging, pressed);
            let count = match what {
                Merge::Wait => return Ok(false),
                Merge::Join(count) | Merge::Drop(count) => count,
            };
            (what, queue.stored.iter().take(count).cloned().collect::<Vec<_>>())
        };
        if matches!(what, Merge::Join(_)) {
            let (name, head) = joined(&parts, Level::Merged);
            let content = self.read(&parts).await?;
            let mut times = TimeIndex::default();
            parts.iter().for_each(|part| times.push(part.name.span.end, part.head.last_received));
            self.archive.store_times(&name, &times).await?;
            self.archive.store_segment(&name, &head, content, &self.sealing).await?;
            self.shared.change(|facts| facts.merged += 1);
        }
        for part in &parts {
            self.spool.remove(&part.path)?;
            self.shared.queue().stored.pop_front();
        }
        Ok(true)
    }

    async fn read(&self, parts: &[Closed]) -> Result<Bytes, FollowError> {
        let parts = parts.to_vec();
        let path = self.spool.folder().to_owned();
        let failed = move |source| FollowError::Spool { op: "read", path: path.clone(), source };
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            parts
                .iter()
                .try_for_each(|part| part.read().map(|bytes| all.extend_from_slice(&bytes)))
                .map(|()| all)
        });
        let read = reading.await.map_err(std::io::Error::other).and_then(|read| read);
        read.map(Bytes::from).map_err(failed)
    }
}

/// Name and head of segments that follow one another, as one.
fn joined(parts: &[Closed], level: Level) -> (SegmentName, SegmentHead) {
    let (first, last) = (&parts[0], &parts[parts.len() - 1]);
    let span = Span { start: first.name.span.start, end: last.name.span.end };
    let name = SegmentName { replication_id: first.name.replication_id, span, level };
    let received = parts.iter().map(|part| part.head.last_received).max();
    let mut head =
        SegmentHead::new(&name, first.head.first_received, received.unwrap_or(Timestamp::UNIX_EPOCH));
    head.clock_skew_millis = last.head.clock_skew_millis;
    head.commands = parts.iter().map(|part| part.head.commands).sum();
    head.first = parts.iter().find_map(|part| part.head.first);
    head.last = parts.iter().rev().find_map(|part| part.head.last);
    (name, head)
}

/// Whether trying again is pointless.
pub(super) fn is_final(error: &FollowError) -> bool {
    match error {
        FollowError::Archive(error) => error.is_fenced() || matches!(error.class(), Class::Internal),
        FollowError::Spool { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
#[path = "uploader_tests.rs"]
mod tests;
