//! Operations of the library can run as tasks of a service: their futures can move between threads. Checked by the
//! compiler; nothing runs.
#![allow(dead_code, missing_docs)]

use backstay_backup_core::catalog::{Catalog, SetSummary};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::lease::{Lease, LeaseGroup, LeaseOptions};
use backstay_backup_core::prune::{PrunePlan, PrunePolicy, plan_prune};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetSpec, SetWriter};
use backstay_backup_core::verify::{VerifyOptions, VerifyReport, verify_set};
use tokio_util::sync::CancellationToken;

fn task<T: Send>(_: T) {}

fn reading(repositories: &Repositories, stanza: &Stanza, set: &SetSummary, options: &VerifyOptions) {
    task(Catalog::load(repositories, stanza));
    task(verify_set(repositories, stanza, set, options));
    task(repositories.manifest(stanza, &set.id));
}

fn writing(repositories: &Repositories, spec: SetSpec, set: SetWriter, contents: SetContents) {
    task(SetWriter::begin(repositories, spec, DataPath::default()));
    task(set.commit(contents));
}

fn proving(report: &VerifyReport, repositories: &Repositories) {
    task(report.store_proofs(repositories, "tool"));
}

fn pruning(plan: &PrunePlan, repositories: &Repositories, stanza: &Stanza, policy: &PrunePolicy) {
    task(plan_prune(repositories, stanza, policy));
    task(plan.apply(repositories, &CancellationToken::new()));
}

fn leasing(repository: &Repository, repositories: &Repositories, stanza: &Stanza, options: &LeaseOptions) {
    task(Lease::acquire(repository, stanza, "name", options));
    task(LeaseGroup::acquire(repositories, stanza, "name", options));
}

#[test]
fn futures_can_move_between_threads() {
    // That this file compiles is the proof.
}
