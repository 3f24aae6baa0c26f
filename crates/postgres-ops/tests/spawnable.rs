//! Operations of the library can run as tasks of a service: their futures can move between threads. Checked by the
//! compiler; nothing runs.
#![allow(dead_code, missing_docs)]

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_postgres_ops::{
    DumpOptions, RestoreOptions, Server, ThrowawayOptions, backup_database, plan_backup, plan_restore,
    restore_database, test_restore,
};
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

#[test]
fn futures_can_move_between_threads() {
    // That this file compiles is the proof.
}
