//! Undoes a FLUSHALL from another service: plan, restore, receipt. The server must be stopped.
//!
//! `cargo run -p backstay-examples --bin redis_to_moment -- ./backups /var/lib/redis /etc/redis/redis.conf`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_redis_ops::restore::{
    CommandSearch, RestoreOptions, RestoreRequest, RestoreTarget, ServerConfiguration, ServerProgram,
    TtlPolicy, plan_restore,
};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, directory, configuration] = arguments.as_slice() else {
        return Err("usage: redis_to_moment REPOSITORY DATA_DIRECTORY CONFIGURATION_FILE".into());
    };
    let store = Arc::new(LocalStore::open(folder.into())?);
    let repository = Repository::open("local", store).await?;
    let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock))?;
    let catalog = Catalog::load(&repositories, &Stanza::parse("main")?).await?;

    // Reads only: which command, which snapshot, where it ends, what is behind that.
    let request = RestoreRequest::new(RestoreTarget::Before(CommandSearch::new("FLUSHALL")?));
    let options = RestoreOptions::new(directory, ServerConfiguration::read(Path::new(configuration))?)
        .program(ServerProgram::find(None, None).await.ok())
        .ttl(TtlPolicy::Shift);
    let none = Identities::none();
    let plan = Box::pin(plan_restore(&repositories, &catalog, &none, &request, &options)).await?;
    println!("snapshot {}, ends at offset {}, the state of {}", plan.set, plan.end.offset, plan.time);

    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let receipt = Box::pin(plan.apply(&repositories, &none, &progress, &cancel)).await?;
    println!("{} commands replayed behind the snapshot after {:.1} s", receipt.commands, receipt.rto_seconds);
    // Start the server now, and let `receipt.judge` compare what it has.
    Ok(())
}
