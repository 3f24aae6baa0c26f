//! The mark on a segment that was fetched ahead: this very file was proven, and nobody has touched it since.
//!
//! The helper writes it last: after length, digest and header were found right, and after the file got its
//! name. Nothing of this is durable: the mark also names the start of the system ([`Boot`]) under which all of it happened. It names the file on disk ([`Identity`]), times included. So a call need not read 16 MiB again; what the mark
//! does not fit is fetched anew.
//!
//! | what happens | what follows |
//! |---|---|
//! | killed before the mark is written | a file without a mark, or with one of another file: no segment |
//! | the power fails, the system starts anew | the mark is of another start, and fits nothing |
//! | somebody writes to the file, exchanges it, copies it | another inode, length or time |
//!
//! Not noticed: a change within the tick of the kernel's clock in which the mark was made (some milliseconds), by
//! somebody with the rights of the server, who could as well write to `pg_wal`.

use std::fs::{File, Metadata};
use std::io;

use backstay_postgres_ops::wal::{Segment, SystemId};

use super::boot::Boot;
use crate::identity::Identity;
use crate::mark::{checked_line, whole_line};

/// First word of a mark; changes with its form.
const FORM: &str = "backstay-kept-2";
/// What the name of a mark ends with.
const SUFFIX: &str = ".kept";

/// A file as it was when it was known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    segment: Segment,
    system: SystemId,
    boot: Boot,
    file: Identity,
}

impl Kept {
    /// The mark of a file that was proven under this start of the system, and of which the file system says `found`.
    pub(super) fn new(segment: Segment, system: SystemId, boot: Boot, found: &Metadata) -> Self {
        Self { segment, system, boot, file: Identity::of(found) }
    }

    /// Its name in the spool.
    pub(super) fn name(segment: Segment) -> String {
        format!("{segment}{SUFFIX}")
    }

    /// The segment whose mark has this name.
    pub(super) fn parse_name(name: &str) -> Option<Segment> {
        name.strip_suffix(SUFFIX)?.parse().ok()
    }

    /// Its content.
    pub(super) fn encode(&self) -> String {
        let Self { segment, system, boot, file } = self;
        checked_line(format!("{FORM} {segment} {system} {boot} {}", file.encode()))
    }

    /// Reads a mark; `None` for anything that is none.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let mut words = whole_line(text)?.split(' ');
        if words.next()? != FORM {
            return None;
        }
        let segment = words.next()?.parse().ok()?;
        let system = SystemId::new(words.next()?.parse().ok()?);
        let boot = words.next()?.parse().ok()?;
        let file = Identity::decode(&mut words)?;
        words.next().is_none().then_some(Self { segment, system, boot, file })
    }

    /// Whether this open file is the one that was marked, under this start of the system, and unchanged.
    ///
    /// # Errors
    /// The file system does not say.
    pub(super) fn fits(
        &self,
        segment: Segment,
        system: SystemId,
        boot: Boot,
        file: &File,
    ) -> io::Result<bool> {
        Ok(*self == Self::new(segment, system, boot, &file.metadata()?))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;

    const SYSTEM: SystemId = SystemId::new(7_301_234_567_890_123_456);
    const BOOT: Boot = Boot::new(5);

    fn segment() -> Segment {
        "000000010000000000000003".parse().unwrap()
    }

    fn marked() -> (tempfile::TempDir, PathBuf, Kept) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        fs::write(&path, [7; 10_000]).unwrap();
        let kept = Kept::new(segment(), SYSTEM, BOOT, &fs::metadata(&path).unwrap());
        (folder, path, kept)
    }

    fn fits(kept: &Kept, path: &Path) -> bool {
        kept.fits(segment(), SYSTEM, BOOT, &File::open(path).unwrap()).unwrap()
    }

    /// Does it until the clock of the file system has moved.
    fn in_a_later_tick(path: &Path, change: impl Fn(&File)) {
        let ctime = || fs::metadata(path).map(|found| (found.ctime(), found.ctime_nsec())).unwrap();
        let before = ctime();
        while ctime() == before {
            change(&File::options().write(true).open(path).unwrap());
        }
    }

    #[test]
    fn a_mark_fits_its_file_and_no_other() {
        let (folder, path, kept) = marked();
        assert_eq!(Kept::decode(&kept.encode()), Some(kept));
        assert_eq!(Kept::parse_name(&Kept::name(segment())), Some(segment()));
        assert!(fits(&kept, &path));
        let file = File::open(&path).unwrap();
        let other = "000000010000000000000004".parse().unwrap();
        assert!(!kept.fits(other, SYSTEM, BOOT, &file).unwrap());
        assert!(!kept.fits(segment(), SystemId::new(1), BOOT, &file).unwrap());
        assert!(!kept.fits(segment(), SYSTEM, Boot::new(6), &file).unwrap(), "the power failed meanwhile");
        let copy = folder.path().join("copy");
        assert!(std::process::Command::new("cp").arg("-p").args([&path, &copy]).status().unwrap().success());
        fs::rename(&copy, &path).unwrap();
        assert!(!fits(&kept, &path), "the same content, length and time under the same name");
    }

    #[test]
    fn a_change_that_hides_itself_is_noticed() {
        let (_folder, path, kept) = marked();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        in_a_later_tick(&path, |file| {
            file.write_at(&[8], 5000).unwrap();
            file.set_modified(before).unwrap();
        });
        let now = fs::metadata(&path).unwrap();
        assert_eq!((now.len(), now.modified().unwrap()), (10_000, before));
        assert!(!fits(&kept, &path), "same name, inode, length and time of the content");
    }

    #[test]
    fn a_torn_mark_is_no_mark() {
        let (_folder, _path, kept) = marked();
        let text = kept.encode();
        for length in 0..text.len() {
            assert_eq!(Kept::decode(&text[..length]), None, "{length}");
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(Kept::decode(&String::from_utf8(bytes).unwrap()), None, "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_mark_or_none(text: String) {
            let _ = Kept::decode(&text);
        }
    }
}
