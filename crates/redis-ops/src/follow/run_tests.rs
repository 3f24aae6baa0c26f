//! What a process makes of what it finds.

use backstay_backup_core::manifest::SetKind;

use super::super::tests::{contents, id, patient, pieces, receive};
use super::*;
use crate::source::Source;

/// They might have the names of those that come, and one file would wait twice.
#[tokio::test(flavor = "multi_thread")]
async fn segments_within_a_command_that_comes_again_are_gone_before_it_does() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    let long = format!("*3\r\n$3\r\nSET\r\n$4\r\nlong\r\n$9000\r\n{}\r\n", "x".repeat(9000)).into_bytes();
    let policy = CutPolicy { bytes: 1000, at_most: 2000, ..patient() };
    let mut half = pieces(7, &long, 500);
    half.truncate(14);
    receive(&folder, policy, half, true).await;
    let (spool, found) = contents(&folder.with_extension("killed"));
    let begin = begin_from(&found);
    let again: Vec<_> = found.closed.iter().map(|closed| closed.path.clone()).collect();
    assert!(again.len() > 2 && again.iter().all(|path| path.exists()));
    let stanza = Stanza::parse("shop").unwrap();
    let set = SetSpec::new(SetKind::new("redis-snapshot"), stanza.clone(), "test");
    let options = FollowOptions::new(spool.folder(), set, LeaseOptions::new("test"));
    let (access, never, spool) =
        (Access::new(Source::new(Vec::new())), CancellationToken::new(), Arc::new(spool));
    let made = Parts::new(&access, stanza, StreamId::default(), &options, spool, found, &begin, &never);
    let (parts, _, known) = made.unwrap();
    assert_eq!(known.unwrap().0, Position::new(id('a'), Offset(7)));
    assert!(parts.shared.queue().is_idle() && again.iter().all(|path| !path.exists()));
}
