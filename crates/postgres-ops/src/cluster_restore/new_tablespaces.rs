//! Tablespaces that the log itself creates.
//!
//! Replaying `CREATE TABLESPACE` uses the directory of the source, and no setting changes that. On the source's own host
//! it is the living cluster's, whose files recovery would then overwrite: file names in it are the same. So the log is
//! read before a server gets to, beside the restore of the files, and such a restore is refused.

use std::path::{Path, PathBuf};

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use futures::{StreamExt, TryStreamExt, stream};

use super::ClusterRestoreError;
use super::target::{refusal, version_directory};
use crate::physical::ClusterFacts;
use crate::recovery::RecoveryPlan;
use crate::wal::{Lsn, Segment, SegmentSize, WalFile};
use crate::wal_archive::{Fetched, WalArchive, WalArchiveError};
use crate::wal_records::{Event, RecordReader};

/// Bytes of segments that are fetched while one is read; one segment where that is more. Packs need memory meanwhile.
const AHEAD: u64 = 16 << 20;

/// A tablespace that recovery will make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewTablespace {
    pub(super) oid: u32,
    pub(super) path: String,
    pub(super) at: Lsn,
}

/// Reads the log of a plan and refuses it if it would write into a directory that is in use here. Gives notes on
/// directories that the server will need.
pub(super) async fn check(
    archive: &WalArchive,
    identities: &Identities,
    plan: &RecoveryPlan,
    facts: &ClusterFacts,
) -> Result<Vec<String>, ClusterRestoreError> {
    let mut notes = Vec::new();
    for tablespace in find(archive, identities, plan, facts).await? {
        let NewTablespace { oid, path, at } = &tablespace;
        let version = Path::new(path).join(version_directory(facts));
        if version.exists() {
            return Err(refusal(
                &version,
                format!("would be written to: at {at} the log creates tablespace {oid} there"),
                "it may be of a living cluster: restore on another host, or to a target before that position; if no \
                 server uses it, move it away",
            ));
        }
        if !PathBuf::from(path).is_dir() {
            notes.push(format!("at {at} the log creates tablespace {oid}: make the directory {path} before"));
        }
    }
    Ok(notes)
}

/// All that recovery replays.
async fn find(
    archive: &WalArchive,
    identities: &Identities,
    plan: &RecoveryPlan,
    facts: &ClusterFacts,
) -> Result<Vec<NewTablespace>, ClusterRestoreError> {
    let size = SegmentSize::new(facts.segment_size)
        .map_err(|error| CoreError::Internal { what: error.to_string() })?;
    let files = plan.segments.iter().flat_map(|run| {
        let first = run.first.number(size);
        let timeline = run.first.timeline();
        (first..first + run.count)
            .map(move |number| WalFile::Segment(Segment::numbered(timeline, number, size)))
    });
    let fetch = |file| async move {
        match archive.fetch(file, identities).await? {
            Fetched::Content(content) => Ok((file, content)),
            // It was listed a moment ago.
            Fetched::Absent => Err(WalArchiveError::Contradiction { file }),
        }
    };
    let ahead = usize::try_from(AHEAD / size.bytes()).unwrap_or(1).max(1);
    let mut segments = stream::iter(files.collect::<Vec<_>>()).map(fetch).buffered(ahead).boxed();
    let (mut reader, mut all) = (RecordReader::new(), Vec::new());
    let mut next = segments.try_next().await?;
    while let Some((file, content)) = next.take() {
        let reading = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            let read = reader.read_all(&content, &mut |span, record| {
                if let Some(Event::NewTablespace { oid, path }) = record.map(|record| record.event) {
                    found.push(NewTablespace { oid, path, at: span.start });
                }
            });
            (reader, found, read)
        });
        let (read, following) = tokio::join!(reading, segments.try_next());
        let (read_on, found, read) = read.map_err(|error| CoreError::Internal { what: error.to_string() })?;
        read.map_err(|source| WalArchiveError::Content { file, source })?;
        reader = read_on;
        all.extend(found);
        if reader.end().is_some() {
            break;
        }
        next = following?;
    }
    let begin = plan.path.first().map_or(Lsn::default(), |stretch| stretch.from);
    all.retain(|it| it.at >= begin && it.at < plan.expected_end);
    Ok(all)
}
