//! Headers of entries.

use super::header::{self, fits};
use super::sparse::{self, Extent};
use super::{RECORD, pax};
use crate::acl;
use crate::attributes::Attributes;
use crate::path::ArchivePath;

/// What ends an archive.
pub const END: [u8; 2 * RECORD] = [0; 2 * RECORD];

/// An entry without its content.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Where it lies.
    pub path: &'a ArchivePath,
    /// What it is.
    pub kind: EntryKind<'a>,
    /// Owner, permissions and the like.
    pub attributes: &'a Attributes,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A file with so many bytes after the header.
    File(u64),
    /// A file with holes: its whole size, and the pieces that follow the header.
    Sparse(u64, &'a [Extent]),
    /// A folder.
    Directory,
    /// A symbolic link to whatever that is.
    Symlink(&'a [u8]),
    /// Another name of a file that the archive has already.
    Hardlink(&'a ArchivePath),
}

/// Zeros after content of that length.
#[must_use]
pub fn padding(length: u64) -> usize {
    let over = (length % RECORD as u64) as usize;
    if over == 0 { 0 } else { RECORD - over }
}

/// Appends everything that stands before the content of an entry.
pub fn encode(entry: &Entry<'_>, to: &mut Vec<u8>) {
    let attributes = entry.attributes;
    let slash: &[u8] = if entry.kind == EntryKind::Directory { b"/" } else { b"" };
    let path = [entry.path.as_bytes(), slash].concat();
    let (flag, link, map, content) = match entry.kind {
        EntryKind::File(size) => (b'0', &[][..], Vec::new(), size),
        EntryKind::Sparse(_, extents) => {
            let stored: u64 = extents.iter().map(|extent| extent.length).sum();
            (b'0', &[][..], sparse::map(extents), stored)
        }
        EntryKind::Directory => (b'5', &[][..], Vec::new(), 0),
        EntryKind::Symlink(target) => (b'2', target, Vec::new(), 0),
        EntryKind::Hardlink(target) => (b'1', target.as_bytes(), Vec::new(), 0),
    };
    let size = map.len() as u64 + content;
    let mut records = Vec::new();
    if let EntryKind::Sparse(whole, _) = entry.kind {
        pax::put(&mut records, b"GNU.sparse.major", b"1");
        pax::put(&mut records, b"GNU.sparse.minor", b"0");
        pax::put(&mut records, b"GNU.sparse.name", &path);
        pax::put(&mut records, b"GNU.sparse.realsize", whole.to_string().as_bytes());
    }
    extended(&mut records, &path, link, size, entry);
    if !records.is_empty() {
        let record = record(b"./PaxHeaders/entry", b'x', records.len() as u64, &[], &Attributes::default());
        to.extend_from_slice(&record);
        to.extend_from_slice(&records);
        to.resize(to.len() + padding(records.len() as u64), 0);
    }
    to.extend_from_slice(&record(&path, flag, size, link, attributes));
    to.extend_from_slice(&map);
}

/// What has no room in the header, or no place.
fn extended(records: &mut Vec<u8>, path: &[u8], link: &[u8], size: u64, entry: &Entry<'_>) {
    let attributes = entry.attributes;
    let long = |text: &[u8]| text.len() > header::NAME.len();
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    let is_sparse = matches!(entry.kind, EntryKind::Sparse(..));
    let long_path = long(path) && !is_sparse;
    if (long_path && !is_text(path)) || (long(link) && !is_text(link)) {
        pax::put(records, b"hdrcharset", b"BINARY");
    }
    if long_path {
        pax::put(records, b"path", path);
    }
    if long(link) {
        pax::put(records, b"linkpath", link);
    }
    if !fits(size, header::SIZE.len()) {
        pax::put(records, b"size", size.to_string().as_bytes());
    }
    for (key, number) in [(b"uid".as_slice(), attributes.user), (b"gid", attributes.group)] {
        if !fits(number.into(), header::USER.len()) {
            pax::put(records, key, number.to_string().as_bytes());
        }
    }
    for (key, name) in [(b"uname".as_slice(), &attributes.user_name), (b"gname", &attributes.group_name)] {
        // The field ends with a NUL.
        if name.len() >= header::USER_NAME.len() {
            pax::put(records, key, name);
        }
    }
    let whole = u64::try_from(attributes.modified).is_ok_and(|time| fits(time, header::MODIFIED.len()));
    if attributes.modified_nanos != 0 || !whole {
        pax::put(records, b"mtime", time(attributes.modified, attributes.modified_nanos).as_bytes());
    }
    for (name, value) in &attributes.extended {
        let acl = acl::ACLS.iter().find(|(attribute, _)| attribute == name);
        if let Some((key, text)) = acl.and_then(|(_, key)| Some((key, acl::to_text(value)?))) {
            pax::put(records, key.as_bytes(), text.as_bytes());
        } else {
            pax::put(records, &[b"SCHILY.xattr.", pax::escape(name).as_slice()].concat(), value);
        }
    }
}

/// Seconds with their fraction; before 1970 both are negative together, as in -1.25.
pub(super) fn time(seconds: i64, nanos: u32) -> String {
    let text = match (seconds, nanos) {
        (seconds, 0) => return seconds.to_string(),
        (..0, nanos) => {
            let whole = seconds + 1;
            let minus = if whole == 0 { "-" } else { "" };
            format!("{minus}{whole}.{:09}", 1_000_000_000 - nanos)
        }
        (seconds, nanos) => format!("{seconds}.{nanos:09}"),
    };
    text.trim_end_matches('0').to_owned()
}

fn record(path: &[u8], flag: u8, size: u64, link: &[u8], attributes: &Attributes) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let put = |record: &mut [u8; RECORD], field: std::ops::Range<usize>, bytes: &[u8]| {
        let length = bytes.len().min(field.len());
        record[field.start..field.start + length].copy_from_slice(&bytes[..length]);
    };
    put(&mut record, header::NAME, path);
    put(&mut record, header::LINK, link);
    put(&mut record, header::MAGIC, header::USTAR);
    for (field, name) in
        [(header::USER_NAME, &attributes.user_name), (header::GROUP_NAME, &attributes.group_name)]
    {
        if name.len() < field.len() {
            put(&mut record, field, name);
        }
    }
    header::put_number(&mut record[header::MODE], attributes.mode.into());
    header::put_number(&mut record[header::USER], attributes.user.into());
    header::put_number(&mut record[header::GROUP], attributes.group.into());
    header::put_number(&mut record[header::SIZE], size);
    let modified = u64::try_from(attributes.modified).unwrap_or(0);
    header::put_number(&mut record[header::MODIFIED], modified);
    record[header::FLAG] = flag;
    let sum = header::checksum(&record);
    record[header::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record
}
