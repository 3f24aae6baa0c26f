//! Whether the WAL that a base backup needs is in the archive.

use std::collections::BTreeMap;

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::error::describe;
use backstay_backup_core::id::SetId;
use backstay_backup_core::proof::Problem;
use backstay_backup_core::sealed::{Seal, SealError};
use backstay_backup_core::verify::Depth;
use futures::StreamExt;
use serde::Serialize;

use super::{BaseBackup, ReachEnd, TimelinePath};
use crate::wal::{Segment, WalFile};
use crate::wal_archive::{Fetched, Run, WalArchive, WalArchiveError, WalSurvey};

/// Segments looked at at the same time.
const AT_ONCE: usize = 4;

/// What is known of the WAL that a base backup needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct SetWal {
    /// The set.
    pub set: SetId,
    /// How much was looked at.
    pub depth: Depth,
    /// Segments that it needs to become consistent.
    pub segments: u64,
    /// Those that no repository has. The set is worthless without them.
    pub missing: Vec<Run>,
    /// Those that are there and cannot be used.
    pub damaged: Vec<Problem>,
    /// Those that could not be looked at.
    pub unchecked: Vec<Problem>,
    /// The first segment behind it that is missing although later ones are there: recovery ends before it.
    pub gap_after: Option<Segment>,
}

impl SetWal {
    /// Whether nothing that the set needs is known to be missing or damaged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty()
    }

    /// The same where not every repository could be listed: what is missing may be there.
    #[must_use]
    pub fn doubt_missing(mut self) -> Self {
        let doubts: Vec<_> = self
            .missing
            .drain(..)
            .map(|run| {
                Problem::new(
                    &run.first.to_string(),
                    format!("{} segments from it on were not found", run.count),
                )
            })
            .collect();
        self.unchecked.extend(doubts);
        self
    }

    /// What is wrong, as problems of the set.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let missing = self.missing.iter().map(|run| match run.count {
            1 => Problem::new(&run.first.to_string(), "this WAL segment is not archived"),
            _ => {
                let what = format!("this WAL segment and those up to {} are not archived", run.last);
                Problem::new(&run.first.to_string(), what)
            }
        });
        missing.chain(self.damaged.iter().cloned()).collect()
    }
}

/// Checks the WAL that a base backup needs. Quick: every segment is in a repository, and begins with the seal of a whole
/// segment. Full: the content of every segment is proven.
///
/// # Cancel safety
/// Only reads.
pub async fn check_wal(
    archive: &WalArchive,
    base: &BaseBackup,
    survey: &WalSurvey,
    depth: Depth,
    identities: &Identities,
) -> SetWal {
    let needed = base.needed(survey.size);
    let missing = base.missing(survey);
    let is_missing = |segment: Segment| missing.iter().any(|run| run.first <= segment && segment <= run.last);
    let segments = needed.iter().flat_map(|run| {
        let first = run.first.number(survey.size);
        (first..first + run.count).map(|number| Segment::numbered(run.first.timeline(), number, survey.size))
    });
    let there: Vec<_> = segments.filter(|segment| !is_missing(*segment)).collect();
    let look = |segment| async move { (segment, look_at(archive, survey, segment, depth, identities).await) };
    let mut looks = futures::stream::iter(there).map(look).buffered(AT_ONCE);
    let (mut damaged, mut unchecked) = (Vec::new(), Vec::new());
    while let Some((segment, found)) = looks.next().await {
        match found {
            Ok(()) => {}
            Err(Look::Damaged(what)) => damaged.push(Problem::new(&segment.to_string(), what)),
            Err(Look::Unchecked(what)) => unchecked.push(Problem::new(&segment.to_string(), what)),
        }
    }
    drop(looks);
    let segments = needed.iter().map(|run| run.count).sum();
    let gap_after = gap_after(base, survey);
    SetWal { set: base.set.clone(), depth, segments, missing, damaged, unchecked, gap_after }
}

/// The first gap behind a base backup on its own timeline.
fn gap_after(base: &BaseBackup, survey: &WalSurvey) -> Option<Segment> {
    let path = TimelinePath::new(survey.history(base.timeline)?, survey.size);
    match path.reach(survey, path.number_before(base.stop))?.end {
        ReachEnd::Gap { missing, .. } => Some(missing),
        ReachEnd::EndOfLog => None,
    }
}

enum Look {
    Damaged(String),
    Unchecked(String),
}

async fn look_at(
    archive: &WalArchive,
    survey: &WalSurvey,
    segment: Segment,
    depth: Depth,
    identities: &Identities,
) -> Result<(), Look> {
    if depth == Depth::Full {
        return match archive.fetch(WalFile::Segment(segment), identities).await {
            Ok(Fetched::Content(_)) => Ok(()),
            Ok(Fetched::Absent) => Err(Look::Damaged("it was listed and is not there".to_owned())),
            // Without the key nothing can be said of the content.
            Err(error @ WalArchiveError::Damaged { source: SealError::Key, .. }) => {
                Err(Look::Unchecked(describe(&error)))
            }
            Err(error @ (WalArchiveError::Damaged { .. } | WalArchiveError::Content { .. })) => {
                Err(Look::Damaged(describe(&error)))
            }
            Err(error) => Err(Look::Unchecked(describe(&error))),
        };
    }
    let seals = archive.seals(WalFile::Segment(segment)).await;
    let whole = |seal: &Seal| seal.length == survey.size.bytes();
    let mut problems = BTreeMap::new();
    for (repository, seal) in seals {
        match seal {
            Ok(Some(seal)) if whole(&seal) => return Ok(()),
            Ok(Some(seal)) => {
                problems.insert(0, format!("in repository {repository} it has {} bytes", seal.length));
            }
            Ok(None) => {}
            Err(WalArchiveError::Damaged { .. }) => {
                problems.insert(1, format!("in repository {repository} it does not begin with a seal"));
            }
            Err(error) => return Err(Look::Unchecked(describe(&error))),
        }
    }
    let problem = problems.into_values().next();
    Err(Look::Damaged(problem.unwrap_or_else(|| "it was listed and is not there".to_owned())))
}
