//! WAL push and get beside the peers, one command per segment as PostgreSQL calls it, and replay from S3.
//!
//! All ways take turns, round after round. Bars compare within a round, because the speed of a machine changes while
//! one measures.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod archiver;
mod bench;
mod replay;
mod segments;
mod ways;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use archiver::Play;

/// Measures WAL push, get and replay; prints Markdown tables.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    play: Option<Inner>,
    /// Rounds; every way runs once in each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Segments pushed and fetched in a run.
    #[arg(long, default_value_t = 60)]
    segments: usize,
    /// Which tables to make: push, push-s3, get, get-s3, replay
    #[arg(long, default_values = ["push", "push-s3", "get", "get-s3", "replay"])]
    part: Vec<String>,
    /// Only ways whose name contains one of these
    #[arg(long)]
    only: Vec<String>,
    /// A folder to keep the segments in, so that the next run need not make them
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// Plays PostgreSQL's archiver; the benchmark starts this itself
    #[command(hide = true)]
    Play(Play),
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    if let Some(Inner::Play(play)) = &args.play {
        return archiver::play(play);
    }
    let bench = bench::Bench::open(&args);
    println!("{} segments of 16 MiB, {} rounds\n", args.segments, args.rounds);
    let wants = |part: &str| args.part.iter().any(|wanted| wanted == part);
    for (part, s3) in [("push", false), ("push-s3", true)] {
        if wants(part) {
            println!("## {part}\n\n{}\n", bench.push(s3).await);
        }
    }
    for (part, s3) in [("get", false), ("get-s3", true)] {
        if wants(part) {
            println!("## {part}\n\n{}\n", bench.get(s3).await);
        }
    }
    if wants("replay") {
        println!("## replay\n\n{}\n", bench.replay().await);
    }
    Ok(())
}
