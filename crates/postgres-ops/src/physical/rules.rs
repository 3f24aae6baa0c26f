//! What of a data directory belongs to a base backup. Pure: names in, decisions out.
//!
//! The rules are those of the server's own base backup (`backend/backup/basebackup.c`), without which a restored
//! cluster would carry another server's locks, sockets and half-written files. Two differences: the files that make a
//! server a standby are left out, because what a restored server becomes is decided by the restore; and WAL is never
//! taken, because the archive has it.

/// Where in a cluster a directory is, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The data directory itself.
    Root,
    /// `base`, and the version's directory of a tablespace: one directory for each database.
    Databases,
    /// Where relations lie: a directory of a database, and `global`.
    Relations,
    /// `pg_tblspc`.
    Tablespaces,
    /// A tablespace, which may be shared with clusters of other versions.
    Tablespace,
    /// `pg_wal`, whose directories are kept and whose files are not.
    Wal,
    /// A directory that is kept, without what is in it.
    Emptied,
    /// Anything else.
    Other,
}

impl Place {
    /// The place of a directory in a directory of this place.
    #[must_use]
    pub fn inside(self, name: &[u8]) -> Self {
        match (self, name) {
            (Self::Root, b"base") | (Self::Tablespace, _) => Self::Databases,
            (Self::Root, b"global") | (Self::Databases, _) => Self::Relations,
            (Self::Root, b"pg_tblspc") => Self::Tablespaces,
            (Self::Root, b"pg_wal") | (Self::Wal, _) => Self::Wal,
            (Self::Root, name) if EMPTIED.contains(&name) => Self::Emptied,
            (Self::Tablespaces, _) => Self::Tablespace,
            _ => Self::Other,
        }
    }
}

/// Directories of the data directory that are kept empty: what is in them means something to a running server only.
const EMPTIED: [&[u8]; 7] = [
    b"pg_stat_tmp",
    b"pg_replslot",
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_subtrans",
];

/// Files that are left out wherever they lie.
const LEFT: [&[u8]; 11] = [
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"backup_label",
    b"tablespace_map",
    b"backup_manifest",
    b"postmaster.pid",
    b"postmaster.opts",
    b".DS_Store",
    b"recovery.signal",
    b"standby.signal",
    b"pg_internal.init",
];

/// Whether an entry of a directory belongs to the backup, by its name and the place of that directory.
///
/// `pg_control` does not, because it is read last, and by itself.
#[must_use]
pub fn belongs(place: Place, name: &[u8], is_directory: bool) -> bool {
    if place == Place::Emptied || name.starts_with(b"pgsql_tmp") {
        return false;
    }
    if is_directory {
        return true;
    }
    // Files that are being written carry the process id behind the name.
    let is_cache = name.starts_with(b"pg_internal.init.");
    let is_temporary = place == Place::Relations && is_temporary_relation(name);
    let is_control = place == Place::Relations && name == b"pg_control";
    let is_left = LEFT.contains(&name) || place == Place::Wal;
    !(is_left || is_cache || is_temporary || is_control)
}

/// A file of a relation by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationFile {
    /// Number of the relation's files.
    pub number: u32,
    /// Which of its forks.
    pub fork: Fork,
    /// Which of the fork's files, from 0 on.
    pub segment: u32,
}

/// Part of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The rows.
    Main,
    /// Free space.
    FreeSpace,
    /// Visibility.
    Visibility,
    /// What an unlogged relation begins as after a crash.
    Init,
}

impl RelationFile {
    /// Reads `16384`, `16384.1`, `16384_fsm`, `16384_vm.2`, `16384_init`; `None` for anything else.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        let (stem, segment) = match split_once(name, b'.') {
            Some((stem, segment)) => (stem, digits(segment).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (number, fork) = match split_once(stem, b'_') {
            None => (stem, Fork::Main),
            Some((number, b"fsm")) => (number, Fork::FreeSpace),
            Some((number, b"vm")) => (number, Fork::Visibility),
            Some((number, b"init")) => (number, Fork::Init),
            Some(_) => return None,
        };
        Some(Self { number: digits(number)?, fork, segment })
    }
}

/// Whether a file is of a temporary relation: `t3_16384`, with fork and segment like others.
fn is_temporary_relation(name: &[u8]) -> bool {
    let parse = || {
        let (session, rest) = split_once(name.strip_prefix(b"t")?, b'_')?;
        digits(session)?;
        RelationFile::parse(rest)
    };
    parse().is_some()
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let found = text.iter().position(|byte| *byte == at)?;
    Some((&text[..found], &text[found + 1..]))
}

/// A number as PostgreSQL prints it.
fn digits(text: &[u8]) -> Option<u32> {
    let canonical =
        !text.is_empty() && text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || text[0] != b'0');
    if canonical { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(place: Place, name: &str) -> bool {
        belongs(place, name.as_bytes(), false)
    }

    #[test]
    fn what_means_something_to_a_running_server_only_is_left_out() {
        for name in [
            "postmaster.pid",
            "postmaster.opts",
            "backup_label",
            "tablespace_map",
            "backup_manifest",
            "postgresql.auto.conf.tmp",
            "current_logfiles.tmp",
            "standby.signal",
            "recovery.signal",
            ".DS_Store",
            "pgsql_tmp123.0",
        ] {
            assert!(!file(Place::Root, name), "{name}");
        }
        for name in [
            "PG_VERSION",
            "postgresql.conf",
            "postgresql.auto.conf",
            "current_logfiles",
            "backup_label.old",
            "tablespace_map.old",
            "postmaster.pid.bak",
        ] {
            assert!(file(Place::Root, name), "{name}");
        }
    }

    #[test]
    fn some_directories_are_kept_empty_and_temporary_ones_go() {
        for name in EMPTIED {
            assert!(belongs(Place::Root, name, true));
            assert_eq!(Place::Root.inside(name), Place::Emptied);
            assert_eq!(Place::Other.inside(name), Place::Other, "only at the top");
        }
        for is_directory in [false, true] {
            assert!(!belongs(Place::Emptied, b"anything", is_directory));
            assert!(!belongs(Place::Other, b"pgsql_tmp", is_directory));
        }
        assert!(belongs(Place::Wal, b"archive_status", true));
        assert!(!file(Place::Wal, "000000010000000000000001"));
        assert!(!file(Place::Wal.inside(b"archive_status"), "000000010000000000000001.done"));
    }

    #[test]
    fn relations_lie_in_directories_of_databases_and_in_global() {
        let place = |path: &str| path.split('/').fold(Place::Root, |at, name| at.inside(name.as_bytes()));
        for path in ["global", "base/5", "pg_tblspc/16385/PG_15_202209061/5"] {
            assert_eq!(place(path), Place::Relations, "{path}");
        }
        for path in ["base", "base/5/x", "log", "global/x", "pg_xact", "pg_tblspc/16385", "log/base/5"] {
            assert_ne!(place(path), Place::Relations, "{path}");
        }
    }

    #[test]
    fn of_relations_the_temporary_ones_and_the_caches_are_left_out() {
        for name in [
            "t3_16384",
            "t3_16384.1",
            "t12_16384_fsm",
            "t12_16384_vm.2",
            "pg_internal.init",
            "pg_internal.init.4711",
            "pgsql_tmp4711.1",
            "pg_control",
        ] {
            assert!(!file(Place::Relations, name), "{name}");
        }
        for name in [
            "16384",
            "16384.1",
            "16384_init",
            "pg_filenode.map",
            "t3",
            "t_1",
            "t3_",
            "t3_x",
            "pg_internal.initial",
        ] {
            assert!(file(Place::Relations, name), "{name}");
        }
        assert!(file(Place::Other, "t3_16384"), "only where relations lie");
    }

    #[test]
    fn files_of_relations_are_known_by_their_names() {
        let parse = |name: &str| RelationFile::parse(name.as_bytes());
        let expect = |number, fork, segment| Some(RelationFile { number, fork, segment });
        assert_eq!(parse("16384"), expect(16_384, Fork::Main, 0));
        assert_eq!(parse("16384.12"), expect(16_384, Fork::Main, 12));
        assert_eq!(parse("16384_fsm"), expect(16_384, Fork::FreeSpace, 0));
        assert_eq!(parse("16384_vm.2"), expect(16_384, Fork::Visibility, 2));
        assert_eq!(parse("4294967295_init"), expect(u32::MAX, Fork::Init, 0));
        for name in [
            "",
            ".",
            "16384.",
            "16384.0",
            "016384",
            "16384_",
            "16384_x",
            "16384.1.2",
            "4294967296",
            "+1",
            "1a",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
