//! When something is stored, and when it counts as durable.

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use tokio_util::sync::CancellationToken;

use super::super::tests::{id, patient, pieces, read_all, receive, set, uploader};
use super::*;
use crate::Offset;

/// An uploader of a spool with a few segments, and the bytes that are in it.
async fn waiting(root: &std::path::Path) -> (Uploader, Arc<Fault>, Vec<u8>) {
    let folder = root.join("spool");
    let stream: Vec<u8> = (0..100).flat_map(set).collect();
    let policy = super::super::decide::CutPolicy { bytes: 1000, ..patient() };
    receive(&folder, policy, pieces(0, &stream, 333), false).await;
    let (uploader, fault) = uploader(&folder).await;
    assert!(uploader.shared.queue().closed.len() > 1);
    (uploader, fault, stream)
}

fn ended() -> CancellationToken {
    let done = CancellationToken::new();
    done.cancel();
    done
}

/// A server forgets what it was told is durable, so nobody may be told before the repositories have it.
#[tokio::test]
async fn nothing_is_durable_before_the_repositories_have_it() {
    let root = tempfile::tempdir().unwrap();
    let (uploader, fault, stream) = waiting(root.path()).await;
    let (done, stop) = (ended(), CancellationToken::new());
    fault.always(Operation::Put, Mishap::Error(ErrorKind::Temporary));
    let mut facts = uploader.shared.watch();
    let refused = async {
        let failed = facts.wait_for(|facts| facts.store_problem.is_some()).await.unwrap().clone();
        assert_eq!((failed.durable, failed.segments, failed.stored_at), (None, 0, None));
        assert_eq!(failed.acknowledged(), Offset(0));
        assert_eq!(uploader.archive.survey().await.unwrap().all_segments().count(), 0);
        fault.calm();
    };
    let (stored, ()) = tokio::join!(uploader.run(&done, &stop), refused);
    stored.unwrap();
    let end = Offset(stream.len() as u64);
    assert_eq!(uploader.shared.get(|facts| facts.durable), Some(Position::new(id('a'), end)));
    assert_eq!(read_all(&uploader.archive, end.0).await, stream);
}

/// Another archiver may have it: two that store would write two histories of one stream.
#[tokio::test]
async fn nothing_is_stored_without_the_lease() {
    let root = tempfile::tempdir().unwrap();
    let (uploader, fault, stream) = waiting(root.path()).await;
    let (done, stop) = (ended(), CancellationToken::new());
    let puts = fault.count(Operation::Put);
    uploader.shared.change(|facts| facts.lease = false);
    tokio::time::pause();
    let running = tokio::time::timeout(Duration::from_secs(3600), uploader.run(&done, &stop)).await;
    assert!(running.is_err(), "it says that it has stored everything: {running:?}");
    assert_eq!(fault.count(Operation::Put), puts, "it was stored");
    assert_eq!(uploader.shared.get(|facts| facts.durable), None);
    uploader.shared.change(|facts| facts.lease = true);
    uploader.run(&done, &stop).await.unwrap();
    assert_eq!(read_all(&uploader.archive, stream.len() as u64).await, stream);
}
