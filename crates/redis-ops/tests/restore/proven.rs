//! Restore tests: a snapshot is loaded by a throwaway server, and every fact compared.

use std::path::Path;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::SetId;
use backstay_backup_core::progress::Progress;
use backstay_redis_ops::archive::Position;
use backstay_redis_ops::restore::{
    RestoreError, RestoreTestOptions, RestoreTestReport, ServerProgram, test_restore,
};
use tokio_util::sync::CancellationToken;

use crate::recorder::Recorder;
use crate::workload::Workload;
use crate::world::{PROGRAM, World, ask, connect, facts, server};

async fn tested(world: &World, set: &SetId) -> Result<RestoreTestReport, RestoreError> {
    let program = ServerProgram::find(Some(Path::new(PROGRAM)), None).await.unwrap();
    let scratch = world.folder.path().join("scratch");
    std::fs::create_dir_all(&scratch).unwrap();
    let options = RestoreTestOptions::new(program, &scratch);
    let catalog = Catalog::load(&world.repositories, &world.stanza).await.unwrap();
    let (none, progress, cancel) = (Identities::none(), Progress::new(), CancellationToken::new());
    let report = test_restore(&world.repositories, &catalog, set, &none, &options, &progress, &cancel).await;
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "nothing is left behind");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fact_of_a_good_set_is_found_again_and_a_wrong_one_is_not() {
    let world = World::new().await;
    let source = server(&[]).await;
    let mut connection = connect(&source).await;
    let mut workload = Workload::new(3, connection.clone()).await;
    for _ in 0..60 {
        workload.step().await;
    }
    let _: redis::Value = ask(&mut connection, "SELECT 0").await;
    let _: redis::Value = ask(&mut connection, "DEBUG SET-ACTIVE-EXPIRE 0").await;
    // One that will have expired when it is tested, and is in the snapshot.
    let _: redis::Value = ask(&mut connection, "SET short v PX 1").await;
    let recorder = Recorder::attach(&source);
    let set = world.set(&recorder).await.set;
    let report = tested(&world, &set).await.unwrap();
    assert!(report.passed(), "{report:?}");
    let facts_of = facts(&recorder.snapshot);
    assert_eq!(report.keys(), facts_of.keys());
    let proof = report.proof();
    assert!(proof.facts_compared > 2 && proof.differences.is_empty() && !proof.phases.is_empty());

    let mut wrong = facts_of;
    wrong.databases.get_mut(&0).unwrap().keys += 1;
    wrong.functions.push("other".to_owned());
    let position = Position::new(recorder.id, recorder.start);
    let set = world.set_of(recorder.snapshot.clone(), wrong, position, recorder.taken).await.set;
    let report = tested(&world, &set).await.unwrap();
    assert!(!report.passed());
    let differences = report.proof().differences.join("\n");
    assert!(
        differences.contains("database 0: expected") && differences.contains("function libraries"),
        "{differences}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_no_server_loads_is_bad() {
    let world = World::new().await;
    let source = server(&[]).await;
    let mut connection = connect(&source).await;
    let _: redis::Value = ask(&mut connection, "SET key value").await;
    let recorder = Recorder::attach(&source);
    let mut spoilt = recorder.snapshot.clone();
    let at = spoilt.len() - 12;
    spoilt[at] ^= 1;
    // Stored like this, so that only a server can tell.
    let position = Position::new(recorder.id, recorder.start);
    let set = world.set_of(spoilt, facts(&recorder.snapshot), position, recorder.taken).await.set;
    let error = tested(&world, &set).await.unwrap_err();
    assert!(matches!(error, RestoreError::Server { .. }), "{error}");
    assert!(error.to_string().contains("while it loaded the data"), "{error}");
}
