//! Where the stream goes on: what the spool says, or else the repositories.

use backstay_backup_core::catalog::Catalog;

use super::FollowError;
use super::decide::go_on;
use super::spool::{Closed, Contents, Snapshot};
use crate::Offset;
use crate::archive::{Boundary, Position, StreamArchive, StreamSurvey, bases};
use crate::resp::StreamState;

/// Where to begin.
pub(super) struct Begin {
    pub(super) known: Option<(Position, StreamState)>,
    pub(super) durable: Option<Position>,
}

/// What the spool says about where the stream goes on.
pub(super) fn begin_from(contents: &Contents) -> Begin {
    // What came before the stream began anew is of another time.
    let is_of_now = |it: &&Closed| contents.begun.is_none_or(|begun| it.head.first_received >= begun.at);
    let last = contents.closed.last().filter(is_of_now).or(contents.stored.last().filter(is_of_now));
    let boundary =
        last.and_then(|last| Some((last.name.replication_id, go_on(last.name.span, last.head.last)?)));
    let mut known = boundary.map(|(id, boundary)| (Position::new(id, boundary.offset), boundary.state));
    if last.is_none() {
        known = contents.begun.map(|begun| (begun.position, StreamState::default()));
    }
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
    Begin { known, durable }
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
    let position = line.position(end);
    let Some(last) = end.0.checked_sub(1).map(Offset) else { return Ok(None) };
    let Some(object) = survey.segment_at(position.replication_id, last, |_| false) else { return Ok(None) };
    let head = archive.head(object).await?;
    let boundary: Option<Boundary> = go_on(object.name.span, head.last);
    Ok(boundary.map(|it| (Position::new(id, it.offset), it.state)))
}
