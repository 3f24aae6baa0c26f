//! Reads archives, and refuses whatever is not exactly what the writer makes.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::sparse::{Extent, MapParser};
use super::write::padding;
use super::{RECORD, header, pax};
use crate::acl;
use crate::attributes::Attributes;
use crate::path::{ArchivePath, PathProblem};

/// Largest extended header: room for every extended attribute that Linux takes of a file, several times over.
const LARGEST_PAX: u64 = 1 << 20;
/// Longest target of a link.
const LONGEST_TARGET: usize = 4095;
/// Permissions with the set-id and sticky bits.
const MODES: u64 = 0o7777;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarProblem {
    /// Its bytes cannot be had.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// It is not what it should be. The name is that of the entry, as far as it is known.
    #[error("{name}: {problem}")]
    Refused {
        /// Printable.
        name: String,
        /// Why.
        problem: String,
    },
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A file of that size. With holes the pieces say what is stored of it.
    File {
        /// Its size.
        size: u64,
        /// The pieces, `None` when all of it is stored.
        extents: Option<Vec<Extent>>,
    },
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Whatever it points to.
        target: Vec<u8>,
    },
    /// Another name of a file.
    Hardlink {
        /// The first name.
        target: ArchivePath,
    },
}

/// An entry, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TarEntry {
    /// Where it lies.
    pub path: ArchivePath,
    /// What it is.
    pub kind: Kind,
    /// Owner, permissions and the like.
    pub attributes: Attributes,
}

/// Reads the entries of an archive one by one.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    /// Bytes of the present entry that are still to come, and the zeros after them.
    content: u64,
    zeros: usize,
    entries: u64,
    ended: bool,
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

impl<R: Read> TarReader<R> {
    /// Reads an archive from its beginning.
    pub fn new(input: R) -> Self {
        Self { input, content: 0, zeros: 0, entries: 0, ended: false }
    }

    /// The next entry; what is left of the content of the one before is passed over. `None` is the proven end.
    ///
    /// # Errors
    /// The archive cannot be read, or is refused; it must not be read on then.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, TarProblem> {
        if self.ended {
            return Ok(None);
        }
        self.skip()?;
        let Some(mut record) = self.record()? else { return self.end() };
        self.entries += 1;
        let mut records = Records::new();
        if record[header::FLAG] == b'x' {
            records = self.pax(&record)?;
            record = self.record()?.ok_or_else(|| self.refuse("an extended header has no entry"))?;
        }
        let entry = self.entry(&record, records)?;
        self.content = match &entry.kind {
            Kind::File { extents: Some(extents), .. } => extents.iter().map(|extent| extent.length).sum(),
            Kind::File { size, .. } => *size,
            _ => 0,
        };
        self.zeros = padding(self.content);
        Ok(Some(entry))
    }

    /// Reads from the content of the present entry: its bytes, or those of its pieces one after another. 0 at the end.
    ///
    /// # Errors
    /// It cannot be read, or ends before its time.
    pub fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, TarProblem> {
        let wanted = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let length = loop {
            match self.input.read(&mut buffer[..wanted]) {
                Ok(0) => return Err(self.refuse("the archive ends within its content")),
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarProblem::Io(error)),
            }
        };
        self.content -= length as u64;
        Ok(length)
    }

    fn skip(&mut self) -> Result<(), TarProblem> {
        let mut buffer = [0; 16 << 10];
        while self.read_content(&mut buffer)? > 0 {}
        let zeros = std::mem::take(&mut self.zeros);
        self.fill(&mut buffer[..zeros])?;
        if buffer[..zeros].iter().any(|byte| *byte != 0) {
            return Err(self.refuse("something else than zeros pads its content"));
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TarProblem> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.refuse("the archive ends before its end mark"),
            _ => TarProblem::Io(error),
        })
    }

    /// The next header, `None` for a record of zeros. Its checksum is right.
    fn record(&mut self) -> Result<Option<[u8; RECORD]>, TarProblem> {
        let mut record = [0; RECORD];
        self.fill(&mut record)?;
        if record.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if header::number(&record[header::CHECKSUM]) != Some(header::checksum(&record).into()) {
            return Err(self.refuse("the checksum of its header is wrong"));
        }
        if &record[header::MAGIC] != header::USTAR {
            return Err(self.refuse("its header is of another form than ours"));
        }
        Ok(Some(record))
    }

    /// The end mark is two records of zeros, and nothing comes after it.
    fn end(&mut self) -> Result<Option<TarEntry>, TarProblem> {
        let mut record = [0; RECORD];
        self.fill(&mut record)?;
        if record.iter().any(|byte| *byte != 0) {
            return Err(self.refuse("the end mark is broken"));
        }
        let mut more = [0];
        let after = self.input.read(&mut more).map_err(TarProblem::Io)?;
        if after != 0 {
            return Err(self.refuse("something comes after the end mark"));
        }
        self.ended = true;
        Ok(None)
    }

    fn pax(&mut self, record: &[u8; RECORD]) -> Result<Records, TarProblem> {
        let size = header::number(&record[header::SIZE]).filter(|size| (1..=LARGEST_PAX).contains(size));
        let Some(size) = size else { return Err(self.refuse("its extended header has an impossible size")) };
        let mut bytes = vec![0; size as usize + padding(size)];
        self.fill(&mut bytes)?;
        let (records, zeros) = bytes.split_at(size as usize);
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(self.refuse("something else than zeros pads its extended header"));
        }
        pax::parse(records).map_err(|problem| self.refuse(problem))
    }

    fn entry(&mut self, record: &[u8; RECORD], mut records: Records) -> Result<TarEntry, TarProblem> {
        let at = self.refuse("its header is broken");
        let is_clean = record[header::UNUSED].iter().all(|byte| *byte == 0);
        let fields = (header::text(&record[header::NAME]), header::text(&record[header::LINK]), is_clean);
        let (Some(short), Some(short_link), true) = fields else { return Err(at) };
        let sparse = self.sparse(&mut records)?;
        let long = match &sparse {
            Some((name, _)) => Some(name.clone()),
            None => records.remove(b"path".as_slice()),
        };
        let name = long.unwrap_or_else(|| short.to_vec());
        let refuse = |problem: &str| refused(&name, problem);
        let link = records.remove(b"linkpath".as_slice()).unwrap_or_else(|| short_link.to_vec());
        let size = number(&mut records, b"size", &record[header::SIZE])
            .ok_or_else(|| refuse("its size is broken"))?;
        let kind = kind(record[header::FLAG], size, link).map_err(refuse)?;
        let path = path(&name, kind == Kind::Directory).map_err(|problem| refuse(&problem.to_string()))?;
        let attributes = attributes(record, &mut records).map_err(refuse)?;
        records.remove(b"hdrcharset".as_slice());
        if let Some(key) = records.keys().next() {
            let key = crate::path::printable(key);
            return Err(refuse(&format!("its extended header says something unknown ({key})")));
        }
        let kind = match (sparse, kind) {
            (None, kind) => kind,
            (Some((_, whole)), Kind::File { size: stored, .. }) => {
                let extents = self.map(whole, stored).map_err(|problem| match problem {
                    TarProblem::Refused { problem, .. } => refuse(&problem),
                    io @ TarProblem::Io(_) => io,
                })?;
                Kind::File { size: whole, extents: Some(extents) }
            }
            (Some(_), _) => return Err(refuse("it has holes and is no file")),
        };
        Ok(TarEntry { path, kind, attributes })
    }

    /// Name and whole size of a file with holes.
    fn sparse(&self, records: &mut Records) -> Result<Option<(Vec<u8>, u64)>, TarProblem> {
        let mut take = |key: &str| records.remove(format!("GNU.sparse.{key}").as_bytes());
        let fields = (take("major"), take("minor"), take("name"), take("realsize"));
        match fields {
            (None, None, None, None) => Ok(None),
            (Some(major), Some(minor), Some(name), Some(size)) if major == b"1" && minor == b"0" => {
                let size = decimal(&size).ok_or_else(|| refused(&name, "its size is broken"))?;
                Ok(Some((name, size)))
            }
            _ => Err(self.refuse("its holes are described in another form than ours")),
        }
    }

    fn map(&mut self, whole: u64, stored: u64) -> Result<Vec<Extent>, TarProblem> {
        let mut parser = MapParser::default();
        let mut left = stored;
        loop {
            left = left
                .checked_sub(RECORD as u64)
                .ok_or_else(|| self.refuse("the map of its holes is longer than its content"))?;
            let mut record = [0; RECORD];
            self.fill(&mut record)?;
            if parser.push(&record).map_err(|problem| self.refuse(problem))? {
                return parser.finish(whole, left).map_err(|problem| self.refuse(problem));
            }
        }
    }

    fn refuse(&self, problem: &str) -> TarProblem {
        let name = format!("entry {}", self.entries);
        TarProblem::Refused { name, problem: problem.to_owned() }
    }
}

fn refused(name: &[u8], problem: &str) -> TarProblem {
    TarProblem::Refused { name: crate::path::printable(name), problem: problem.to_owned() }
}

/// Folders end with a slash, and nothing else does.
fn path(name: &[u8], is_directory: bool) -> Result<ArchivePath, PathProblem> {
    match (name.strip_suffix(b"/"), is_directory) {
        (Some(folder), true) if !folder.is_empty() => ArchivePath::parse(folder),
        _ => ArchivePath::parse(name),
    }
}

fn kind(flag: u8, size: u64, link: Vec<u8>) -> Result<Kind, &'static str> {
    let linked = !link.is_empty();
    let kind = match flag {
        b'0' => Kind::File { size, extents: None },
        b'1' => Kind::Hardlink {
            target: ArchivePath::parse(&link).map_err(|_| "it is a hard link out of the archive")?,
        },
        b'2' if link.len() > LONGEST_TARGET || link.contains(&0) || !linked => {
            return Err("it is a symbolic link to something impossible");
        }
        b'2' => Kind::Symlink { target: link },
        b'5' => Kind::Directory,
        b'3' | b'4' => return Err("it is a device"),
        b'6' => return Err("it is a named pipe"),
        b'g' => return Err("it changes the meaning of all entries after it"),
        b'x' => return Err("it has two extended headers"),
        _ => return Err("it is of a kind that such archives do not have"),
    };
    match kind {
        Kind::File { .. } if linked => Err("it is a file and a link"),
        Kind::Directory if linked => Err("it is a folder and a link"),
        Kind::Directory | Kind::Symlink { .. } | Kind::Hardlink { .. } if size != 0 => {
            Err("it has content, and is no file")
        }
        kind => Ok(kind),
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let canonical = digits.iter().all(u8::is_ascii_digit) && !digits.is_empty();
    let text = std::str::from_utf8(digits).ok()?;
    text.parse().ok().filter(|number| canonical && *number <= i64::MAX as u64)
}

fn number(records: &mut Records, key: &[u8], field: &[u8]) -> Option<u64> {
    match records.remove(key) {
        Some(digits) => decimal(&digits),
        None => header::number(field),
    }
}

fn attributes(record: &[u8; RECORD], records: &mut Records) -> Result<Attributes, &'static str> {
    let id = |number: Option<u64>| {
        // The highest one means "leave it as it is" to the system.
        number.and_then(|number| u32::try_from(number).ok()).filter(|number| *number != u32::MAX)
    };
    let user = id(number(records, b"uid", &record[header::USER])).ok_or("its owner is broken")?;
    let group = id(number(records, b"gid", &record[header::GROUP])).ok_or("its group is broken")?;
    let mode = header::number(&record[header::MODE]).filter(|mode| *mode <= MODES);
    let mode = mode.and_then(|mode| u32::try_from(mode).ok()).ok_or("its permissions are broken")?;
    let (modified, modified_nanos) = match records.remove(b"mtime".as_slice()) {
        Some(text) => time(&text).ok_or("its time is broken")?,
        None => (header::number(&record[header::MODIFIED]).ok_or("its time is broken")?.cast_signed(), 0),
    };
    let mut name = |key: &[u8], field: &[u8]| match records.remove(key) {
        Some(name) => Some(name),
        None => header::text(field).map(<[u8]>::to_vec),
    };
    let user_name = name(b"uname", &record[header::USER_NAME]).ok_or("the name of its owner is broken")?;
    let group_name = name(b"gname", &record[header::GROUP_NAME]).ok_or("the name of its group is broken")?;
    let extended = extended(records)?;
    Ok(Attributes { mode, user, group, user_name, group_name, modified, modified_nanos, extended })
}

fn extended(records: &mut Records) -> Result<Records, &'static str> {
    let mut extended = Records::new();
    for (attribute, key) in acl::ACLS {
        if let Some(text) = records.remove(key.as_bytes()) {
            let binary =
                std::str::from_utf8(&text).ok().and_then(acl::to_binary).ok_or("its ACL is broken")?;
            extended.insert(attribute.to_vec(), binary);
        }
    }
    let prefix = b"SCHILY.xattr.";
    let keys: Vec<_> = records.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
    for key in keys {
        let name = pax::unescape(&key[prefix.len()..]);
        let name = name.filter(|name| !name.is_empty() && name.len() <= 255 && !name.contains(&0));
        let name = name.ok_or("the name of an extended attribute is broken")?;
        let value = records.remove(&key).unwrap_or_default();
        if extended.insert(name, value).is_some() {
            return Err("an extended attribute is there twice");
        }
    }
    Ok(extended)
}

/// The reverse of [`super::write::time`]; only what that writes is taken.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    let (seconds, nanos) = match (whole.starts_with('-'), nanos) {
        (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanos),
        _ => (seconds, nanos),
    };
    (super::write::time(seconds, nanos) == text).then_some((seconds, nanos))
}
