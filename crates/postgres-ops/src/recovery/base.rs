use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::id::SetId;
use backstay_backup_core::manifest::SetKind;
use jiff::Timestamp;

use crate::physical::{ClusterFacts, WalRange};
use crate::wal::{Lsn, Segment, SegmentSize, SystemId, Timeline};
use crate::wal_archive::{Run, Runs, WalSurvey};

/// What planning needs to know of a physical set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseBackup {
    /// The set.
    pub set: SetId,
    /// The cluster.
    pub system: SystemId,
    /// Timeline at `stop`.
    pub timeline: Timeline,
    /// Where recovery begins to read.
    pub start: Lsn,
    /// Where it is consistent: nothing before can be reached with this set.
    pub stop: Lsn,
    /// When the backup ended, by the server's clock.
    pub stop_time: Timestamp,
    /// WAL without which it is worthless, in order.
    pub wal: Vec<WalRange>,
}

impl BaseBackup {
    /// Of a set with these facts.
    #[must_use]
    pub fn new(set: SetId, facts: &ClusterFacts) -> Self {
        Self {
            set,
            system: facts.system,
            timeline: facts.timeline,
            start: facts.start_lsn,
            stop: facts.stop_lsn,
            stop_time: facts.stop_time,
            wal: facts.wal.clone(),
        }
    }

    /// The segments without which it is worthless, as runs by timeline.
    #[must_use]
    pub fn needed(&self, size: SegmentSize) -> Vec<Run> {
        let mut runs = Vec::new();
        for (at, range) in self.wal.iter().enumerate() {
            let first = range.start.bytes() / size.bytes();
            let last = range.end.bytes().saturating_sub(1) / size.bytes();
            // A segment in which the timeline changed is read from the younger one.
            let next = self.wal.get(at + 1).map_or(u64::MAX, |next| next.start.bytes() / size.bytes());
            if let Some(last) = last.checked_sub(u64::from(last >= next)).filter(|last| *last >= first) {
                let named = |number| Segment::numbered(range.timeline, number, size);
                runs.push(Run { first: named(first), last: named(last), count: last - first + 1 });
            }
        }
        runs
    }

    /// What is not archived of the segments without which it is worthless.
    #[must_use]
    pub fn missing(&self, survey: &WalSurvey) -> Vec<Run> {
        let mut missing = Vec::new();
        for run in self.needed(survey.size) {
            let timeline = run.first.timeline();
            let mut needed = Runs::new(timeline, survey.size);
            needed.add((run.first.number(survey.size), run.last.number(survey.size)));
            let there = survey.timelines.get(&timeline).map(|wal| &wal.segments);
            let lacking = there.map_or(needed.clone(), |there| there.missing_of(&needed));
            missing.extend(lacking.iter());
        }
        missing
    }
}

/// The physical sets of a catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhysicalSets {
    /// Those that a restore may begin with.
    pub good: Vec<BaseBackup>,
    /// Those that something is wrong with.
    pub doubtful: Vec<BaseBackup>,
    /// Sets of which nobody can tell what they need, and why: any of them may be physical.
    pub unknown: Vec<(SetId, String)>,
}

impl PhysicalSets {
    /// Reads the facts of all physical sets.
    #[must_use]
    pub fn of(catalog: &Catalog) -> Self {
        let mut sets = Self::default();
        for set in &catalog.sets {
            let Some(manifest) = &set.manifest else {
                sets.unknown.push((set.id.clone(), "its manifest cannot be read".to_owned()));
                continue;
            };
            if manifest.kind != SetKind::new(SetKind::POSTGRES_PHYSICAL) {
                continue;
            }
            match serde_json::from_value(manifest.facts.clone()) {
                Ok(facts) => {
                    let list = if set.is_good() { &mut sets.good } else { &mut sets.doubtful };
                    list.push(BaseBackup::new(set.id.clone(), &facts));
                }
                Err(error) => {
                    sets.unknown.push((set.id.clone(), format!("its facts cannot be read: {error}")));
                }
            }
        }
        sets
    }

    /// All whose facts are known.
    pub fn known(&self) -> impl Iterator<Item = &BaseBackup> {
        self.good.iter().chain(&self.doubtful)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn base(ranges: &[(u32, u64, u64)]) -> BaseBackup {
        let wal = ranges.iter().map(|(timeline, start, end)| WalRange {
            timeline: Timeline::new(*timeline).unwrap(),
            start: Lsn::new(*start),
            end: Lsn::new(*end),
        });
        BaseBackup {
            set: SetId::parse("20240101T000000Z-0000000001").unwrap(),
            system: SystemId::new(7),
            timeline: Timeline::FIRST,
            start: Lsn::new(ranges[0].1),
            stop: Lsn::new(ranges[ranges.len() - 1].2),
            stop_time: Timestamp::UNIX_EPOCH,
            wal: wal.collect(),
        }
    }

    fn needed(ranges: &[(u32, u64, u64)]) -> Vec<(String, u64)> {
        let runs = base(ranges).needed(SegmentSize::new(MIB).unwrap());
        runs.iter().map(|run| (run.first.to_string(), run.count)).collect()
    }

    #[test]
    fn every_segment_is_needed_once_from_the_youngest_timeline() {
        let first = "000000010000000000000003".to_owned();
        assert_eq!(needed(&[(1, 3 * MIB + 40, 5 * MIB)]), [(first.clone(), 2)]);
        assert_eq!(needed(&[(1, 3 * MIB + 40, 5 * MIB + 1)]), [(first.clone(), 3)]);
        let child = "000000020000000000000004".to_owned();
        let changed = [(1, 3 * MIB + 40, 4 * MIB + 8), (2, 4 * MIB + 8, 6 * MIB)];
        assert_eq!(needed(&changed), [(first, 1), (child, 2)]);
    }

    #[test]
    fn what_is_not_archived_is_missing() {
        let mut survey = WalSurvey::empty(SystemId::new(7), SegmentSize::new(MIB).unwrap());
        let base = base(&[(1, 3 * MIB, 7 * MIB)]);
        let missing = |survey: &WalSurvey| -> u64 { base.missing(survey).iter().map(|run| run.count).sum() };
        assert_eq!(missing(&survey), 4);
        for number in [2, 3, 5] {
            survey.timeline_mut(Timeline::FIRST).segments.insert(number);
        }
        assert_eq!(missing(&survey), 2);
    }
}
