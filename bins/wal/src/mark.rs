//! The note that a segment is durable in the quorum.
//!
//! Written after the last repository of the quorum took the segment, never before. It names the file on disk (device,
//! inode, length, time of its last change) and every byte of it (XXH3-128), and ends with a digest of itself. A mark that
//! is torn, of another file, or of a file that was written again fits nothing and is passed over. So it need not be made
//! durable: a crash can take it away, and the segment is pushed once more.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use backstay_postgres_ops::wal::{Segment, SystemId};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// First word of a mark; changes with its form.
const FORM: &str = "backstay-mark-1";
/// Bytes that are read and hashed at a time: small enough for a processor's cache.
const AT_ONCE: usize = 256 << 10;

/// A file as it was when it was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    segment: Segment,
    system: SystemId,
    file: Identity,
    xxh3: u128,
}

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Identity {
    fn of(found: &std::fs::Metadata) -> Self {
        let changed = (found.mtime(), found.mtime_nsec());
        Self { device: found.dev(), inode: found.ino(), length: found.len(), changed }
    }
}

impl Mark {
    /// The mark of a segment that was pushed from a file of which the file system said `found`.
    pub(crate) fn new(segment: Segment, system: SystemId, found: &std::fs::Metadata, xxh3: u128) -> Self {
        Self { segment, system, file: Identity::of(found), xxh3 }
    }

    /// Its name in the spool.
    pub(crate) fn name(segment: Segment) -> String {
        format!("{segment}.mark")
    }

    /// Its content.
    pub(crate) fn encode(&self) -> String {
        let Identity { device, inode, length, changed: (seconds, nanoseconds) } = self.file;
        checked_line(format!(
            "{FORM} {} {} {device} {inode} {length} {seconds} {nanoseconds} {:032x}",
            self.segment, self.system, self.xxh3
        ))
    }

    /// Reads a mark; `None` for anything that is none.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut words = whole_line(text)?.split(' ');
        if words.next()? != FORM {
            return None;
        }
        let segment = words.next()?.parse().ok()?;
        let system = SystemId::new(words.next()?.parse().ok()?);
        let mut number = || words.next()?.parse::<i64>().ok();
        let mut unsigned = || u64::try_from(number()?).ok();
        let (device, inode, length) = (unsigned()?, unsigned()?, unsigned()?);
        let changed = (number()?, number()?);
        let xxh3 = u128::from_str_radix(words.next()?, 16).ok()?;
        let file = Identity { device, inode, length, changed };
        words.next().is_none().then_some(Self { segment, system, file, xxh3 })
    }

    /// Whether this open file is the one that was pushed, byte for byte. Reads all of it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn fits(&self, segment: Segment, system: SystemId, file: &mut File) -> io::Result<bool> {
        let same =
            self.segment == segment && self.system == system && self.file == Identity::of(&file.metadata()?);
        Ok(same && hash(file)? == self.xxh3)
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

/// XXH3-128 of what a reader gives.
pub(crate) fn hash(mut input: impl Read) -> io::Result<u128> {
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; AT_ONCE];
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(hasher.digest128()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const SYSTEM: SystemId = SystemId::new(7_301_234_567_890_123_456);

    fn segment() -> Segment {
        "000000010000000000000003".parse().unwrap()
    }

    fn mark_of(path: &Path) -> Mark {
        let mut file = File::open(path).unwrap();
        let found = file.metadata().unwrap();
        Mark::new(segment(), SYSTEM, &found, hash(&mut file).unwrap())
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

    #[test]
    fn a_file_that_was_written_again_needs_a_push_even_if_it_hides_that() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        fs::write(&path, [7; 10_000]).unwrap();
        let mark = mark_of(&path);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, &[8], 5000).unwrap();
        file.set_modified(before).unwrap();
        assert!(!fits(&mark, &path), "same name, inode, length and time");
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
