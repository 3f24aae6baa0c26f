//! Finds the end of a snapshot in what is read.

use memchr::memmem::Finder;

/// Length of an end mark.
pub(super) const MARK: usize = 40;

/// How the end is told.
#[derive(Debug)]
pub(super) enum RdbEnd {
    /// After that many bytes.
    Length(u64),
    /// By 40 random bytes.
    Mark(Box<Finder<'static>>),
}

/// What is known after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Bytes that belong to the snapshot for certain.
    pub(super) content: usize,
    /// Where the stream begins; `None` as long as the end has not come.
    pub(super) behind: Option<usize>,
}

impl RdbEnd {
    /// Understands `$<length>` and `$EOF:<mark>`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix('$')?;
        match rest.strip_prefix("EOF:") {
            Some(mark) if mark.len() == MARK => Some(Self::Mark(Box::new(Finder::new(mark).into_owned()))),
            Some(_) => None,
            None => Some(Self::Length(rest.parse().ok()?)),
        }
    }

    /// Length of the snapshot, where it is known.
    pub(super) fn expected(&self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(*length),
            Self::Mark(_) => None,
        }
    }

    /// Looks at what was read since the last call, together with what it did not call content then; `passed` bytes of
    /// content were before.
    pub(super) fn find(&self, bytes: &[u8], passed: u64) -> Found {
        match self {
            Self::Length(length) => {
                let left = usize::try_from(length.saturating_sub(passed)).unwrap_or(usize::MAX);
                let content = bytes.len().min(left);
                Found { content, behind: (content == left).then_some(content) }
            }
            Self::Mark(finder) => match finder.find(bytes) {
                Some(at) => Found { content: at, behind: Some(at + MARK) },
                None => Found { content: bytes.len() - begun(bytes, finder.needle()), behind: None },
            },
        }
    }
}

/// How many of the last bytes may be the beginning of the mark.
fn begun(bytes: &[u8], mark: &[u8]) -> usize {
    let longest = bytes.len().min(MARK - 1);
    (1..=longest).rev().find(|&length| bytes.ends_with(&mark[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK_TEXT: &str = "0123456789012345678901234567890123456aab";

    /// Feeds `bytes` in pieces, as a reader does, and says what content and what was behind it came out.
    fn feed(end: &RdbEnd, bytes: &[u8], pieces: &[usize]) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut content, mut held) = (Vec::new(), Vec::new());
        let mut rest = bytes;
        for piece in pieces.iter().copied().chain([usize::MAX]) {
            let (next, after) = rest.split_at(piece.min(rest.len()));
            rest = after;
            held.extend_from_slice(next);
            let found = end.find(&held, content.len() as u64);
            content.extend_from_slice(&held[..found.content]);
            if let Some(behind) = found.behind {
                let mut stream = held[behind..].to_vec();
                stream.extend_from_slice(rest);
                return Some((content, stream));
            }
            held.drain(..found.content);
            assert!(held.len() < MARK, "no more is held than may be a mark");
        }
        None
    }

    proptest! {
        #[test]
        fn a_mark_is_found_across_any_reads(
            content in "[0-9a]{0,90}", behind in "[0-9a]{0,50}", pieces in prop::collection::vec(0_usize..60, 0..9)
        ) {
            let bytes = [content.as_bytes(), MARK_TEXT.as_bytes(), behind.as_bytes()].concat();
            let end = RdbEnd::parse(&format!("$EOF:{MARK_TEXT}")).unwrap();
            let (found, stream) = feed(&end, &bytes, &pieces).unwrap();
            prop_assert_eq!(found, content.as_bytes());
            prop_assert_eq!(stream, behind.as_bytes());
        }

        #[test]
        fn a_length_is_kept(length in 0_usize..50, behind in 0_usize..50, pieces in prop::collection::vec(0_usize..30, 0..9)) {
            let bytes = [vec![1; length], vec![2; behind]].concat();
            let end = RdbEnd::parse(&format!("${length}")).unwrap();
            let (found, stream) = feed(&end, &bytes, &pieces).unwrap();
            prop_assert_eq!((found, stream), (vec![1; length], vec![2; behind]));
        }
    }

    #[test]
    fn what_is_no_begin_of_a_snapshot_is_refused() {
        for line in ["", "$", "$-1", "$x", "$EOF:", "$EOF:short", "+OK"] {
            assert!(RdbEnd::parse(line).is_none(), "{line}");
        }
    }
}
