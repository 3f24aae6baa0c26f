//! Physical backup and restore beside the peers.
//!
//! One cluster of about 3 GB with page checksums, a server that archives its log, and variants that take turns. Every
//! run ends durable. Bars compare within a round, because the speed of a machine changes while one measures.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod backups;
mod chores;
mod judge;
mod lab;
mod restores;

use clap::{Parser, Subcommand};

use chores::Chore;
use lab::Lab;

/// Measures physical backup and restore; prints Markdown tables.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    chore: Option<Chores>,
    /// Rounds; every variant runs once in each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Size of the cluster in percent of about 3 GB.
    #[arg(long, default_value_t = 100)]
    percent: u64,
    /// Which tables to make: backup, s3, restore, delta
    #[arg(long, default_values = ["backup", "s3", "restore", "delta"])]
    part: Vec<String>,
    /// Only variants whose name contains one of these
    #[arg(long)]
    only: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Chores {
    /// What is done before a run; the benchmark starts this itself
    #[command(hide = true)]
    Chore(Chore),
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    if let Some(Chores::Chore(chore)) = &args.chore {
        return chores::run(chore).await;
    }
    let lab = Lab::open(args.percent, args.rounds, args.only).await;
    println!("{}; {} rounds\n", lab.describe(), args.rounds);
    let wants = |part: &str| args.part.iter().any(|wanted| wanted == part);
    if wants("backup") {
        println!("## backup\n\n{}\n", lab.backups());
    }
    if wants("s3") {
        println!("## backup to S3\n\n{}\n", lab.backups_to_s3());
    }
    if wants("restore") || wants("delta") {
        lab.prepare_restores();
    }
    if wants("restore") {
        println!("## restore\n\n{}\n", lab.restores());
    }
    if wants("delta") {
        println!("## delta restore\n\n{}\n", lab.deltas());
    }
    lab.close().await;
}
