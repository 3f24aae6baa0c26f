use std::fmt;

use super::wire::{Cursor, Stop};
use super::{ArchiveError, ArchiveText};

const MAGIC: &[u8; 5] = b"PGDMP";

/// Version of the archive format, not of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FormatVersion {
    /// Always 1 so far.
    pub major: u8,
    /// 14 for PostgreSQL 12 to 15, 15 for 16, 16 for 17 and 18.
    pub minor: u8,
}

impl FormatVersion {
    /// The oldest version that is read.
    pub const OLDEST: Self = Self { major: 1, minor: 12 };
    /// The newest version that is read.
    pub const NEWEST: Self = Self { major: 1, minor: 16 };

    /// Since 1.14 an entry names its table access method.
    pub(super) fn has_access_method(self) -> bool {
        self.minor >= 14
    }

    /// Since 1.15 the header names the compression algorithm instead of a level.
    pub(super) fn has_algorithm(self) -> bool {
        self.minor >= 15
    }

    /// Since 1.16 an entry says what kind of relation it is.
    pub(super) fn has_relation_kind(self) -> bool {
        self.minor >= 16
    }
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Which of `pg_dump`'s archive formats a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// One file with the data behind the table of contents (`-Fc`).
    Custom,
    /// Data in files that the entries name: `toc.dat` of `-Fd`, and of `-Ft`, say this alike.
    Files,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Custom => "custom",
            Self::Files => "tar or directory",
        })
    }
}

/// How the data blocks are compressed inside the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Blocks hold plain COPY text; only then can rows be counted.
    None,
    /// zlib streams.
    Gzip,
    /// LZ4 frames.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

/// When the dump began, on the clock and in the zone of the machine that ran `pg_dump`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArchiveTime {
    /// Full year.
    pub year: i32,
    /// 1 to 12.
    pub month: i32,
    /// 1 to 31.
    pub day: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 60.
    pub second: i32,
}

impl fmt::Display for ArchiveTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

/// What an archive says of itself before its table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Version of the format.
    pub version: FormatVersion,
    /// Bytes of an integer's magnitude; 4 everywhere today.
    pub int_size: usize,
    /// Bytes of a file position; 8 everywhere today.
    pub offset_size: usize,
    /// Which format.
    pub format: Format,
    /// How blocks are compressed.
    pub compression: Compression,
    /// When the dump began.
    pub created: ArchiveTime,
    /// Database that was dumped.
    pub database: ArchiveText,
    /// Version text of the server, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: ArchiveText,
    /// Version text of `pg_dump`.
    pub dump_version: ArchiveText,
}

impl Header {
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Stop> {
        magic(cursor)?;
        let version = version(cursor)?;
        let int_size = size(cursor)?;
        let offset_size = size(cursor)?;
        cursor.set_int_size(int_size);
        Ok(Self {
            version,
            int_size,
            offset_size,
            format: format(cursor)?,
            compression: compression(cursor, version)?,
            created: time(cursor)?,
            database: text(cursor)?,
            server_version: text(cursor)?,
            dump_version: text(cursor)?,
        })
    }
}

/// Byte by byte, so that the first wrong one is refused without waiting for more.
fn magic(cursor: &mut Cursor<'_>) -> Result<(), Stop> {
    for &expected in MAGIC {
        if cursor.byte()? != expected {
            return Err(ArchiveError::NotAnArchive.into());
        }
    }
    Ok(())
}

fn version(cursor: &mut Cursor<'_>) -> Result<FormatVersion, Stop> {
    let found = FormatVersion { major: cursor.byte()?, minor: cursor.byte()? };
    let _revision = cursor.byte()?;
    if found < FormatVersion::OLDEST || found > FormatVersion::NEWEST {
        return Err(ArchiveError::UnsupportedVersion { found }.into());
    }
    Ok(found)
}

fn size(cursor: &mut Cursor<'_>) -> Result<usize, Stop> {
    match cursor.byte()? {
        size @ 1..=8 => Ok(usize::from(size)),
        _ => Err(cursor.corrupt("an impossible size of integers or positions")),
    }
}

fn format(cursor: &mut Cursor<'_>) -> Result<Format, Stop> {
    match cursor.byte()? {
        1 => Ok(Format::Custom),
        3 | 5 => Ok(Format::Files),
        _ => Err(cursor.corrupt("an unknown archive format")),
    }
}

fn compression(cursor: &mut Cursor<'_>, version: FormatVersion) -> Result<Compression, Stop> {
    if !version.has_algorithm() {
        // A level: any but 0, the default -1 included, means zlib.
        return Ok(if cursor.int()? == 0 { Compression::None } else { Compression::Gzip });
    }
    match cursor.byte()? {
        0 => Ok(Compression::None),
        1 => Ok(Compression::Gzip),
        2 => Ok(Compression::Lz4),
        3 => Ok(Compression::Zstd),
        _ => Err(cursor.corrupt("an unknown compression algorithm")),
    }
}

/// C's broken-down time: month from 0, year from 1900, and a daylight saving flag.
fn time(cursor: &mut Cursor<'_>) -> Result<ArchiveTime, Stop> {
    let second = cursor.int()?;
    let minute = cursor.int()?;
    let hour = cursor.int()?;
    let day = cursor.int()?;
    let month = cursor.int()?.saturating_add(1);
    let year = cursor.int()?.saturating_add(1900);
    let _daylight_saving = cursor.int()?;
    Ok(ArchiveTime { year, month, day, hour, minute, second })
}

fn text(cursor: &mut Cursor<'_>) -> Result<ArchiveText, Stop> {
    Ok(cursor.text()?.unwrap_or_default().into())
}
