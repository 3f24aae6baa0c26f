//! Where the stream goes on: what the spool says, or else the repositories.

use std::path::PathBuf;

use backstay_backup_core::catalog::Catalog;

use super::FollowError;
use super::spool::{Begun, Closed, Contents, Snapshot};
use crate::Offset;
use crate::archive::{Position, StreamArchive, StreamSurvey, bases};
use crate::resp::StreamState;

/// Where to begin.
pub(super) struct Begin {
    pub(super) known: Option<(Position, StreamState)>,
    pub(super) durable: Option<Position>,
    /// Segments within a command that comes again from its beginning.
    pub(super) again: Vec<PathBuf>,
}

/// What the spool says about where the stream goes on.
pub(super) fn begin_from(contents: &Contents) -> Begin {
    // What came before the stream began anew is of another time.
    let is_of_now = |it: &&Closed| contents.begun.is_none_or(|begun| it.head.first_received >= begun.at);
    let segments: Vec<_> = contents.stored.iter().chain(&contents.closed).filter(is_of_now).collect();
    let (mut known, again) = last_whole(&segments, contents.begun);
    let is_newer = |snapshot: &&Snapshot| match known {
        Some((known, _)) => {
            let same = known.replication_id == snapshot.position.replication_id;
            !same || snapshot.position.offset > known.offset
        }
        None => true,
    };
    if let Some(snapshot) = contents.snapshots.last().filter(is_newer) {
        known = Some((snapshot.position, StreamState::default()));
    }
    let durable = first_waiting(contents).or(known.map(|(known, _)| known)).or(open_start(contents));
    Begin { known, durable, again }
}

/// The last place between two commands, and the segments behind it: a command may be longer than many of them.
fn last_whole(segments: &[&Closed], begun: Option<Begun>) -> (Option<(Position, StreamState)>, Vec<PathBuf>) {
    let mut again = Vec::new();
    let mut begin: Option<Position> = None;
    for Closed { name, head, path } in segments.iter().rev() {
        let place = |offset| Position::new(name.replication_id, offset);
        if begin.is_some_and(|begin| begin != place(name.span.end)) {
            return (None, Vec::new());
        }
        if head.last.is_none_or(|last| last.offset == name.span.start) {
            again.push(path.clone());
        }
        if let Some(last) = head.last {
            return (Some((place(last.offset), last.state)), again);
        }
        begin = Some(place(name.span.start));
    }
    let known = begun.filter(|_| segments.is_empty());
    (known.map(|begun| (begun.position, StreamState::default())), Vec::new())
}

pub(super) fn first_waiting(contents: &Contents) -> Option<Position> {
    contents.closed.first().map(|it| Position::new(it.name.replication_id, it.name.span.start))
}

fn open_start(contents: &Contents) -> Option<Position> {
    contents.open.as_ref().map(|open| Position::new(open.id, open.span.start))
}

pub(super) fn open_end(contents: &Contents) -> Option<Position> {
    contents.open.as_ref().map(|open| Position::new(open.id, open.span.end))
}

/// What the repositories have behind a place of the spool, if they have more.
pub(super) async fn further(
    archive: &StreamArchive,
    known: Position,
) -> Result<Option<(Position, StreamState)>, FollowError> {
    let survey = archive.survey().await?;
    let reached = behind(archive, &survey, Some(known)).await?;
    Ok(reached.filter(|(reached, _)| reached.offset > known.offset))
}

/// Where the archive ends, if a base leads there. Without one, what is archived does not help anybody who goes on: better
/// begin anew.
pub(super) async fn archived(
    archive: &StreamArchive,
) -> Result<Option<(Position, StreamState)>, FollowError> {
    let survey = archive.survey().await?;
    let catalog = Catalog::load(archive.repositories(), archive.stanza()).await?;
    let lines = survey.lines(&bases(&catalog));
    let Some(line) = lines.last() else { return Ok(None) };
    let end = survey.line(line.replication_id).coverage(&survey.histories).end();
    let Some(window) = line.windows.last().filter(|window| Some(window.to.offset) >= end) else {
        return Ok(None);
    };
    if Some(window.to.offset) > end {
        // A base behind which nothing was written yet.
        return Ok(Some((Position::new(line.replication_id, window.to.offset), StreamState::default())));
    }
    behind(archive, &survey, None).await
}

/// The last place between two commands that the repositories have: of the line of `from`, or of the one that grew last.
async fn behind(
    archive: &StreamArchive,
    survey: &StreamSurvey,
    from: Option<Position>,
) -> Result<Option<(Position, StreamState)>, FollowError> {
    let living = survey.histories.keys().max_by_key(|id| survey.last_growth(**id));
    let Some(id) = living.copied() else { return Ok(None) };
    let line = survey.line(id);
    if from.is_some_and(|from| !line.has(from)) {
        return Ok(None);
    }
    let coverage = line.coverage(&survey.histories);
    let end = match from {
        Some(from) => coverage.reach(from.offset),
        None => coverage.end().unwrap_or_default(),
    };
    let mut end = end;
    // A command may be longer than many segments; then the one in which it began tells.
    while let Some(byte) = end.0.checked_sub(1).map(Offset) {
        let holder = line.position(end).replication_id;
        let Some(object) = survey.segment_at(holder, byte, |_| false) else { break };
        let head = archive.head(object).await?;
        if let Some(last) = head.last {
            return Ok(Some((Position::new(id, last.offset), last.state)));
        }
        end = object.name.span.start;
    }
    Ok(None)
}
