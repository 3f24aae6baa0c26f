//! From what was asked for to one place in one history, or to a refusal that names the nearest places.
//!
//! ```text
//! windows of all histories ─▶ the window that has the target ─▶ newest base before it ─▶ last cut at or before it
//! ```
//!
//! A target is only accepted when it is proven: bytes that were received later, or a snapshot taken later at the same
//! offset, show that nothing is missing before it. A time behind the end of the archive is refused; nobody knows what was
//! written by then.

use std::sync::Arc;

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::SetId;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::error::RestoreError;
use super::search::{FoundCommand, Lookout};
use super::target::{CommandSearch, RestoreTarget};
use crate::Offset;
use crate::archive::{
    ArchiveError, Base, LineFacts, Position, SegmentObject, StreamArchive, StreamPath, StreamSurvey, Window,
};

/// Nearest points that are named in a refusal.
const NEAREST: usize = 4;
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// What is archived behind the point that is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Missing {
    /// Bytes of the stream, up to the next gap.
    pub bytes: u64,
    /// When the last of them was received.
    pub until: Option<Timestamp>,
    /// Whether there is more behind a gap, or in another history.
    pub more_behind_gap: bool,
}

/// One place that can be restored.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) base: Base,
    /// What follows the base; nothing when the base is the target.
    pub(super) path: Option<StreamPath>,
    /// The exact end.
    pub(super) end: Position,
    /// The moment whose state that is, as fine as it is known.
    pub(super) time: Timestamp,
    pub(super) missing: Missing,
    pub(super) found: Option<FoundCommand>,
    pub(super) notes: Vec<String>,
}

/// Everything there is to restore from.
#[derive(Debug)]
pub(super) struct Past<'a> {
    pub(super) archive: &'a StreamArchive,
    pub(super) survey: Arc<StreamSurvey>,
    /// Bases of this server, good or not.
    pub(super) bases: Vec<Base>,
    pub(super) lines: Vec<LineFacts>,
    pub(super) identities: &'a Identities,
}

impl<'a> Past<'a> {
    pub(super) fn new(
        archive: &'a StreamArchive,
        survey: StreamSurvey,
        bases: Vec<Base>,
        identities: &'a Identities,
    ) -> Self {
        let lines = survey.lines(&bases);
        Self { archive, survey: Arc::new(survey), bases, lines, identities }
    }

    /// The place of a target. `from` is the base to begin with, where that was said.
    pub(super) async fn resolve(
        &self,
        target: &RestoreTarget,
        from: Option<&SetId>,
    ) -> Result<Point, RestoreError> {
        match target {
            RestoreTarget::Set(set) => self.at_base(self.base(set)?, Vec::new()).await,
            RestoreTarget::Newest => self.newest(from).await,
            RestoreTarget::Time(time) => self.at_time(*time, from).await,
            RestoreTarget::Offset { history, offset } => {
                let windows = self.windows().filter(|(line, _)| {
                    history.is_none_or(|id| {
                        self.survey.line(line.replication_id).has(Position::new(id, *offset))
                    })
                });
                let has_it =
                    |(_, it): &(&LineFacts, &Window)| it.from.offset <= *offset && *offset <= it.to.offset;
                match windows.into_iter().find(has_it) {
                    Some((line, window)) => self.point(line, window, *offset, from).await,
                    None => Err(self.unreachable_offset(target, *offset).await),
                }
            }
            RestoreTarget::Before(search) => self.before(search, from).await,
        }
    }

    /// All windows, those of the history that grew last first, the last ones first.
    fn windows(&self) -> impl Iterator<Item = (&LineFacts, &Window)> {
        self.lines.iter().rev().flat_map(|line| line.windows.iter().rev().map(move |window| (line, window)))
    }

    fn base(&self, set: &SetId) -> Result<&Base, RestoreError> {
        self.bases.iter().find(|base| base.set == *set).ok_or_else(|| {
            RestoreError::usage(
                format!("set {set} is no snapshot of this Redis"),
                "`list-backups` shows what each set holds; --stream names the server of a cluster",
            )
        })
    }

    async fn newest(&self, from: Option<&SetId>) -> Result<Point, RestoreError> {
        let newest_base = self.bases.iter().filter(|base| base.good).max_by_key(|base| base.taken);
        if let Some((line, window)) = self.windows().next() {
            let end = self.end_of(line, window).await?;
            let newer = newest_base.filter(|base| base.taken > end && !window.bases.contains(base));
            match newer.filter(|_| from.is_none()) {
                None => return self.point(line, window, window.to.offset, from).await,
                Some(base) => {
                    let note =
                        format!("the archive of the stream ends at {end}, before set {} was taken", base.set);
                    return self.at_base(base, vec![note]).await;
                }
            }
        }
        let base = match from {
            Some(set) => Some(self.base(set)?),
            None => newest_base,
        };
        match base {
            Some(base) => self.at_base(base, Vec::new()).await,
            None => Err(RestoreError::Absent {
                problem: format!(
                    "there is no good snapshot of a Redis in stanza {} to begin with",
                    self.archive.stanza()
                ),
                remedy: "`list-backups` shows all sets and what is wrong with them".to_owned(),
            }),
        }
    }

    async fn at_time(&self, time: Timestamp, from: Option<&SetId>) -> Result<Point, RestoreError> {
        for (line, window) in self.windows() {
            // Servers write whole seconds, rounded down: what a snapshot holds may be a second younger than it says.
            let surely = |base: &&Base| base.taken.saturating_add(SECOND).is_ok_and(|taken| taken <= time);
            let Some(first) = window.bases.iter().find(surely) else { continue };
            let whole = self.survey.line(line.replication_id);
            let reached = match self.archive.offset_at(&self.survey, &whole, window.from.offset, time).await {
                Ok(reached) => reached,
                Err(ArchiveError::TooEarly { .. }) => (first.position.offset, first.taken),
                Err(error) => return Err(error.into()),
            };
            // A snapshot that was taken by then holds more than what was received by then, when clocks differ.
            let by_base = window.bases.iter().filter(surely).max_by_key(|it| it.position.offset);
            let offset = by_base.map_or(reached.0, |base| base.position.offset.max(reached.0));
            let ends = self.end_of(line, window).await?;
            let is_proven = time <= ends || window.bases.iter().any(|base| base.taken >= time);
            if !is_proven {
                continue;
            }
            let mut point = self.point(line, window, offset, from).await?;
            point.time = time;
            return Ok(point);
        }
        let problem = format!("{time} cannot be reached: it is in no window of the archive");
        Err(RestoreError::Unreachable { problem, nearest: self.nearest_times(time).await })
    }

    async fn before(&self, search: &CommandSearch, from: Option<&SetId>) -> Result<Point, RestoreError> {
        let mut left = search.occurrence.get() as usize - 1;
        let mut searched = 0;
        for (line, window) in self.windows() {
            let whole = self.survey.line(line.replication_id);
            let mut end = window.to.offset;
            if let Some(time) = search.not_after {
                match self.archive.offset_at(&self.survey, &whole, window.from.offset, time).await {
                    Ok((offset, _)) => end = offset.min(end),
                    Err(ArchiveError::TooEarly { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            let path = self.survey.path(&whole, window.from.offset, end)?;
            searched += path.span.len();
            if let Some(found) = self.lookout().find(&path, search, &mut left).await? {
                let mut point = self.point(line, window, found.offset, from).await?;
                let first = self.survey.path(&whole, found.offset, found.offset.plus(1))?;
                if let Some((object, span)) = first.pieces.first() {
                    point.time = self.received(object, span.end).await?;
                }
                point.found = Some(found);
                return Ok(point);
            }
        }
        let problem =
            format!("{search} was not found in {searched} bytes of archived stream that a snapshot leads to");
        let remedy =
            "check name, --key and --occurrence; in a script or function look for the commands that it runs";
        Err(RestoreError::Absent { problem, remedy: remedy.to_owned() })
    }

    fn lookout(&self) -> Lookout<'_> {
        Lookout { archive: self.archive, survey: &self.survey, identities: self.identities }
    }

    async fn at_base(&self, base: &Base, notes: Vec<String>) -> Result<Point, RestoreError> {
        let line =
            self.lines.iter().rev().find(|line| self.survey.line(line.replication_id).has(base.position));
        let window =
            line.and_then(|line| Some((line, line.windows.iter().find(|it| it.bases.contains(base))?)));
        let missing = match window {
            Some((line, window)) => self.missing(line, window, base.position.offset).await,
            None => Missing { more_behind_gap: !self.lines.is_empty(), ..Missing::default() },
        };
        let (base, end, time) = (base.clone(), base.position, base.taken);
        Ok(Point { base, path: None, end, time, missing, found: None, notes })
    }

    /// The last place at or before an offset of a window.
    async fn point(
        &self,
        line: &LineFacts,
        window: &Window,
        offset: Offset,
        from: Option<&SetId>,
    ) -> Result<Point, RestoreError> {
        let base = self.choose_base(window, offset, from)?;
        let whole = self.survey.line(line.replication_id);
        let path = self.survey.path(&whole, base.position.offset, offset)?;
        let cut = self.lookout().last_cut(&path).await?;
        let path = self.survey.path(&whole, base.position.offset, cut)?;
        let time = match path.pieces.last() {
            Some((object, _)) => self.received(object, cut).await?,
            None => base.taken,
        };
        let missing = self.missing(line, window, cut).await;
        let end = whole.position(cut);
        let path = Some(path).filter(|path| !path.span.is_empty());
        Ok(Point { base, path, end, time, missing, found: None, notes: Vec::new() })
    }

    fn choose_base(
        &self,
        window: &Window,
        offset: Offset,
        from: Option<&SetId>,
    ) -> Result<Base, RestoreError> {
        let before = window.bases.iter().filter(|base| base.position.offset <= offset);
        let Some(set) = from else {
            let last = before.max_by_key(|base| (base.position.offset, base.taken));
            return Ok(last.expect("a window begins with a base").clone());
        };
        if let Some(base) = before.into_iter().find(|base| base.set == *set) {
            return Ok(base.clone());
        }
        let base = self.base(set)?;
        let problem = format!(
            "set {set} was taken at offset {}, from which the target at offset {offset} cannot be reached",
            base.position.offset
        );
        let nearest = window.bases.iter().filter(|base| base.position.offset <= offset);
        let nearest = nearest.map(|base| format!("set {}", base.set)).rev().take(NEAREST).collect();
        Err(RestoreError::Unreachable { problem, nearest })
    }

    /// When the byte before an offset was received, by the server's clock.
    async fn received(&self, object: &SegmentObject, offset: Offset) -> Result<Timestamp, RestoreError> {
        let head = self.archive.head(object).await?;
        let times = self.archive.times(object).await?;
        let entry =
            times.and_then(|times| times.entries().iter().find(|(end, _)| *end >= offset).map(|it| it.1));
        Ok(head.by_server(entry.unwrap_or(head.last_received)))
    }

    /// When the end of a window was received, or its last snapshot was taken.
    async fn end_of(&self, line: &LineFacts, window: &Window) -> Result<Timestamp, RestoreError> {
        let taken = window.bases.iter().map(|base| base.taken).max().expect("a window begins with a base");
        let whole = self.survey.line(line.replication_id);
        let path = self.survey.path(&whole, window.from.offset, window.to.offset)?;
        match path.pieces.last() {
            Some((object, span)) => Ok(self.received(object, span.end).await?.max(taken)),
            None => Ok(taken),
        }
    }

    /// What lies behind a point. Damage there does not matter to the point.
    async fn missing(&self, line: &LineFacts, window: &Window, end: Offset) -> Missing {
        let bytes = window.to.offset.since(end);
        let until = if bytes > 0 { self.end_of(line, window).await.ok() } else { None };
        let is_last = line.windows.last() == Some(window)
            && line.unreachable.iter().all(|it| it.start < window.to.offset);
        let is_newest = self.lines.last().map(|it| it.replication_id) == Some(line.replication_id);
        Missing { bytes, until, more_behind_gap: !is_last || !is_newest }
    }

    async fn unreachable_offset(&self, target: &RestoreTarget, offset: Offset) -> RestoreError {
        let gap = self
            .lines
            .iter()
            .rev()
            .flat_map(|line| &line.gaps)
            .find(|gap| gap.from.offset < offset && offset < gap.to.offset);
        let first = self.windows().map(|(_, window)| window.from.offset).min();
        let problem = match (gap, first) {
            (Some(gap), _) => {
                format!(
                    "{target} cannot be reached: it lies in a gap from {} to {}",
                    gap.from.offset, gap.to.offset
                )
            }
            (None, None) => format!("{target} cannot be reached: no snapshot lies in the archived stream"),
            (None, Some(first)) if offset < first => {
                format!(
                    "{target} cannot be reached: it lies before the first snapshot, which is at offset {first}"
                )
            }
            _ => format!("{target} cannot be reached: it is not in the archive, or not in this history"),
        };
        let mut nearest: Vec<_> = self.windows().collect();
        let distance = |window: &Window| offset.since(window.to.offset).max(window.from.offset.since(offset));
        nearest.sort_by_key(|(_, window)| distance(window));
        let words = |(_, window): &(&LineFacts, &Window)| {
            let history = window.to.replication_id;
            format!("offsets {} to {} of {history}", window.from.offset, window.to.offset)
        };
        RestoreError::Unreachable { problem, nearest: nearest.iter().take(NEAREST).map(words).collect() }
    }

    async fn nearest_times(&self, time: Timestamp) -> Vec<String> {
        let mut spans = Vec::new();
        for (line, window) in self.windows() {
            let first = window.bases.iter().map(|base| base.taken).min().unwrap_or(Timestamp::MAX);
            let Ok(last) = self.end_of(line, window).await else { continue };
            let distance = time.duration_since(last).max(first.duration_since(time));
            spans.push((distance, format!("{first} to {last}")));
        }
        for base in self.bases.iter().filter(|base| base.good) {
            let is_known = self.windows().any(|(_, window)| window.bases.contains(base));
            if !is_known {
                let distance = time.duration_since(base.taken).abs();
                spans.push((distance, format!("set {} of {}", base.set, base.taken)));
            }
        }
        spans.sort();
        spans.into_iter().take(NEAREST).map(|(_, text)| text).collect()
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
