//! Recovers a whole cluster to a moment from another service: plan, restore, start, receipt.
//!
//! `cargo run -p backstay-examples --bin pitr_to_time -- ./backups 2026-11-22T14:30:00Z /srv/pg/restored \
//!     'restore-wal %f %p --repository /srv/backups'`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::error::Error;
use std::sync::Arc;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_postgres_ops::ToolSearch;
use backstay_postgres_ops::cluster_restore::{
    ClusterRequest, ClusterRestoreOptions, Ending, StartOptions, plan_cluster_restore,
};
use backstay_postgres_ops::recovery::{RecoveryTarget, TimelineChoice};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, time, target, restore_command] = arguments.as_slice() else {
        return Err("usage: pitr_to_time REPOSITORY TIME DATA_DIRECTORY RESTORE_COMMAND".into());
    };
    let store = Arc::new(LocalStore::open(folder.into())?);
    let repository = Repository::open("local", store).await?;
    let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock))?;
    let catalog = Catalog::load(&repositories, &Stanza::parse("main")?).await?;

    // Reads only: which base backup, which WAL, where it ends, what is behind that. A time that cannot be reached is
    // an error here, with the nearest that can.
    let wanted = ClusterRequest::new(RecoveryTarget::time(time, true)?, TimelineChoice::Latest);
    let (options, none) = (ClusterRestoreOptions::new(target), Identities::none());
    let plan = plan_cluster_restore(&repositories, &catalog, &none, &wanted, &options).await?;
    let left_out = plan.recovery.loss.transactions.map_or("?".to_owned(), |count| count.to_string());
    println!(
        "set {}, ends at {}, {left_out} commits left out",
        plan.recovery.set, plan.recovery.expected_end
    );

    let start = StartOptions::new(ToolSearch::default()).setting("port", "5433");
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let settings = plan.settings(restore_command);
    let receipt =
        plan.apply(&repositories, &none, &settings, &Ending::Start(start), &progress, &cancel).await?;
    println!("{:?} after {:.1} s", receipt.outcome, receipt.rto_seconds);
    if !receipt.is_as_planned() {
        return Err(receipt.difference().unwrap_or_default().into());
    }
    Ok(())
}
