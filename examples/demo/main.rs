//! The demonstration of `make demo`: a database is backed up, changed, destroyed, restored and proven equal; one byte
//! of a copy is damaged and noticed. Everything happens in scratch folders and on loopback.
#![expect(clippy::print_stdout, reason = "a demonstration shows what it does")]

mod stage;

use std::error::Error;

use backstay_testkit::SampleSize;
use clap::{Parser, ValueEnum};
use jiff::Timestamp;
use stage::Stage;

/// Backs up a scratch database, destroys it, restores it, proves that it is equal, and damages a copy.
#[derive(Debug, Parser)]
struct Args {
    /// Where the backup goes
    #[arg(long, value_enum, default_value_t = Store::Local)]
    store: Store,
    /// Customers of the sample shop
    #[arg(long, default_value_t = 50_000)]
    accounts: u64,
    /// Orders, in partitions
    #[arg(long, default_value_t = 300_000)]
    orders: u64,
    /// JSON documents
    #[arg(long, default_value_t = 20_000)]
    documents: u64,
    /// Large objects
    #[arg(long, default_value_t = 200)]
    large_objects: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Store {
    Local,
    S3,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let size = SampleSize::default()
        .accounts(args.accounts)
        .orders(args.orders)
        .documents(args.documents)
        .large_objects(args.large_objects);
    say("starting a scratch PostgreSQL server and filling a shop");
    let stage = Stage::set(args.store == Store::S3, size).await?;
    println!("    {}", stage.describe()?);

    say("backing it up");
    let backup = stage.backup().await?;
    let manifest = &backup.receipt.manifest;
    println!("    set {}, {} facts to compare later", manifest.set, backup.facts.tables.len());

    say("the accident: an UPDATE without WHERE, then DROP DATABASE");
    let lost = Timestamp::now().duration_since(manifest.recovery_point);
    stage.accident()?;

    say("restoring it");
    let receipt = stage.restore(manifest).await?;
    let comparison = &receipt.comparison;
    println!("    {} facts equal, {} rows compared by content", comparison.compared, comparison.rows);

    say("flipping one bit of a copy of the repository");
    let caught = stage.damage(manifest).await?;
    println!("    refused: {caught}");

    println!();
    row("database", &megabytes(backup.facts.database.size));
    row("dump", &megabytes(manifest.plain_size()));
    row(
        "stored",
        &format!("{} in {}", megabytes(manifest.stored_size()), backup.receipt.stored_in.join(", ")),
    );
    row("backup", &format!("{:.1} s", backup.elapsed.as_secs_f64()));
    row("RPO", &format!("{:.1} s from the snapshot to the accident", lost.as_secs_f64()));
    row("RTO", &format!("{:.1} s", receipt.rto_seconds));
    for phase in &receipt.phases {
        row(&format!("  {}", phase.name), &format!("{:.1} s", phase.seconds));
    }
    row("verdict", if comparison.is_equal() { "equal, fact by fact" } else { "NOT EQUAL" });
    stage.strike().await;
    if comparison.is_equal() { Ok(()) } else { Err("the restored database differs".into()) }
}

fn say(what: &str) {
    println!("==> {what}");
}

fn row(name: &str, value: &str) {
    println!("  {name:<14} {value}");
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
