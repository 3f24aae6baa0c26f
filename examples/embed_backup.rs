//! Backs up a database from another service, then proves the backup in a throwaway server.
//!
//! `cargo run -p backstay-examples --bin embed_backup -- postgresql://user:password@host/database ./backups`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_postgres_ops::{DumpOptions, Server, ThrowawayOptions, backup_database, test_restore};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, folder] = arguments.as_slice() else { return Err("usage: embed_backup URL FOLDER".into()) };

    let store = Arc::new(LocalStore::create(folder.into())?);
    let repository = Repository::open_or_create("local", store, &SystemClock).await?;
    let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock))?;

    let server = Server::parse(url, &BTreeMap::new())?;
    let options = DumpOptions::new(Stanza::parse("main")?).jobs(2).digests(true);
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let backup = backup_database(&server, &repositories, &options, &progress, &cancel).await?;
    let manifest = &backup.receipt.manifest;
    println!("set {}: {} tables, {} bytes", manifest.set, backup.facts.tables.len(), manifest.stored_size());

    let throwaway = ThrowawayOptions::new(backup.facts.client_major, std::env::temp_dir());
    let none = Identities::none();
    let test = test_restore(&repositories, manifest, &none, &[], &throwaway, &progress, &cancel).await?;
    let facts = test.receipt.comparison.compared;
    println!("restored in {:.1} s, {facts} facts equal", test.receipt.rto_seconds);
    Ok(())
}
