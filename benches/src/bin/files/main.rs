//! Backups of many files beside `tar | zstd`, restic and `tar -czf`, first and unchanged; code beside `git bundle`.
//!
//! Everything ends durable (fsync). The tree is source code of the crates that this build used; the page cache is warm. The
//! binaries are those next to this one.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod tree;
mod ways;

use std::path::PathBuf;

use backstay_benches::{Bar, Better, Measured, Variant, measure_rounds, table, verdicts};
use backstay_testkit::ScratchDir;
use clap::Parser;

use ways::Ways;

/// Nobody's number: no server takes part.
const NO_SERVER: u32 = u32::MAX;
/// Most memory of all processes of a run.
const MEMORY: f64 = (64 << 20) as f64;

/// Measures backups of files; prints Markdown tables.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; every variant runs once in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Files in the tree.
    #[arg(long, default_value_t = 30_000)]
    files: usize,
    /// Megabytes in the tree.
    #[arg(long, default_value_t = 500)]
    megabytes: u64,
    /// A folder to keep the tree in, so that the next run need not make it
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Which tables to make: first, slow, unchanged, changed, code
    #[arg(long, default_values = ["first", "slow", "unchanged", "changed", "code"])]
    part: Vec<String>,
}

fn main() {
    let args = Args::parse();
    let scratch = ScratchDir::create("bench", None).expect("a scratch folder");
    let folder = args.keep.clone().unwrap_or_else(|| scratch.path().join("tree"));
    let (files, bytes) = tree::make(&folder, args.files, args.megabytes * 1_000_000);
    println!("{files} files, {} MB; {} rounds\n", bytes / 1_000_000, args.rounds);
    let ways = Ways::new(&scratch, folder);
    for part in &args.part {
        let variants = match part.as_str() {
            "first" => ways.first(),
            "slow" => ways.slow(),
            "unchanged" => ways.unchanged(),
            "changed" => ways.changed(),
            "code" => ways.code(),
            other => panic!("there is no part {other}"),
        };
        let results = measure_rounds(&variants, args.rounds, NO_SERVER);
        println!("## {part}\n\n{}\n", table(&variants, &results, &[0]));
        let bars = bars(part, &variants, &results);
        if !bars.is_empty() {
            println!("{}\n", verdicts(&bars));
        }
    }
}

/// What ours may take of a peer's time, and of memory.
fn bars(part: &str, variants: &[Variant], results: &[Vec<Measured>]) -> Vec<Bar> {
    let limits: &[(&str, f64, f64)] = match part {
        "first" => &[("restic", 0.45, 0.4), ("tar \\| zstd -3 -T2", 1.1, 1.0)],
        "unchanged" => &[("restic", 0.3, 0.15)],
        _ => &[],
    };
    let mut bars = Vec::new();
    let ours = variants.iter().enumerate().filter(|(_, variant)| variant.name.starts_with("backup-config"));
    for (ours, variant) in ours {
        for (peer, wanted, aim) in limits {
            let theirs = variants.iter().position(|variant| variant.name.starts_with(peer));
            let ratio =
                |(ours, theirs): (&Measured, &Measured)| ours.wall.as_secs_f64() / theirs.wall.as_secs_f64();
            let ratios = theirs.map(|theirs| results[ours].iter().zip(&results[theirs]).map(ratio).collect());
            bars.push(bar(&variant.name, peer, ratios.unwrap_or_default(), *wanted, *aim));
        }
        if !limits.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "a ratio of sizes")]
            let share = |measured: &Measured| measured.together as f64 / MEMORY;
            let shares = results[ours].iter().map(share).collect();
            bars.push(bar(&format!("{}, memory", variant.name), "64 MiB", shares, 1.0, 0.7));
        }
    }
    bars
}

fn bar(name: &str, peer: &str, ratios: Vec<f64>, wanted: f64, aim: f64) -> Bar {
    Bar { name: name.to_owned(), peer: peer.to_owned(), ratios, better: Better::Less, wanted, aim }
}
