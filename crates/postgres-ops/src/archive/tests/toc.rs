use std::collections::HashSet;

use proptest::prelude::*;

use super::sample::Sample;
use crate::archive::{
    ArchiveError, ArchiveToc, Compression, DataPosition, DumpId, Format, Section, TocParser, TocProgress,
    set_block_positions,
};

fn id(number: u32) -> DumpId {
    DumpId::new(number).unwrap()
}

#[test]
fn every_supported_version_is_read() {
    for minor in 12..=16 {
        let sample = Sample { minor, ..Sample::ordinary() };
        let toc = ArchiveToc::parse(&sample.bytes()).unwrap();
        let header = toc.header();
        assert_eq!(header.version.to_string(), format!("1.{minor}"));
        assert_eq!((header.format, header.compression), (Format::Custom, Compression::None));
        assert_eq!(header.created.to_string(), "2026-11-22 21:30:09");
        assert_eq!(header.database, "shop");
        assert_eq!(toc.length(), sample.toc_bytes().len() as u64);
        assert_eq!(toc.entries().len(), 9);
        let data = toc.find(id(Sample::id(0))).unwrap();
        assert_eq!((data.section, &data.data), (Section::Data, &DataPosition::Unknown));
        assert_eq!(data.dependencies, [id(11)]);
        assert_eq!(data.access_method.is_some(), minor >= 14);
        assert_eq!(data.relkind, (minor >= 16).then_some('r'));
        assert_eq!(data.copy_columns().unwrap(), b"(a, b)");
        assert_eq!(toc.encoding().as_deref(), Some("UTF8"));
    }
}

#[test]
fn other_versions_are_named_in_the_refusal() {
    for (major, minor) in [(1, 11), (1, 17), (0, 14), (2, 0)] {
        let mut bytes = Sample::ordinary().bytes();
        bytes[5..7].copy_from_slice(&[major, minor]);
        let error = ArchiveToc::parse(&bytes).unwrap_err();
        assert!(matches!(error, ArchiveError::UnsupportedVersion { .. }));
        assert!(error.to_string().contains(&format!("{major}.{minor}")), "{error}");
    }
}

#[test]
fn other_files_are_refused_at_their_first_byte() {
    for bytes in [&b"-"[..], b"PGDUMP", b"\x1f\x8b", b"PGX"] {
        let mut parser = TocParser::new(1024);
        assert!(matches!(parser.push(bytes), Err(ArchiveError::NotAnArchive)), "{bytes:?}");
        assert!(matches!(parser.push(bytes), Err(ArchiveError::AlreadyFailed)));
    }
}

#[test]
fn any_shorter_start_needs_more_and_any_pieces_give_the_same() {
    let bytes = Sample::ordinary().toc_bytes();
    let whole = ArchiveToc::parse(&bytes).unwrap();
    for cut in 0..bytes.len() {
        assert!(ArchiveToc::parse(&bytes[..cut]).unwrap_err().is_truncation(), "{cut}");
        let mut parser = TocParser::new(ArchiveToc::DEFAULT_LIMIT);
        assert_eq!(parser.push(&bytes[..cut]).unwrap(), TocProgress::NeedMore);
        let rest = [&bytes[cut..], b"behind"].concat();
        assert_eq!(parser.push(&rest).unwrap(), TocProgress::Complete { consumed: bytes.len() - cut });
        assert_eq!(parser.finish().unwrap(), whole);
    }
}

#[test]
fn an_integer_of_any_size_is_read() {
    for int_size in [3, 5, 8] {
        let sample = Sample { int_size, ..Sample::ordinary() };
        assert_eq!(ArchiveToc::parse(&sample.bytes()).unwrap().header().int_size, int_size);
    }
    let mut bytes = Sample::ordinary().bytes();
    bytes[8] = 9;
    assert!(matches!(ArchiveToc::parse(&bytes), Err(ArchiveError::Corrupt { offset: 9, .. })));
}

#[test]
fn a_limit_holds_whatever_the_archive_claims() {
    let bytes = Sample::ordinary().toc_bytes();
    let length = bytes.len() as u64;
    let parse = |limit: u64, bytes: &[u8], piece: usize| {
        let mut parser = TocParser::new(limit);
        bytes.chunks(piece).try_for_each(|piece| parser.push(piece).map(drop))
    };
    for piece in [7, bytes.len()] {
        assert!(parse(length, &bytes, piece).is_ok());
        assert!(matches!(parse(length - 1, &bytes, piece), Err(ArchiveError::TocTooLarge { .. })));
    }
    // A database name of two gigabytes: refused by the bytes that come, without room being made for the rest.
    let mut hostile = bytes[..51].to_vec();
    hostile.extend([0, 0xFF, 0xFF, 0xFF, 0x7F]);
    hostile.extend(vec![b'x'; 5000]);
    assert!(matches!(parse(4096, &hostile, 64), Err(ArchiveError::TocTooLarge { limit: 4096 })));
}

#[test]
fn a_list_names_the_wanted_entries_in_order_one_a_line() {
    let mut sample = Sample::ordinary();
    sample.data.truncate(2);
    let toc = ArchiveToc::parse(&sample.bytes()).unwrap();
    let wanted = HashSet::from([id(102), id(11), id(77)]);
    assert_eq!(
        toc.restore_list(&wanted),
        "11; 1259 16385 TABLE public t0 alice\n102; 1259 16385 TABLE DATA public t1 alice\n"
    );
    let bytes = sample.toc_bytes();
    let at = memchr::memmem::find(&bytes, b"alice").unwrap();
    let broken = [&bytes[..at], b"al\ne;", &bytes[at + 5..]].concat();
    let toc = ArchiveToc::parse(&broken).unwrap();
    assert_eq!(toc.restore_list(&HashSet::from([id(1)])), "1; 1259 16385 ENCODING public ENCODING al e;\n");
}

#[test]
fn entries_that_depend_on_a_table_are_found() {
    let toc = ArchiveToc::parse(&Sample::ordinary().bytes()).unwrap();
    let table = toc.find_table("public", "t1").unwrap().dump_id;
    let data = toc.find_table_data("public", "t1").unwrap().dump_id;
    assert_eq!(toc.dependents(table).map(|entry| entry.dump_id).collect::<Vec<_>>(), [data]);
    assert_eq!(toc.closure([table]), HashSet::from([table, data]));
    let (schema, name) = toc.table_name(data).unwrap();
    assert!(*schema == "public" && *name == "t1");
    assert!(toc.find_table("public", "T1").is_none() && toc.table_name(id(1)).is_none());
}

#[test]
fn block_positions_are_written_where_they_are_read() {
    let sample = Sample::ordinary();
    let toc = ArchiveToc::parse(&sample.bytes()).unwrap();
    let mut prefix = sample.toc_bytes();
    set_block_positions(&mut prefix, &toc, [(id(102), 0x0102_0304_0506)]).unwrap();
    let located = ArchiveToc::parse(&prefix).unwrap();
    assert_eq!(located.find(id(102)).unwrap().data, DataPosition::At(0x0102_0304_0506));
    assert_eq!(located.find(id(101)).unwrap().data, DataPosition::Unknown);
    assert!(set_block_positions(&mut prefix, &toc, [(id(11), 5)]).is_err());
    assert!(set_block_positions(&mut prefix[1..], &toc, [(id(102), 5)]).is_err());
}

proptest! {
    #[test]
    fn flipped_bytes_and_noise_never_panic(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = Sample::ordinary().toc_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        drop(ArchiveToc::parse(&bytes));
        bytes.truncate(at);
        bytes.extend(noise);
        drop(ArchiveToc::parse(&bytes));
    }
}
