//! Writes down what was stored where, as it happens: the index of the set and PostgreSQL's manifest.
//!
//! Both are objects of the set that stay open from the first file to the last, so that nothing of a file is kept in
//! memory once it is stored.

use std::io::{self, Write as _};

use super::frames::FrameWriter;
use crate::physical::manifest_file::ManifestFile;
use crate::physical::{ClusterPath, IndexDirectory, IndexEnd, IndexFile, IndexLine, IndexPack, WalRange};
use crate::wal::SystemId;

/// Index and manifest being written. Its calls block while a frame is sent.
#[derive(Debug)]
pub(super) struct Ledger {
    index: FrameWriter,
    manifest: ManifestFile<FrameWriter>,
    end: IndexEnd,
    bytes: u64,
}

/// How much was stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Ledger {
    pub(super) fn begin(
        index: FrameWriter,
        manifest: FrameWriter,
        major: u32,
        system: SystemId,
    ) -> io::Result<Self> {
        let manifest = ManifestFile::begin(manifest, major, system)?;
        Ok(Self { index, manifest, end: IndexEnd::default(), bytes: 0 })
    }

    pub(super) fn directory(&mut self, path: ClusterPath, mode: u32) -> io::Result<()> {
        self.end.directories += 1;
        self.line(&IndexLine::Directory(IndexDirectory { path, mode }))
    }

    /// Adds a file and the CRC-32C of its content.
    pub(super) fn file(&mut self, file: IndexFile, crc: u32) -> io::Result<()> {
        self.end.files += 1;
        self.bytes += file.size;
        self.manifest.file(&file.path, file.size, file.modified, crc)?;
        self.line(&IndexLine::File(file))
    }

    pub(super) fn pack(&mut self, pack: IndexPack) -> io::Result<()> {
        self.end.packs += 1;
        self.line(&IndexLine::Pack(pack))
    }

    pub(super) fn finish(mut self, wal: &[WalRange]) -> io::Result<Totals> {
        let totals = Totals { files: self.end.files, bytes: self.bytes };
        let end = self.end;
        self.line(&IndexLine::End(end))?;
        self.index.finish()?;
        self.manifest.finish(wal)?.finish()?;
        Ok(totals)
    }

    fn line(&mut self, line: &IndexLine) -> io::Result<()> {
        serde_json::to_writer(&mut self.index, line)?;
        self.index.write_all(b"\n")
    }
}
