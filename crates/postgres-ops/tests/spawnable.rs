//! Operations of the library can run as tasks of a service: their futures can move between threads. Checked by the
//! compiler; nothing runs.
#![allow(dead_code, missing_docs)]

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::config::TimeSpan;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::verify::Depth;
use backstay_postgres_ops::recovery::{
    BaseBackup, RecoveryRequest, WalPrunePlan, check_wal, cluster_statuses, plan_recovery, plan_wal_prune,
};
use backstay_postgres_ops::wal_archive::{WalArchive, WalSurvey, survey_stanza};
use backstay_postgres_ops::{
    DumpOptions, RestoreOptions, Server, ThrowawayOptions, backup_database, plan_backup, plan_restore,
    restore_database, test_restore,
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

fn task<T: Send>(_: T) {}

fn backup(server: &Server, repositories: &Repositories, options: &DumpOptions) {
    task(plan_backup(server, options));
    task(backup_database(server, repositories, options, &Progress::new(), &CancellationToken::new()));
}

fn restore(server: &Server, repositories: &Repositories, manifest: &Manifest, options: &RestoreOptions) {
    let (progress, cancel, none) = (Progress::new(), CancellationToken::new(), Identities::none());
    task(plan_restore(server, manifest, options));
    task(restore_database(server, repositories, manifest, &none, options, &progress, &cancel));
}

fn proof(repositories: &Repositories, manifest: &Manifest, throwaway: &ThrowawayOptions) {
    let (progress, cancel, none) = (Progress::new(), CancellationToken::new(), Identities::none());
    task(test_restore(repositories, manifest, &none, &[], throwaway, &progress, &cancel));
}

fn wal(archive: &WalArchive, request: &RecoveryRequest, base: &BaseBackup, survey: &WalSurvey) {
    let none = Identities::none();
    task(archive.survey(&none));
    task(plan_recovery(archive, &none, request, std::slice::from_ref(base), survey));
    task(check_wal(archive, base, survey, Depth::Full, &none));
}

fn wal_of_a_stanza(repositories: &Repositories, catalog: &Catalog, plan: &WalPrunePlan, span: TimeSpan) {
    let none = Identities::none();
    task(survey_stanza(repositories, &catalog.stanza, &none));
    task(cluster_statuses(repositories, &catalog.stanza, catalog, &none, Timestamp::UNIX_EPOCH));
    task(plan_wal_prune(repositories, catalog, None, span));
    task(plan.apply(repositories, span, &CancellationToken::new()));
}

#[test]
fn futures_can_move_between_threads() {
    // That this file compiles is the proof.
}
