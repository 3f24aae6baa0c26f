//! What the streams of a stanza are good for: windows with times, gaps, and what would be lost now.

use backstay_backup_core::error::describe;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::replicas::Repositories;
use jiff::Timestamp;
use serde::Serialize;

use super::line::{Base, Gap, LineFacts, Window};
use super::name::{Position, StreamId};
use super::survey::{RepositoryStream, StreamSurvey, survey_streams};
use super::{ArchiveError, StreamArchive};
use crate::{Offset, ReplicationId};

/// What one stream is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct StreamStatus {
    /// The stream.
    pub stream: StreamId,
    /// From where to where recovery is possible, oldest first; the last one is that of the history that grew last.
    pub windows: Vec<WindowStatus>,
    /// What is missing.
    pub gaps: Vec<Gap>,
    /// Bytes that there are and that no base leads to.
    pub unreachable_bytes: u64,
    /// The last moment that can be recovered, by the server's clock.
    pub last_recoverable: Option<Timestamp>,
    /// Its age in seconds. A server to which nobody writes grows older without anything being lost.
    pub rpo_seconds: Option<i64>,
    /// Why that is not known, when it is not.
    pub rpo_unknown: Option<String>,
    /// Each repository.
    pub repositories: Vec<RepositoryStream>,
    /// What else is wrong.
    pub problems: Vec<String>,
}

/// From where to where recovery is possible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct WindowStatus {
    /// The history it ends in.
    pub replication_id: ReplicationId,
    /// Its first base.
    pub from: Position,
    /// When that was taken, by the server's clock.
    pub from_time: Timestamp,
    /// The last place that can be reached.
    pub to: Position,
    /// When that had been received, by the server's clock as far as it is known.
    pub to_time: Option<Timestamp>,
    /// How many bases lie in it.
    pub bases: usize,
    /// Why its end cannot be told, when that is so.
    pub problem: Option<String>,
}

/// What the streams of a stanza are good for. `bases` are the snapshots of the stanza. Reads no content, so it needs no key.
///
/// # Errors
/// The first failure, when no repository can be listed.
pub async fn stream_statuses(
    repositories: &Repositories,
    stanza: &Stanza,
    bases: &[Base],
    now: Timestamp,
) -> Result<Vec<StreamStatus>, ArchiveError> {
    let mut statuses = Vec::new();
    for survey in survey_streams(repositories, stanza).await? {
        let archive = StreamArchive::new(repositories.clone(), stanza.clone(), survey.stream.clone());
        statuses.push(archive.status(&survey, bases, now).await);
    }
    Ok(statuses)
}

impl StreamArchive {
    /// What this stream is good for.
    pub async fn status(&self, survey: &StreamSurvey, bases: &[Base], now: Timestamp) -> StreamStatus {
        let lines = survey.lines(bases);
        let mut status = StreamStatus {
            stream: survey.stream.clone(),
            windows: Vec::new(),
            gaps: Vec::new(),
            unreachable_bytes: 0,
            last_recoverable: None,
            rpo_seconds: None,
            rpo_unknown: None,
            repositories: survey.repositories.clone(),
            problems: problems(survey),
        };
        for line in &lines {
            for window in &line.windows {
                status.windows.push(self.window(survey, line, window).await);
            }
            status.gaps.extend(
                line.gaps.iter().filter(|gap| !status.gaps.contains(gap)).cloned().collect::<Vec<_>>(),
            );
            status.unreachable_bytes += line.unreachable.iter().map(|span| span.len()).sum::<u64>();
        }
        status.gaps.extend(breaks(survey));
        status.tell_rpo(survey, &lines, now);
        status
    }

    async fn window(&self, survey: &StreamSurvey, line: &LineFacts, window: &Window) -> WindowStatus {
        let first = window.bases.iter().min_by_key(|base| base.position.offset);
        let taken = window.bases.iter().map(|base| base.taken).max();
        let mut status = WindowStatus {
            replication_id: line.replication_id,
            from: window.from,
            from_time: first.map_or(Timestamp::UNIX_EPOCH, |base| base.taken),
            to: window.to,
            to_time: taken,
            bases: window.bases.len(),
            problem: None,
        };
        let last = Offset(window.to.offset.0.saturating_sub(1));
        let id = window.to.replication_id;
        let object = survey.segment_at(id, last, |name| name.span.start > last);
        if let Some(object) = object.filter(|_| window.to.offset > window.from.offset) {
            match self.head(object).await {
                Ok(head) => status.to_time = Some(head.by_server(head.last_received)).max(taken),
                Err(error) => {
                    status.to_time = None;
                    status.problem = Some(describe(&error));
                }
            }
        }
        status
    }
}

/// What is wrong with the survey itself.
fn problems(survey: &StreamSurvey) -> Vec<String> {
    let records = survey.histories.iter().filter_map(|(id, facts)| {
        let problem = facts.problem.as_ref()?;
        Some(format!("where history {id} comes from cannot be read: {problem}"))
    });
    records.collect()
}

/// Where a history began that does not go on from the one before.
fn breaks(survey: &StreamSurvey) -> Vec<Gap> {
    let of = |(id, facts): (&ReplicationId, &super::HistoryFacts)| {
        let from = facts.record.as_ref()?.broke_off?;
        let start = facts.coverage.runs().first().map_or(Offset(0), |run| run.start);
        (from.replication_id != *id).then(|| Gap { from, to: Position::new(*id, start), healed: true })
    };
    survey.histories.iter().filter_map(of).collect()
}

impl StreamStatus {
    fn tell_rpo(&mut self, survey: &StreamSurvey, lines: &[LineFacts], now: Timestamp) {
        // The line that grew last is the one that lives.
        let Some(line) = lines.last() else {
            self.rpo_unknown = Some("nothing is archived".to_owned());
            return;
        };
        let end = survey.line(line.replication_id).coverage(&survey.histories).end();
        let Some(window) = self.windows.iter().rfind(|it| it.replication_id == line.replication_id) else {
            self.rpo_unknown = Some("no good base leads to what is archived".to_owned());
            return;
        };
        match window.to_time {
            None => self.rpo_unknown = window.problem.clone().or(Some("no time is known".to_owned())),
            Some(at) => {
                self.last_recoverable = Some(at);
                self.rpo_seconds = Some(now.duration_since(at).as_secs());
                if end.is_some_and(|end| end > window.to.offset) {
                    let problem =
                        format!("the archive goes on behind {}, and no base leads there", window.to);
                    self.problems.push(problem);
                }
            }
        }
    }
}
