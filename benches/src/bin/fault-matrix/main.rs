//! What becomes of a recovery when the archive lies: every fault with every recovery target, on a real server.
//!
//! A row of the table is a fault that hits one segment in the middle of the log: committed rows lie before and behind
//! it. A cell restores the base backup, lets PostgreSQL replay, and looks at which rows are there. **Silent loss**
//! means that every program reported success and committed rows are missing.
#![expect(clippy::print_stdout, reason = "a measuring program reports to its terminal")]

mod backstay;
mod cell;
mod endpoints;
mod fault;
mod history;
mod lab;
mod pgbackrest;
mod table;
mod tool;

use std::io::{self, Write as _};
use std::path::PathBuf;

use backstay_benches::PgBackRest;
use clap::Parser;

use cell::Verdict;
use fault::{FAULTS, Fault, Target};
use lab::Lab;
use tool::Tool;

/// Runs the matrix of faults; prints a Markdown table.
#[derive(Debug, Parser)]
struct Args {
    /// Tools: backstay, pgbackrest (the distribution's), newest-pgbackrest
    #[arg(long = "tool", default_values = ["backstay", "pgbackrest", "newest-pgbackrest"])]
    tools: Vec<String>,
    /// Only faults whose name contains this
    #[arg(long, default_value = "")]
    fault: String,
    /// Prints what the programs said, for every cell
    #[arg(long)]
    words: bool,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let faults: Vec<Fault> = FAULTS.into_iter().filter(|fault| fault.name.contains(&args.fault)).collect();
    let mut columns = Vec::new();
    for name in &args.tools {
        let Some(tool) = find(name) else {
            println!(
                "not here, so left out: {name} (scripts/setup.sh --pgbackrest; ours beside this program)\n"
            );
            continue;
        };
        let lab = Lab::open(&tool).await;
        columns.push((tool.name(), sweep(&lab, &tool, &faults, args.words)));
        lab.close().await;
    }
    println!("{}", table::markdown(&faults, &columns));
}

fn find(name: &str) -> Option<Tool> {
    match name {
        "backstay" => ours().map(Tool::Backstay),
        "pgbackrest" => PgBackRest::distribution().map(Tool::PgBackRest),
        "newest-pgbackrest" => PgBackRest::newest().map(Tool::PgBackRest),
        _ => panic!("no tool is called {name}"),
    }
}

/// The folder of this program, when ours are all in it.
fn ours() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?.to_path_buf();
    let all = ["archive-wal", "restore-wal", "backstay-wal", "backup-cluster", "restore-cluster"];
    all.iter().all(|name| folder.join(name).is_file()).then_some(folder)
}

fn sweep(lab: &Lab, tool: &Tool, faults: &[Fault], words: bool) -> Vec<Vec<Verdict>> {
    let mut rows = Vec::new();
    for fault in faults {
        let mut row = Vec::new();
        for target in Target::ALL {
            let verdict = cell::run(lab, tool, *fault, target);
            let shown = table::sentence(&verdict, words);
            // To watch; nobody reads it back.
            let _ = writeln!(io::stderr(), "{}: {}, {}: {shown}", tool.name(), fault.name, target.name());
            row.push(verdict);
        }
        rows.push(row);
    }
    rows
}
