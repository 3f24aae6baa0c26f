//! Learns the facts of an archive while it streams by.
//!
//! Push the bytes as they come; after each push look at the boundaries within them, to cut the stream into objects;
//! at the end [`ArchiveScanner::finish`] says whether the archive is whole and what is in it. A `pg_dump` that died
//! is noticed here even if its exit was not.

use std::collections::HashSet;
use std::mem;

use super::blocks::{BlockSink, Framing, Place};
use super::{
    ArchiveError, ArchiveFacts, ArchiveToc, BlockFacts, BlockKind, Boundary, Compression, CopyRows, DumpId,
    Format, LargeObjectDigester, LargeObjectFacts, RowFacts, TocParser, TocProgress,
};

/// What an [`ArchiveScanner`] does besides counting.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScanOptions {
    /// Digest rows and large objects; costs about one more pass over the bytes.
    pub digests: bool,
    /// Largest table of contents accepted, in bytes; bounds memory as in [`TocParser::new`].
    pub toc_limit: u64,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { digests: false, toc_limit: ArchiveToc::DEFAULT_LIMIT }
    }
}

impl ScanOptions {
    /// Sets whether rows and large objects are digested.
    #[must_use]
    pub fn digests(mut self, digests: bool) -> Self {
        self.digests = digests;
        self
    }

    /// Sets the largest table of contents that is accepted, in bytes.
    #[must_use]
    pub fn toc_limit(mut self, bytes: u64) -> Self {
        self.toc_limit = bytes;
        self
    }
}

/// Reads a whole custom-format archive in pieces.
#[derive(Debug)]
pub struct ArchiveScanner {
    options: ScanOptions,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Toc(Box<TocParser>, u64),
    Blocks(Box<Framing>, Box<Recorder>),
    Failed(u64),
}

impl Default for ArchiveScanner {
    fn default() -> Self {
        Self::new(ScanOptions::default())
    }
}

impl ArchiveScanner {
    /// Starts at the first byte of an archive.
    pub fn new(options: ScanOptions) -> Self {
        let parser = TocParser::new(options.toc_limit);
        Self { options, stage: Stage::Toc(Box::new(parser), 0) }
    }

    /// Takes the next piece, which may begin and end anywhere.
    ///
    /// # Errors
    /// Anything of [`ArchiveError`] that says why this is no custom-format archive; afterwards
    /// [`ArchiveError::AlreadyFailed`].
    pub fn push(&mut self, piece: &[u8]) -> Result<(), ArchiveError> {
        let offset = self.offset();
        self.advance(piece).inspect_err(|_| self.stage = Stage::Failed(offset))
    }

    /// How many bytes have been pushed.
    pub fn offset(&self) -> u64 {
        match &self.stage {
            Stage::Toc(_, offset) | Stage::Failed(offset) => *offset,
            Stage::Blocks(framing, _) => framing.offset(),
        }
    }

    /// Header and table of contents, once they have come.
    pub fn toc(&self) -> Option<&ArchiveToc> {
        match &self.stage {
            Stage::Blocks(_, recorder) => Some(&recorder.toc),
            _ => None,
        }
    }

    /// The boundaries that the last push recognised, in ascending order.
    pub fn boundaries(&self) -> &[Boundary] {
        match &self.stage {
            Stage::Blocks(_, recorder) => &recorder.boundaries,
            _ => &[],
        }
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// [`ArchiveError::Truncated`] or [`ArchiveError::MissingData`] if it is not whole.
    pub fn finish(self) -> Result<ArchiveFacts, ArchiveError> {
        match self.stage {
            Stage::Failed(_) => Err(ArchiveError::AlreadyFailed),
            // It knows what is missing.
            Stage::Toc(parser, _) => parser.finish().and(Err(ArchiveError::AlreadyFailed)),
            Stage::Blocks(framing, recorder) => {
                framing.finish()?;
                recorder.finish(framing.offset())
            }
        }
    }

    fn advance(&mut self, piece: &[u8]) -> Result<(), ArchiveError> {
        match &mut self.stage {
            Stage::Failed(_) => Err(ArchiveError::AlreadyFailed),
            Stage::Blocks(framing, recorder) => {
                recorder.boundaries.clear();
                framing.push(piece, &mut **recorder)
            }
            Stage::Toc(parser, offset) => {
                let TocProgress::Complete { consumed } = parser.push(piece)? else {
                    *offset += piece.len() as u64;
                    return Ok(());
                };
                let parser = mem::replace(&mut **parser, TocParser::new(0));
                let mut recorder = Box::new(Recorder::new(parser.finish()?, self.options.digests)?);
                let mut framing = Framing::new(recorder.toc.header().int_size, recorder.toc.length());
                framing.push(&piece[consumed..], &mut *recorder)?;
                self.stage = Stage::Blocks(Box::new(framing), recorder);
                Ok(())
            }
        }
    }
}

/// Keeps the facts of the blocks.
#[derive(Debug)]
struct Recorder {
    toc: ArchiveToc,
    digests: bool,
    boundaries: Vec<Boundary>,
    blocks: Vec<BlockFacts>,
    seen: HashSet<DumpId>,
    open: Option<OpenBlock>,
    tally: Tally,
}

#[derive(Clone, Copy, Debug)]
struct OpenBlock {
    dump_id: DumpId,
    kind: BlockKind,
    start: u64,
}

/// What is counted in the block being read.
#[derive(Debug)]
enum Tally {
    Rows(CopyRows),
    Objects(LargeObjectFacts, Option<Box<LargeObjectDigester>>),
    Bytes(u64),
}

impl Recorder {
    fn new(toc: ArchiveToc, digests: bool) -> Result<Self, ArchiveError> {
        let format = toc.header().format;
        if format != Format::Custom {
            return Err(ArchiveError::NotCustomFormat { found: format });
        }
        Ok(Self {
            boundaries: vec![Boundary::TocEnd { offset: toc.length() }],
            toc,
            digests,
            blocks: Vec::new(),
            seen: HashSet::new(),
            open: None,
            tally: Tally::Bytes(0),
        })
    }

    fn finish(self, length: u64) -> Result<ArchiveFacts, ArchiveError> {
        let mut missing =
            self.toc.data_entries().map(|entry| entry.dump_id).filter(|id| !self.seen.contains(id));
        if let Some(first) = missing.next() {
            return Err(ArchiveError::MissingData { first, missing: missing.count() + 1 });
        }
        drop(missing);
        let is_plain = self.is_plain();
        let mut objects = LargeObjectFacts {
            digest: (self.digests && is_plain).then(Default::default),
            ..Default::default()
        };
        self.blocks.iter().filter_map(|block| block.objects).for_each(|more| objects.absorb(more));
        Ok(ArchiveFacts { toc: self.toc, blocks: self.blocks, objects, length })
    }

    fn is_plain(&self) -> bool {
        self.toc.header().compression == Compression::None
    }

    fn tally_for(&self, kind: BlockKind, is_copy_text: bool) -> Tally {
        match kind {
            BlockKind::LargeObjects => Tally::Objects(
                LargeObjectFacts::default(),
                (self.digests && self.is_plain()).then(Box::default),
            ),
            BlockKind::Table if is_copy_text && self.is_plain() => {
                Tally::Rows(if self.digests { CopyRows::digesting() } else { CopyRows::counting() })
            }
            BlockKind::Table => Tally::Bytes(0),
        }
    }
}

impl BlockSink for Recorder {
    fn block_start(
        &mut self,
        kind: BlockKind,
        dump_id: DumpId,
        start: u64,
        _place: Place,
    ) -> Result<(), ArchiveError> {
        let corrupt = |what| Err(ArchiveError::Corrupt { offset: start, what });
        let Some(entry) = self.toc.find(dump_id).filter(|entry| entry.has_data()) else {
            return corrupt("a data block that no entry announces");
        };
        if (entry.desc == "BLOBS") != (kind == BlockKind::LargeObjects) {
            return corrupt("a data block of the wrong kind");
        }
        let is_copy_text = entry.is_copy_text();
        if !self.seen.insert(dump_id) {
            return corrupt("a second data block of one entry");
        }
        self.tally = self.tally_for(kind, is_copy_text);
        self.open = Some(OpenBlock { dump_id, kind, start });
        self.boundaries.push(Boundary::BlockStart { dump_id, kind, offset: start });
        Ok(())
    }

    fn object_start(&mut self, oid: u32) {
        if let Tally::Objects(facts, digester) = &mut self.tally {
            facts.count += 1;
            if let Some(digester) = digester {
                digester.begin(oid);
            }
        }
    }

    #[inline]
    fn payload(&mut self, bytes: &[u8]) {
        match &mut self.tally {
            Tally::Rows(rows) => rows.push(bytes),
            Tally::Objects(facts, digester) => {
                facts.bytes += bytes.len() as u64;
                if let Some(digester) = digester {
                    digester.push(bytes);
                }
            }
            Tally::Bytes(count) => *count += bytes.len() as u64,
        }
    }

    fn counting(&mut self) -> Option<&mut CopyRows> {
        match &mut self.tally {
            Tally::Rows(rows) if rows.is_counting() => Some(rows),
            _ => None,
        }
    }

    fn object_end(&mut self) {
        if let Tally::Objects(_, Some(digester)) = &mut self.tally {
            digester.end();
        }
    }

    fn block_end(&mut self, place: Place) -> Result<(), ArchiveError> {
        let Some(OpenBlock { dump_id, kind, start }) = self.open.take() else { return Ok(()) };
        let (payload_bytes, rows, objects) = match mem::replace(&mut self.tally, Tally::Bytes(0)) {
            Tally::Rows(rows) => row_facts(rows, place.offset)?,
            Tally::Objects(mut facts, digester) => {
                facts.digest = digester.map(|digester| digester.digest());
                (facts.bytes, None, Some(facts))
            }
            Tally::Bytes(count) => (count, None, None),
        };
        let block = BlockFacts { dump_id, kind, start, end: place.offset, payload_bytes, rows, objects };
        self.boundaries.push(Boundary::BlockEnd(block.clone()));
        self.blocks.push(block);
        Ok(())
    }
}

type Counted = (u64, Option<RowFacts>, Option<LargeObjectFacts>);

fn row_facts(rows: CopyRows, offset: u64) -> Result<Counted, ArchiveError> {
    let payload_bytes = rows.bytes();
    let facts = rows
        .without_terminator()
        .ok_or(ArchiveError::Corrupt { offset, what: "rows of a table without their end marker" })?;
    Ok((payload_bytes, Some(facts), None))
}
