//! Which file this is, and whether anybody touched it since.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::str::Split;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longer than any tick of a kernel's clock: what changed before this is told apart from what changes now.
const TICK: Duration = Duration::from_millis(100);
/// The same for file systems that keep whole seconds, of which the coarsest count by two.
const COARSE_TICK: Duration = Duration::from_secs(3);

/// What the file system says of a file: where it is, how long, and two times: that of the last change of content, and
/// that of the last change of anything (`ctime`), which a write, a rename, and whoever sets the first one back all move
/// to the present, and which nobody can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    content_changed: (i64, i64),
    anything_changed: (i64, i64),
}

impl Identity {
    pub(crate) fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            content_changed: (found.mtime(), found.mtime_nsec()),
            anything_changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Seven words.
    pub(crate) fn encode(&self) -> String {
        let Self { device, inode, length, content_changed: (m, m_nano), anything_changed: (c, c_nano) } =
            self;
        format!("{device} {inode} {length} {m} {m_nano} {c} {c_nano}")
    }

    /// Takes seven words; `None` if they are something else.
    pub(crate) fn decode(words: &mut Split<'_, char>) -> Option<Self> {
        let mut unsigned = || words.next()?.parse::<u64>().ok();
        let (device, inode, length) = (unsigned()?, unsigned()?, unsigned()?);
        let mut number = || words.next()?.parse::<i64>().ok();
        let (content_changed, anything_changed) = ((number()?, number()?), (number()?, number()?));
        Some(Self { device, inode, length, content_changed, anything_changed })
    }

    /// Whether every change from `now` on shows in the times: the last one is so long ago that the clock of the file
    /// system has moved on.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let tick = if self.anything_changed.1 == 0 { COARSE_TICK } else { TICK };
        let last = self.content_changed.max(self.anything_changed);
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(last.0), u32::try_from(last.1)) else {
            return false;
        };
        let last = UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds));
        // A change in the future was made under another clock.
        last.is_some_and(|last| now.duration_since(last).is_ok_and(|age| age >= tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(anything_changed: (i64, i64)) -> Identity {
        let content_changed = (1_700_000_000, 5);
        Identity { device: 1, inode: 2, length: 3, content_changed, anything_changed }
    }

    fn at(seconds: u64, nanoseconds: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanoseconds)
    }

    #[test]
    fn a_file_is_settled_when_the_clock_has_moved_on() {
        let file = changed((1_700_000_001, 7));
        assert!(!file.is_settled(at(1_700_000_001, 7)) && !file.is_settled(at(1_700_000_001, 100_000_006)));
        assert!(file.is_settled(at(1_700_000_001, 100_000_007)));
        assert!(!file.is_settled(at(1_600_000_000, 0)), "a clock that was set back");
        let coarse = changed((1_700_000_001, 0));
        assert!(!coarse.is_settled(at(1_700_000_003, 0)) && coarse.is_settled(at(1_700_000_004, 0)));
    }

    #[test]
    fn words_are_a_file_or_nothing() {
        let file = changed((1_700_000_001, 7));
        let text = file.encode();
        assert_eq!(Identity::decode(&mut text.split(' ')), Some(file));
        for text in ["", "1 2 3", "1 2 -3 4 5 6 7", "a b c d e f g"] {
            assert_eq!(Identity::decode(&mut text.split(' ')), None, "{text}");
        }
    }
}
