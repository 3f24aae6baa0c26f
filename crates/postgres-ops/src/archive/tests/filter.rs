use std::io::{self, Read, Write};

use proptest::prelude::*;

use super::sample::Sample;
use crate::archive::{ArchiveError, ArchiveToc, BlockFilter, DumpId, FilterReport, copy_blocks};

fn id(index: usize) -> DumpId {
    DumpId::new(Sample::id(index)).unwrap()
}

fn filter(sample: &Sample, wanted: &[usize]) -> BlockFilter {
    let toc = ArchiveToc::parse(&sample.bytes()).unwrap();
    BlockFilter::new(toc.header(), wanted.iter().map(|&index| id(index)))
}

fn blocks(sample: &Sample, indexes: &[usize]) -> Vec<u8> {
    indexes.iter().flat_map(|&index| sample.block_bytes(index)).collect()
}

#[test]
fn only_the_wanted_blocks_go_through() {
    let sample = Sample::ordinary();
    let prefix = sample.toc_bytes();
    for wanted in [&[][..], &[0], &[1], &[3], &[0, 2], &[0, 1, 2, 3]] {
        let mut out = Vec::new();
        let archive = blocks(&sample, &[0, 1, 2, 3]);
        let report = copy_blocks(&prefix, filter(&sample, wanted), &mut &archive[..], &mut out).unwrap();
        assert_eq!(out, [prefix.clone(), blocks(&sample, wanted)].concat());
        assert_eq!(report.bytes, (out.len() - prefix.len()) as u64);
        for (copied, &index) in report.blocks.iter().zip(wanted) {
            let at = prefix.len() + copied.start as usize;
            assert_eq!(copied.dump_id, id(index));
            assert_eq!(&out[at..at + copied.length as usize], sample.block_bytes(index));
        }
    }
}

#[test]
fn reading_ends_with_the_last_wanted_block() {
    let sample = Sample::ordinary();
    let archive = blocks(&sample, &[0, 1]);
    let mut source = archive.chain(FailingRead);
    let report = copy_blocks(&[], filter(&sample, &[1]), &mut source, &mut io::sink()).unwrap();
    assert_eq!(report.blocks.len(), 1);
    let error = copy_blocks(&[], filter(&sample, &[2]), &mut FailingRead, &mut io::sink()).unwrap_err();
    assert!(matches!(error, ArchiveError::Read { .. }));
}

#[test]
fn absent_cut_and_foreign_blocks_are_reported() {
    let sample = Sample::ordinary();
    let copy = |archive: &[u8]| copy_blocks(&[], filter(&sample, &[2]), &mut &archive[..], &mut io::sink());
    let absent = copy(&blocks(&sample, &[0, 3])).unwrap_err();
    assert!(matches!(absent, ArchiveError::MissingData { first, missing: 1 } if first == id(2)));
    let block = sample.block_bytes(2);
    for cut in 1..block.len() {
        assert!(copy(&block[..cut]).unwrap_err().is_truncation());
    }
    assert!(matches!(copy(b"PGDMP"), Err(ArchiveError::Corrupt { offset: 0, .. })));
}

#[test]
fn a_closed_destination_is_reported_and_final() {
    let sample = Sample::ordinary();
    let mut filter = filter(&sample, &[0, 2]);
    let error = filter.push(&sample.block_bytes(0), &mut ClosedPipe).unwrap_err();
    assert!(matches!(error, ArchiveError::Write { .. }));
    assert!(matches!(filter.push(b"", &mut io::sink()), Err(ArchiveError::AlreadyFailed)));
    assert!(matches!(filter.finish(), Err(ArchiveError::AlreadyFailed)));
}

struct FailingRead;

impl Read for FailingRead {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("read too far"))
    }
}

struct ClosedPipe;

impl Write for ClosedPipe {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

proptest! {
    #[test]
    fn pieces_have_no_influence(piece in 1usize..300, wanted in prop::sample::subsequence(vec![0, 1, 2, 3], 0..=4)) {
        let sample = Sample::ordinary();
        let mut out = Vec::new();
        let mut filter = filter(&sample, &wanted);
        for piece in blocks(&sample, &[0, 1, 2, 3]).chunks(piece) {
            filter.push(piece, &mut out).unwrap();
        }
        let report: FilterReport = filter.finish().unwrap();
        prop_assert_eq!(report.blocks.len(), wanted.len());
        prop_assert_eq!(out, blocks(&sample, &wanted));
    }
}
