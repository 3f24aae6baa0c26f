//! The pack that is written after the backup has ended on the server.

use std::io::{self, Write as _};

use jiff::Timestamp;

use super::digest::FileDigest;
use super::frames::FrameWriter;
use super::ledger::Ledger;
use super::tar::{END, Entry, EntryKind, Owner, padding};
use crate::physical::{ClusterPath, IndexFile};

/// `backup_label` and `global/pg_control`.
pub(super) struct LastPack {
    pub(super) number: u32,
    pub(super) label: String,
    pub(super) control: Vec<u8>,
    pub(super) modified: Timestamp,
    pub(super) owner: Owner,
}

impl LastPack {
    /// Writes it, `pg_control` as the very last entry: a restore that breaks off before leaves nothing that starts.
    /// Blocks. Returns the bytes of the tar stream.
    pub(super) fn write(&self, ledger: &mut Ledger, mut out: FrameWriter) -> io::Result<u64> {
        self.file(ledger, &mut out, "backup_label", self.label.as_bytes())?;
        self.file(ledger, &mut out, crate::physical::control::CONTROL_FILE, &self.control)?;
        out.write_all(&END)?;
        let plain = out.position();
        out.finish()?;
        Ok(plain)
    }

    fn file(&self, ledger: &mut Ledger, out: &mut FrameWriter, path: &str, content: &[u8]) -> io::Result<()> {
        let size = content.len() as u64;
        let (mode, modified) = (0o600, self.modified.as_second());
        let kind = EntryKind::File;
        let entry = Entry { path: path.as_bytes(), kind, size, mode, modified, owner: self.owner };
        out.write_all(&entry.header())?;
        let at = out.position();
        out.write_all(content)?;
        out.write_all(&vec![0; padding(size)])?;
        let mut digest = FileDigest::new(None);
        digest.update(content);
        let (crc, blocks, _) = digest.finish();
        let path = ClusterPath::parse(path).map_err(io::Error::other)?;
        ledger.file(IndexFile { path, pack: self.number, at, size, mode, modified, blocks }, crc)
    }
}
