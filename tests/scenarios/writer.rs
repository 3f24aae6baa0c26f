//! The whole writing side with a role that may create and read, and nothing else (P2).

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::hold;
use backstay_backup_core::lease::{Lease, LeaseOptions};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::proof::{Proof, ProofKind};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::store::{Attributes, PutMode};
use backstay_postgres_ops::{DumpOptions, backup_database};
use backstay_testkit::s3::{AccessRecord, Effect, FaultRule, Faults, S3Server};
use tokio_util::sync::CancellationToken;

use crate::s3_faults::{ADMIN, THREE_PARTS, WRITER, in_parts, s3_server, store};
use crate::scene::{Scene, catalog, open, retrying, stanza, words};

async fn as_writer(server: &S3Server) -> Repositories {
    open(retrying(store(server, "here", WRITER).await)).await.unwrap()
}

/// What must not be in the log of a writer.
fn offences(server: &S3Server) -> Vec<AccessRecord> {
    assert_eq!(server.access_log_dropped(), 0);
    let is_lease = |record: &AccessRecord| record.key.as_deref().is_some_and(|key| key.contains("/leases/"));
    let log = server.access_log().into_iter();
    log.filter(|record| {
        record.is_denied()
            || record.operation.starts_with("Delete")
            || (record.overwrote && !is_lease(record))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_writer_does_works_without_delete_and_without_overwriting() {
    let scene = Scene::start(THREE_PARTS).await;
    let server = s3_server().await;
    let repositories = as_writer(&server).await;
    let repository = &repositories.members()[0];

    let lease =
        Lease::acquire(repository, &stanza(), "backup", &LeaseOptions::new("scenario")).await.unwrap();
    let large = scene.backup(&repositories, &in_parts()).await.unwrap();
    lease.renew().await.unwrap();
    let parallel =
        scene.backup(&repositories, &DumpOptions::new(stanza()).jobs(2).digests(true)).await.unwrap();
    lease.check().await.unwrap();
    lease.release().await.unwrap();
    let next = Lease::acquire(repository, &stanza(), "backup", &LeaseOptions::new("next")).await.unwrap();
    next.release().await.unwrap();

    let found = catalog(&repositories).await;
    assert_eq!(found.sets.len(), 2);
    let newest = &parallel.receipt.manifest.set;
    hold::place(&repositories, &stanza(), newest, "audit").await.unwrap();
    hold::release(&repositories, &stanza(), newest, "over").await.unwrap();
    hold::place(&repositories, &stanza(), newest, "another audit").await.unwrap();
    for kind in ProofKind::ALL {
        let now = repositories.clock().now();
        let proof = Proof::new(kind, stanza(), newest.clone(), "scenario", now, true);
        proof.store(repository).await.unwrap();
    }
    let found = catalog(&repositories).await;
    assert_eq!(found.by_id(newest.as_str()).unwrap().held.as_deref(), Some("another audit"));
    assert_eq!(found.by_id(newest.as_str()).unwrap().copies[0].proofs.newest.len(), 3);
    for report in [&large, &parallel] {
        let receipt = scene.restore(&repositories, &report.receipt.manifest, "again").await.unwrap();
        assert!(receipt.comparison.is_equal());
    }

    let log = server.access_log();
    assert!(log.iter().all(|record| record.access_key.as_deref() == Some(WRITER.0)));
    for operation in
        ["PutObject", "UploadPart", "CompleteMultipartUpload", "GetObject", "HeadObject", "ListObjectsV2"]
    {
        assert!(log.iter().any(|record| record.operation == operation), "{operation} was not needed");
    }
    assert_eq!(offences(&server), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_fails_or_is_stopped_cleans_up_within_its_rights() {
    let scene = Scene::start(THREE_PARTS).await;
    let server = s3_server().await;
    let repositories = as_writer(&server).await;

    let refused = Faults::default()
        .rule(FaultRule::on("UploadPart", Effect::Error { status: 507, code: "Full".into() }).nth(3));
    server.faults().set(refused);
    let error = scene.backup(&repositories, &in_parts()).await.unwrap_err();
    assert!(words(&error).contains("507") || words(&error).contains("Full"), "{}", words(&error));
    server.faults().set(Faults::default());

    let cancel = CancellationToken::new();
    let slow = FaultRule::on("UploadPart", Effect::Delay(std::time::Duration::from_secs(30))).from_nth(2);
    server.faults().set(Faults::default().rule(slow));
    let (from, progress, options) = (scene.server("source"), Progress::new(), in_parts());
    let backup = backup_database(&from, &repositories, &options, &progress, &cancel);
    let stop = async {
        while !server
            .access_log()
            .iter()
            .any(|record| record.operation == "UploadPart" && record.status == 200)
        {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(backup, stop);
    outcome.unwrap_err();
    server.faults().set(Faults::default());

    assert_eq!(offences(&server), []);
    assert!(catalog(&repositories).await.sets.is_empty());
    let everything = backstay_backup_core::key::Prefix::parse("main").unwrap();
    let uploads = repositories.members()[0].store().list_uploads(&everything).await.unwrap();
    assert_eq!(uploads, [], "aborting is a writer's right");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_is_as_narrow_as_it_claims() {
    let server = s3_server().await;
    let repositories = as_writer(&server).await;
    let store = repositories.members()[0].store();
    let key = backstay_backup_core::repository::layout::description();
    store.delete(&key).await.unwrap_err();
    let tag = store.head(&key).await.unwrap().etag.unwrap();
    let replaced = store.put(&key, "{}".into(), PutMode::Replace(tag), &Attributes::default()).await;
    replaced.unwrap_err();
    assert_eq!(offences(&server).len(), 2, "{:?}", offences(&server));
    open(crate::s3_faults::store(&server, "here", ADMIN).await).await.unwrap();
    let _ = Identities::none();
}
