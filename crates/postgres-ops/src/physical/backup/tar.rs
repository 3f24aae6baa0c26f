//! Headers of a tar archive, in the form that GNU tar writes and every tar reads.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Bytes of a header, and what content is padded to.
pub(super) const RECORD: usize = 512;
/// What ends an archive.
pub(super) const END: [u8; 2 * RECORD] = [0; 2 * RECORD];

/// Longest name that fits a header.
const NAME: usize = 100;

/// What an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) enum EntryKind {
    File,
    Directory,
}

/// An entry, without its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: EntryKind,
    pub(super) size: u64,
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) modified: i64,
    pub(super) owner: Owner,
}

/// To whom an entry belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) user: u32,
    pub(super) group: u32,
}

impl Owner {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self { user: meta.uid(), group: meta.gid() }
    }
}

impl Entry<'_> {
    /// The bytes before its content: one header, or three records where the path is long.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORD);
        let slash: &[u8] = if matches!(self.kind, EntryKind::Directory) { b"/" } else { b"" };
        let path = [self.path, slash].concat();
        if path.len() > NAME {
            // Its content is the name with a NUL, padded like any other.
            let length = path.len() as u64 + 1;
            bytes.extend(header(b"././@LongLink", b'L', length, 0, 0, Owner { user: 0, group: 0 }));
            bytes.extend_from_slice(&path);
            bytes.resize(bytes.len() + 1 + padding(length), 0);
        }
        let flag = if matches!(self.kind, EntryKind::Directory) { b'5' } else { b'0' };
        let short = &path[..path.len().min(NAME)];
        bytes.extend(header(short, flag, self.size, self.mode, self.modified, self.owner));
        bytes
    }
}

/// Zeros after content of that length.
pub(super) fn padding(length: u64) -> usize {
    let over = (length % RECORD as u64) as usize;
    if over == 0 { 0 } else { RECORD - over }
}

fn header(name: &[u8], flag: u8, size: u64, mode: u32, modified: i64, owner: Owner) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..name.len()].copy_from_slice(name);
    number(&mut record[100..108], mode.into());
    number(&mut record[108..116], owner.user.into());
    number(&mut record[116..124], owner.group.into());
    number(&mut record[124..136], size.into());
    number(&mut record[136..148], modified.into());
    record[156] = flag;
    record[257..265].copy_from_slice(b"ustar  \0");
    // The checksum is taken as if its own field held blanks.
    record[148..156].fill(b' ');
    let sum: u32 = record.iter().map(|byte| u32::from(*byte)).sum();
    record[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    record
}

/// Writes a number in octal, or where that is too short in two's complement with the highest bit set.
fn number(field: &mut [u8], value: i128) {
    let digits = field.len() - 1;
    let octal = if value >= 0 { format!("{value:0digits$o}") } else { String::new() };
    if octal.len() == digits {
        field[..digits].copy_from_slice(octal.as_bytes());
        return;
    }
    let bytes = value.to_be_bytes();
    let length = field.len();
    field.copy_from_slice(&bytes[bytes.len() - length..]);
    field[0] = if value < 0 { 0xFF } else { 0x80 };
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn list(entries: &[Entry<'_>]) -> Vec<String> {
        let mut tar = Command::new("tar")
            .args([
                "--list",
                "--verbose",
                "--numeric-owner",
                "--utc",
                "--full-time",
                "--quoting-style=escape",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = tar.stdin.take().unwrap();
        for entry in entries {
            input.write_all(&entry.header()).unwrap();
        }
        input.write_all(&END).unwrap();
        drop(input);
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn stock_tar_reads_what_is_written() {
        let long = [b"log/".to_vec(), vec![b'x'; 180]].concat();
        let owner = Owner { user: 101, group: 3_000_000_000 };
        let file = Entry {
            path: b"base/5/1259",
            kind: EntryKind::File,
            size: 0,
            mode: 0o600,
            modified: 1_760_000_000,
            owner,
        };
        let entries = [
            file,
            Entry { path: b"base", kind: EntryKind::Directory, mode: 0o700, ..file },
            Entry { path: &long, mode: 0o640, ..file },
            Entry { path: b"odd\xff", modified: -1, ..file },
        ];
        let when = "101/3000000000 0 2025-10-09 08:53:20";
        assert_eq!(
            list(&entries),
            [
                format!("-rw------- {when} base/5/1259"),
                format!("drwx------ {when} base/"),
                format!("-rw-r----- {when} log/{}", "x".repeat(180)),
                "-rw------- 101/3000000000 0 1969-12-31 23:59:59 odd\\377".to_owned(),
            ]
        );
    }

    #[test]
    fn sizes_beyond_8_gib_have_room() {
        let mut field = [0; 12];
        number(&mut field, (8 << 30) - 1);
        assert_eq!(&field, b"77777777777\0");
        number(&mut field, 8 << 30);
        assert_eq!(field, [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    }
}
