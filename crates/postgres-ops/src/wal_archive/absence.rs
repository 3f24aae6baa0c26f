//! Whether a file of the log may be called absent. Pure.
//!
//! PostgreSQL takes "absent" as the end of the log: it stops replaying, promotes and reports success. That is right only
//! when nothing comes after: a segment that is missing in the middle, or a history between two others, is a hole, and
//! recovery must stop there loudly (P3).

use crate::wal::{Segment, SegmentSize, Timeline, TimelineHistory, WalFile};

/// What an archive has of what could come after; of each timeline the first segment that does is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Segments of the wanted timeline and of those that descend from it.
    pub(super) segments: Vec<Segment>,
    /// Histories of the wanted timeline and of all later ones.
    pub(super) histories: Vec<TimelineHistory>,
    /// Segment size of the cluster; known as soon as there is a segment.
    pub(super) size: Option<SegmentSize>,
}

/// What comes after a file that is not there, or the file itself where it is listed; `None` proves that it is the end.
pub(super) fn later(file: WalFile, found: &Found) -> Option<WalFile> {
    match file {
        WalFile::Segment(wanted) => {
            let follows = |segment: &&Segment| is_after(**segment, wanted, found);
            found.segments.iter().filter(follows).min().copied().map(WalFile::Segment)
        }
        WalFile::History(wanted) => {
            let later = found.histories.iter().map(TimelineHistory::timeline).filter(|it| *it >= wanted);
            later.min().map(WalFile::History)
        }
        // Nothing follows from these; recovery does without them.
        WalFile::Partial(_) | WalFile::Backup(..) => None,
    }
}

/// Whether a segment continues the log beyond `wanted`: on the same timeline, or on one that left it there or later.
fn is_after(segment: Segment, wanted: Segment, found: &Found) -> bool {
    let size = found.size.unwrap_or(SegmentSize::DEFAULT);
    let history = |timeline| found.histories.iter().find(|history| history.timeline() == timeline);
    if segment.timeline() == wanted.timeline() {
        // A timeline begins in the segment of its branch point: what lies before it, it never had.
        let begins =
            history(wanted.timeline()).and_then(|own| own.branches().last()).map(|branch| branch.end);
        let exists = begins.is_none_or(|at| wanted >= Segment::containing(wanted.timeline(), at, size));
        // The wanted one itself: a store that lists what it does not hand out has proven nothing.
        return segment == wanted || exists && segment > wanted;
    }
    let Some(history) = history(segment.timeline()) else { return false };
    // A descendant that left before the wanted segment says nothing about it.
    let left = history.branches().iter().find(|branch| branch.timeline == wanted.timeline());
    left.is_some_and(|branch| branch.end > wanted.start(size)) && segment.start(size) >= wanted.start(size)
}

/// Whether `timeline` descends from `ancestor`, by its history.
pub(super) fn may_continue(timeline: Timeline, ancestor: Timeline, histories: &[TimelineHistory]) -> bool {
    let history = histories.iter().find(|history| history.timeline() == timeline);
    history.is_some_and(|history| history.branches().iter().any(|branch| branch.timeline == ancestor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(text: &str) -> Segment {
        text.parse().unwrap()
    }

    fn history(timeline: u32, content: &str) -> TimelineHistory {
        TimelineHistory::parse(Timeline::new(timeline).unwrap(), content).unwrap()
    }

    fn after(wanted: &str, segments: &[&str], histories: Vec<TimelineHistory>) -> Option<String> {
        of_size(wanted, segments, histories, 16 << 20)
    }

    fn of_size(
        wanted: &str,
        segments: &[&str],
        histories: Vec<TimelineHistory>,
        size: u64,
    ) -> Option<String> {
        let segments = segments.iter().map(|text| segment(text)).collect();
        let size = Some(SegmentSize::new(size).unwrap());
        later(wanted.parse().unwrap(), &Found { segments, histories, size }).map(|file| file.to_string())
    }

    #[test]
    fn the_last_segment_is_followed_by_nothing() {
        let before = ["000000010000000000000001", "000000010000000000000002"];
        assert_eq!(after("000000010000000000000003", &before, vec![]), None);
    }

    #[test]
    fn what_is_listed_is_not_absent() {
        let wanted = "000000010000000000000003";
        assert_eq!(after(wanted, &[wanted], vec![]), Some(wanted.to_owned()));
        let listed = after("00000002.history", &[], vec![history(2, "1\t0/3000000\tx\n")]);
        assert_eq!(listed, Some("00000002.history".to_owned()));
    }

    #[test]
    fn a_hole_is_followed_by_the_next_segment_there_is() {
        let around = ["000000010000000000000002", "000000010000000100000000", "000000010000000000000005"];
        let next = Some("000000010000000000000005".to_owned());
        assert_eq!(after("000000010000000000000003", &around, vec![]), next);
    }

    #[test]
    fn a_descendant_that_left_here_or_later_is_a_continuation() {
        let child = |end: &str| vec![history(2, &format!("1\t{end}\tx\n"))];
        let segments = ["000000020000000000000003", "000000020000000000000004"];
        let wanted = "000000010000000000000003";
        assert_eq!(after(wanted, &segments, child("0/3000100")), Some(segments[0].to_owned()));
        assert_eq!(after(wanted, &segments, child("0/4000100")), Some(segments[0].to_owned()));
        assert_eq!(after(wanted, &segments, child("0/3000000")), None, "it left just before");
        assert_eq!(after(wanted, &segments, vec![]), None, "nobody says that it descends from here");
    }

    #[test]
    fn a_history_between_others_is_a_hole() {
        let histories = vec![history(2, "1\t0/3000000\tx\n"), history(4, "1\t0/3000000\tx\n")];
        assert_eq!(after("00000003.history", &[], histories.clone()), Some("00000004.history".to_owned()));
        assert_eq!(after("00000005.history", &[], histories.clone()), None);
        let two = Timeline::new(2).unwrap();
        assert!(may_continue(two, Timeline::FIRST, &histories));
        assert!(!may_continue(Timeline::new(4).unwrap(), two, &histories));
    }

    #[test]
    fn a_branch_point_is_found_by_the_real_segment_size() {
        let left = || vec![history(2, "1\t0/3000100\tx\n")];
        // Of 1 MiB, the branch point lies in segment 0x30; of 16 MiB, in segment 3.
        let child = ["000000020000000000000030"];
        assert_eq!(of_size("000000010000000000000030", &child, left(), 1 << 20), Some(child[0].to_owned()));
        assert_eq!(of_size("000000010000000000000031", &["000000020000000000000031"], left(), 1 << 20), None);
        assert_eq!(of_size("000000010000000000000030", &child, left(), 16 << 20), None);
    }

    #[test]
    fn what_a_timeline_never_had_is_absent() {
        let own = || vec![history(2, "1\t0/3000100\tx\n")];
        let after_branch = ["000000020000000000000003"];
        assert_eq!(after("000000020000000000000002", &after_branch, own()), None);
        let hole = after("000000020000000000000003", &["000000020000000000000004"], own());
        assert_eq!(hole, Some("000000020000000000000004".to_owned()));
    }
}
