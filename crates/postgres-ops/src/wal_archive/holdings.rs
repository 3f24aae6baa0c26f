//! What one repository has of the log of one cluster, learned from its keys alone. Pure.

use std::collections::{BTreeMap, BTreeSet};

use backstay_backup_core::id::Stanza;
use backstay_backup_core::key::Key;
use backstay_backup_core::repository::layout;

use super::Runs;
use crate::wal::{Segment, SegmentSize, Timeline, WalFile};

/// What a repository lists below the WAL of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) size: Option<SegmentSize>,
    pub(super) segments: BTreeMap<Timeline, Runs>,
    pub(super) partials: BTreeMap<Timeline, Runs>,
    pub(super) histories: BTreeSet<Timeline>,
    /// Objects that are none of these and no backup labels.
    pub(super) foreign: u64,
}

/// What a key below `<stanza>/wal/` names: the cluster and the file. `None` for keys under which nothing is ever fetched.
pub(super) fn parse(below_wal: &str) -> Option<(u64, WalFile)> {
    let (system, rest) = below_wal.split_once('/')?;
    // Canonical, or two spellings would be one cluster.
    let is_number = system == "0" || !system.starts_with(['0', '+']);
    let system = if is_number { system.parse().ok()? } else { return None };
    let (folder, rest) = rest.split_once('/')?;
    if folder == "history" {
        return Some((system, format!("{rest}.history").parse().ok()?));
    }
    let (log, name) = rest.split_once('/')?;
    // The folders repeat the first two parts of the name.
    let is_there = name.get(..8) == Some(folder) && name.get(8..16) == Some(log);
    let file = if is_there { name.parse().ok()? } else { return None };
    // "history" is no timeline, so histories cannot lie here.
    if matches!(file, WalFile::History(_)) { None } else { Some((system, file)) }
}

/// What a key of a repository names of the WAL of a stanza: the system identifier of the cluster, and the file.
#[must_use]
pub fn parse_key(stanza: &Stanza, key: &Key) -> Option<(u64, WalFile)> {
    key.as_str().strip_prefix(layout::all_wal(stanza).as_str()).and_then(parse)
}

impl Holdings {
    /// Notes a file that is listed.
    pub(super) fn note(&mut self, file: WalFile, size: SegmentSize) {
        match file {
            WalFile::Segment(segment) => self.add(segment, size, false),
            WalFile::Partial(segment) => self.add(segment, size, true),
            WalFile::History(timeline) => {
                self.histories.insert(timeline);
            }
            WalFile::Backup(..) => {}
        }
    }

    fn add(&mut self, segment: Segment, size: SegmentSize, partial: bool) {
        if !segment.fits(size) {
            self.foreign += 1;
            return;
        }
        let timeline = segment.timeline();
        let map = if partial { &mut self.partials } else { &mut self.segments };
        map.entry(timeline).or_insert_with(|| Runs::new(timeline, size)).insert(segment.number(size));
    }
}

/// Joins what several repositories have.
pub(super) fn union<'a>(all: impl Iterator<Item = &'a BTreeMap<Timeline, Runs>>) -> BTreeMap<Timeline, Runs> {
    let mut joined: BTreeMap<Timeline, Runs> = BTreeMap::new();
    for (timeline, runs) in all.flatten() {
        joined.entry(*timeline).and_modify(|union| union.extend(runs)).or_insert_with(|| runs.clone());
    }
    joined
}

/// What one repository lacks of what all have together.
pub(super) fn missing(one: &BTreeMap<Timeline, Runs>, all: &BTreeMap<Timeline, Runs>) -> Vec<Runs> {
    let lacking = |(timeline, union): (&Timeline, &Runs)| match one.get(timeline) {
        Some(runs) => runs.missing_of(union),
        None => union.clone(),
    };
    all.iter().map(lacking).filter(|runs| !runs.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_would_be_fetched_count() {
        let parsed = |key: &str| parse(key).map(|(system, file)| (system, file.to_string()));
        let file = "000000020000000A000000FE";
        assert_eq!(parsed(&format!("73/00000002/0000000A/{file}")), Some((73, file.to_owned())));
        assert_eq!(parsed("73/history/00000002"), Some((73, "00000002.history".to_owned())));
        for foreign in [
            file.to_owned(),
            format!("73/{file}"),
            format!("073/00000002/0000000A/{file}"),
            format!("73/00000001/0000000A/{file}"),
            format!("73/00000002/0000000B/{file}"),
            format!("73/00000002/0000000A/{file}.gz"),
            format!("x/00000002/0000000A/{file}"),
            "73/history/2".to_owned(),
            "73/history/00000002.history".to_owned(),
            "73/00000002/0000000A/00000002.history".to_owned(),
        ] {
            assert_eq!(parsed(&foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_million_segments_are_a_few_runs() {
        let size = SegmentSize::DEFAULT;
        let mut holdings = Holdings::default();
        let mut listed = 0;
        // One million segments on four timelines; every 250,000th is missing.
        for timeline in 1..=4u32 {
            for number in 0..250_000u64 {
                let segment = Segment::numbered(Timeline::new(timeline).unwrap(), number, size);
                let key = format!("7301234567890123456/{timeline:08X}/{:08X}/{segment}", segment.log());
                if number != 125_000 {
                    let (_, file) = parse(&key).unwrap();
                    holdings.note(file, size);
                    listed += 1;
                }
            }
        }
        let count: u64 = holdings.segments.values().map(Runs::count).sum();
        assert_eq!(count, listed);
        assert!(holdings.segments.values().all(|runs| runs.ranges().count() == 2));
        let all = union([&holdings.segments, &BTreeMap::new()].into_iter());
        assert_eq!(missing(&holdings.segments, &all), []);
        assert_eq!(missing(&BTreeMap::new(), &all).len(), 4);
    }
}
