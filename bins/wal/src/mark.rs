//! The note that a segment is durable in the quorum.
//!
//! Written after the last repository of the quorum took the segment, never before. It names the file on disk by what the
//! file system says of it ([`Identity`]), its every byte (the digest of its seal), and ends with a digest of itself. A mark that
//! is torn, of another file, or of a file that was written again fits nothing and is passed over. So it need not be made
//! durable: a crash can take it away, and the segment is pushed once more.
//!
//! A file that was finished a while before it was read shows every later change in its times, and is not read again. One
//! that was finished a moment before is: a change within the same tick of the clock would not show.

use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::io;
use std::time::SystemTime;

use backstay_backup_core::manifest::Sha256Hex;
use backstay_backup_core::sealed::Seal;
use backstay_postgres_ops::wal::{Segment, SystemId};
use xxhash_rust::xxh3::xxh3_128;

use crate::identity::Identity;

/// First word of a mark; changes with its form.
const FORM: &str = "backstay-mark-3";

/// A file as it was when it was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    segment: Segment,
    system: SystemId,
    file: Identity,
    /// Whether the times alone tell that the file is still the same.
    settled: bool,
    digest: Sha256Hex,
}

impl Mark {
    /// The mark of a segment that was pushed from a file that was opened not before `now`, and of which the file system
    /// then said `found`.
    pub(crate) fn new(
        segment: Segment,
        system: SystemId,
        found: &Metadata,
        now: SystemTime,
        digest: Sha256Hex,
    ) -> Self {
        let file = Identity::of(found);
        Self { segment, system, file, settled: file.is_settled(now), digest }
    }

    /// Its name in the spool.
    pub(crate) fn name(segment: Segment) -> String {
        format!("{segment}.mark")
    }

    /// Its content.
    pub(crate) fn encode(&self) -> String {
        let Self { segment, system, file, settled, digest } = self;
        let settled = u8::from(*settled);
        checked_line(format!("{FORM} {segment} {system} {} {settled} {digest}", file.encode()))
    }

    /// Reads a mark; `None` for anything that is none.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut words = whole_line(text)?.split(' ');
        if words.next()? != FORM {
            return None;
        }
        let segment = words.next()?.parse().ok()?;
        let system = SystemId::new(words.next()?.parse().ok()?);
        let file = Identity::decode(&mut words)?;
        let settled = match words.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let digest = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Self { segment, system, file, settled, digest })
    }

    /// Whether this open file is the one that was pushed, byte for byte. Reads all of it if its times do not tell.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn fits(&self, segment: Segment, system: SystemId, file: &mut File) -> io::Result<bool> {
        let same =
            self.segment == segment && self.system == system && self.file == Identity::of(&file.metadata()?);
        Ok(same && (self.settled || Seal::of_reader(file)?.digest == self.digest))
    }
}

/// A line that ends with a digest of itself.
pub(crate) fn checked_line(mut text: String) -> String {
    let check = xxh3_128(text.as_bytes());
    let _ = writeln!(text, " {check:032x}");
    text
}

/// The line without its digest; `None` of one that is torn or was changed.
pub(crate) fn whole_line(text: &str) -> Option<&str> {
    let (body, check) = text.strip_suffix('\n')?.rsplit_once(' ')?;
    (check == format!("{:032x}", xxh3_128(body.as_bytes()))).then_some(body)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::path::Path;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SYSTEM: SystemId = SystemId::new(7_301_234_567_890_123_456);

    fn segment() -> Segment {
        "000000010000000000000003".parse().unwrap()
    }

    fn mark_of(path: &Path) -> Mark {
        mark_after(path, Duration::ZERO)
    }

    fn mark_after(path: &Path, age: Duration) -> Mark {
        let mut file = File::open(path).unwrap();
        let found = file.metadata().unwrap();
        Mark::new(
            segment(),
            SYSTEM,
            &found,
            found.modified().unwrap() + age,
            Seal::of_reader(&mut file).unwrap().digest,
        )
    }

    fn fits(mark: &Mark, path: &Path) -> bool {
        mark.fits(segment(), SYSTEM, &mut File::open(path).unwrap()).unwrap()
    }

    #[test]
    fn a_mark_fits_its_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        fs::write(&path, [7; 10_000]).unwrap();
        let mark = mark_of(&path);
        assert_eq!(Mark::decode(&mark.encode()), Some(mark));
        assert!(fits(&mark, &path));
        let other = "000000010000000000000004".parse().unwrap();
        assert!(!mark.fits(other, SYSTEM, &mut File::open(&path).unwrap()).unwrap());
        assert!(!mark.fits(segment(), SystemId::new(1), &mut File::open(&path).unwrap()).unwrap());
        let copy = folder.path().join("copy");
        fs::copy(&path, &copy).unwrap();
        assert!(!fits(&mark, &copy), "another inode");
    }

    /// Writes, and sets the time of the content back.
    fn write_secretly(path: &Path) {
        let before = fs::metadata(path).unwrap().modified().unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.write_at(&[8], 5000).unwrap();
        file.set_modified(before).unwrap();
        assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn a_file_that_was_written_again_needs_a_push_even_if_it_hides_that() {
        for age in [Duration::ZERO, Duration::from_secs(9)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("segment");
            fs::write(&path, [7; 10_000]).unwrap();
            let mark = mark_after(&path, age);
            let ctime = || fs::metadata(&path).map(|found| (found.ctime(), found.ctime_nsec())).unwrap();
            let before = ctime();
            // Of a file that is said to be settled the clock must have moved on, as it has in 9 seconds.
            while ctime() == before {
                write_secretly(&path);
            }
            assert!(!fits(&mark, &path), "same name, inode, length and time, {age:?}");
        }
    }

    #[test]
    fn a_file_that_was_just_finished_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        fs::write(&path, [7; 10_000]).unwrap();
        // What was pushed had another content under the very same times.
        let found = fs::metadata(&path).unwrap();
        let modified = found.modified().unwrap();
        let mark = |age| Mark::new(segment(), SYSTEM, &found, modified + age, Seal::of(&[6; 10_000]).digest);
        assert!(!fits(&mark(Duration::ZERO), &path));
        assert!(fits(&mark(Duration::from_secs(9)), &path), "its times tell that it is the same");
    }

    #[test]
    fn a_torn_mark_is_no_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        fs::write(&path, [7; 10_000]).unwrap();
        let text = mark_of(&path).encode();
        for length in 0..text.len() {
            assert_eq!(Mark::decode(&text[..length]), None, "{length}");
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(Mark::decode(&String::from_utf8(bytes).unwrap()), None, "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_mark_or_none(text: String) {
            let _ = Mark::decode(&text);
        }
    }
}
