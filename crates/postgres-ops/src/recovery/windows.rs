//! From where to where recovery is possible. Pure.

use std::collections::{BTreeMap, BTreeSet};

use backstay_backup_core::id::SetId;
use jiff::Timestamp;
use serde::Serialize;

use super::{BaseBackup, LogRange, ReachEnd, TimelinePath};
use crate::wal::{Lsn, Segment, Timeline};
use crate::wal_archive::WalSurvey;

/// Where recovery of one base backup along one timeline can end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The base backup.
    pub set: SetId,
    /// The timeline whose path is followed.
    pub timeline: Timeline,
    /// The first position that can be reached.
    pub from: Lsn,
    /// Its time, by the server's clock.
    pub from_time: Timestamp,
    /// The end of the last segment before the first that is missing.
    pub to: Lsn,
    /// What comes then.
    pub end: ReachEnd,
}

/// A base backup that is worth nothing along a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unusable {
    /// The base backup.
    pub set: SetId,
    /// The timeline whose path is followed.
    pub timeline: Timeline,
    /// The first segment that it needs to become consistent and that is missing.
    pub missing: Segment,
}

/// Windows of several base backups that end at the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The timeline whose path is followed.
    pub timeline: Timeline,
    /// The first position that can be reached, with the oldest of the sets.
    pub from: Lsn,
    /// Its time.
    pub from_time: Timestamp,
    /// The end of the last segment before the first that is missing.
    pub to: Lsn,
    /// What comes then.
    pub end: ReachEnd,
    /// The base backups, oldest first.
    pub sets: Vec<SetId>,
}

/// Everything that can be recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// Windows by timeline and position of their base backups.
    pub windows: Vec<Window>,
    /// Base backups that cannot become consistent on any timeline that they are on the way to.
    pub unusable: Vec<Unusable>,
}

/// Every base backup along every timeline that it is on the way to. Sets of other clusters are passed over.
#[must_use]
pub fn windows(sets: &[BaseBackup], survey: &WalSurvey) -> Windows {
    let mut sets: Vec<_> = sets.iter().filter(|set| set.system == survey.system).collect();
    sets.sort_by_key(|set| (set.stop, set.set.clone()));
    let timelines = survey.timelines.keys().copied().chain(sets.iter().map(|set| set.timeline));
    let timelines: BTreeSet<_> = timelines.collect();
    let mut found = Windows::default();
    for timeline in timelines {
        let Some(history) = survey.history(timeline) else { continue };
        let path = TimelinePath::new(history, survey.size);
        for set in sets.iter().filter(|set| path.leads_on_from(set)) {
            match path.reach(survey, path.number(set.start)) {
                Some(reach) if reach.to >= set.stop => found.windows.push(Window {
                    set: set.set.clone(),
                    timeline,
                    from: set.stop,
                    from_time: set.stop_time,
                    to: reach.to,
                    end: reach.end,
                }),
                _ => found.unusable.push(Unusable {
                    set: set.set.clone(),
                    timeline,
                    missing: path.first_missing(survey, path.number(set.start)),
                }),
            }
        }
    }
    let used = |set: &SetId| found.windows.iter().any(|window| window.set == *set);
    let unusable = std::mem::take(&mut found.unusable);
    found.unusable = unusable.into_iter().filter(|one| !used(&one.set)).collect();
    found.unusable.dedup_by(|a, b| a.set == b.set);
    found
}

impl Windows {
    /// Windows that end at the same place, as one each. What lies wholly on the way to a younger timeline is left out.
    #[must_use]
    pub fn spans(&self, survey: &WalSurvey) -> Vec<Span> {
        let mut spans: BTreeMap<(Timeline, Lsn), Span> = BTreeMap::new();
        for window in &self.windows {
            let new = || Span {
                timeline: window.timeline,
                from: window.from,
                from_time: window.from_time,
                to: window.to,
                end: window.end,
                sets: vec![],
            };
            let span = spans.entry((window.timeline, window.to)).or_insert_with(new);
            span.sets.push(window.set.clone());
        }
        let all: Vec<_> = spans.into_values().collect();
        all.iter().filter(|span| !all.iter().any(|other| covers(other, span, survey))).cloned().collect()
    }
}

/// Whether everything in `one` can also be reached along the younger timeline of `other`.
fn covers(other: &Span, one: &Span, survey: &WalSurvey) -> bool {
    let Some(history) = survey.history(other.timeline) else { return false };
    let left = history.branches().iter().find(|branch| branch.timeline == one.timeline);
    left.is_some_and(|branch| one.to <= branch.end) && other.from <= one.from && other.to >= one.to
}

impl Span {
    /// Its part of the log, for reading its end.
    #[must_use]
    pub const fn range(&self) -> LogRange {
        LogRange { timeline: self.timeline, from: self.from, until: self.to, end: self.to }
    }
}
