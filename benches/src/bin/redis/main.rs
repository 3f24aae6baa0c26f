//! Redis: snapshots beside `redis-cli --rdb` and the script that saves and copies, what an archiver costs the server that
//! it follows, and restores beside the server's own load.
//!
//! Everything ends durable (fsync). The server is the distribution's, the programs are those next to this one.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod data;
mod followers;
mod following;
mod load;
mod reader;
mod restores;
mod snapshots;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

/// Measures snapshots, archiving and restores of Redis; prints Markdown tables.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; every variant runs once in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Size of the data in percent of about 1 GB of memory.
    #[arg(long, default_value_t = 100)]
    percent: u64,
    /// Only these parts.
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Also the ways to take a snapshot that no bar compares.
    #[arg(long)]
    all: bool,
    /// Only servers that are archived in a place and under a load whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only follow the server on this port, as a replica that throws everything away.
    #[arg(long, hide = true)]
    follow: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Snapshots,
    Memory,
    Disturbance,
    Following,
    Restores,
}

/// The programs that are measured.
#[derive(Debug)]
pub(crate) struct Programs(PathBuf);

impl Programs {
    fn find() -> Self {
        let own = std::env::current_exe().expect("this program has a path");
        Self(own.parent().expect("and a folder").to_owned())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

/// Runs lines that have to succeed.
pub(crate) fn shell(lines: &str) {
    let status = Command::new("bash").args(["-e", "-o", "pipefail", "-c", lines]).status();
    assert!(status.is_ok_and(|status| status.success()), "failed: {lines}");
}

fn main() {
    let args = Args::parse();
    if let Some(port) = args.follow {
        return reader::follow(port);
    }
    let programs = Programs::find();
    let wanted = |part| args.part.is_empty() || args.part.contains(&part);
    let title = |name: &str| println!("\n## {name}, {} rounds\n", args.rounds);
    if wanted(Part::Snapshots) || wanted(Part::Disturbance) || wanted(Part::Restores) {
        let server = data::filled(args.percent);
        if wanted(Part::Snapshots) {
            title("Snapshots");
            println!("{}", snapshots::measure(&server, &programs, args.rounds, args.all));
        }
        if wanted(Part::Restores) {
            title("Restores");
            println!("{}", restores::measure(&server, &programs, args.rounds));
        }
        if wanted(Part::Disturbance) {
            title("Clients of a server that is backed up");
            println!("{}", snapshots::disturbance(&server, &programs, args.rounds));
        }
    }
    if wanted(Part::Memory) {
        title("Memory");
        println!("{}", snapshots::memory(&programs));
    }
    if wanted(Part::Following) {
        title("Clients of a server that is archived");
        println!("{}", following::measure(&programs, args.rounds, &args.only));
    }
}

/// Waits a minute at most.
pub(crate) fn until(problem: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{problem}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
