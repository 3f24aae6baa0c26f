//! Where segments begin and end, and what the next process makes of them.

use std::path::Path;

use super::super::begin::begin_from;
use super::super::facts::Queue;
use super::super::spool::Contents;
use super::super::tests::{contents, id, patient, pieces, receive, set};
use super::*;
use crate::archive::Coverage;

/// A value that is longer than a segment may be, between two short ones.
fn stream() -> (Vec<u8>, [u64; 4]) {
    let long = format!("*3\r\n$3\r\nSET\r\n$4\r\nlong\r\n$9000\r\n{}\r\n", letters(9000)).into_bytes();
    let stream = [set(0), long.clone(), set(1)].concat();
    let begin = set(0).len() as u64;
    (stream.clone(), [0, begin, begin + long.len() as u64, stream.len() as u64])
}

/// So many letters of which no piece looks like another.
fn letters(count: usize) -> String {
    (0..count).map(|at| char::from(b'a' + (at * at / 7 % 26) as u8)).collect()
}

fn within() -> CutPolicy {
    CutPolicy { bytes: 1000, at_most: 2000, ..patient() }
}

/// What a process that was killed after so many pieces leaves.
async fn killed(root: &Path, taken: usize) -> (Spool, Contents) {
    let folder = root.join(taken.to_string());
    let mut pieces = pieces(0, &stream().0, 500);
    pieces.truncate(taken);
    receive(&folder, within(), pieces, true).await;
    contents(&folder.with_extension("killed"))
}

/// Asserts that every file holds the bytes of the place that it claims.
fn assert_in_place(contents: &Contents, stream: &[u8]) {
    let place = |span: Span| &stream[span.start.0 as usize..span.end.0 as usize];
    for closed in &contents.closed {
        assert!(closed.read().unwrap() == place(closed.name.span), "{}", closed.name);
    }
    if let Some(open) = &contents.open {
        assert!(open.read_from(open.span.start).unwrap() == place(open.span), "{}", open.span);
    }
}

/// Each file knows where it lies, and what comes next is asked for from where that command began.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_within_a_long_command_leaves_files_that_know_their_place() {
    let root = tempfile::tempdir().unwrap();
    let (stream, places) = stream();
    for taken in 2..=pieces(0, &stream, 500).len() {
        let (spool, mut contents) = killed(root.path(), taken).await;
        assert_in_place(&contents, &stream);
        let spans =
            contents.closed.iter().map(|it| it.name.span).chain(contents.open.iter().map(|it| it.span));
        let there = Coverage::of(spans).reach(Offset(0));
        let expected = places.into_iter().rfind(|place| *place <= there.0).unwrap();
        let known = begin_from(&contents).known.map(|(known, _)| known);
        let shared = Shared::new(Queue::default());
        let open = contents.open.take();
        let mut segmenter = Segmenter::new(Arc::new(spool), shared, within(), 1 << 30);
        let adopted = open.and_then(|open| segmenter.adopt(open).unwrap()).map(|(position, _)| position);
        let next = Some(Position::new(id('a'), Offset(expected)));
        assert_eq!(adopted.or(known), next, "{there} bytes are there");
    }
}

/// Everything is there in the end, once: what is within that command comes again, under the same names.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_such_a_death_is_the_same_stream() {
    let root = tempfile::tempdir().unwrap();
    let (stream, [_, begin, ..]) = stream();
    for (taken, within_it) in [(6, 0), (11, 1), (17, 3)] {
        let (spool, mut before) = killed(root.path(), taken).await;
        let (folder, found) = (spool.folder().to_owned(), begin_from(&before));
        assert_eq!((found.known.unwrap().0.offset, found.again.len()), (Offset(begin), within_it));
        spool.forget_segments(&mut before, &found.again).unwrap();
        assert_eq!(spool.contents().unwrap().closed, before.closed);
        drop((spool, before));
        let mut rest = pieces(begin, &stream[begin as usize..], 500);
        if let Piece::Stream { anew, .. } = &mut rest[0] {
            *anew = None;
        }
        receive(&folder, within(), rest, false).await;
        let (_, contents) = contents(&folder);
        assert_in_place(&contents, &stream);
        let all = Coverage::of(contents.closed.iter().map(|closed| closed.name.span));
        assert_eq!(all.runs(), [Span::new(0, stream.len() as u64)]);
        // Once more, within what came again.
        let found = begin_from(&contents);
        assert_eq!(found.known.unwrap().0, Position::new(id('a'), Offset(stream.len() as u64)));
    }
}

/// The first command behind a snapshot is one that never ended; and a gap lies before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_command_behind_a_snapshot_begins_where_the_snapshot_ends() {
    let root = tempfile::tempdir().unwrap();
    let (stream, [_, begin, ..]) = stream();
    let folder = root.path().join("spool");
    let mut long = pieces(begin, &stream[begin as usize..], 500);
    long.truncate(14);
    receive(&folder, within(), long, true).await;
    let (spool, mut contents) = contents(&folder.with_extension("killed"));
    assert!(contents.closed.len() > 2 && contents.open.is_none());
    let found = begin_from(&contents);
    assert_eq!(found.known.unwrap().0, Position::new(id('a'), Offset(begin)));
    assert_eq!(found.again.len(), contents.closed.len());
    contents.closed.remove(1);
    assert!(begin_from(&contents).known.is_none(), "nobody knows what holds behind a gap");
    drop(spool);
}
