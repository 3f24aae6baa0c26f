//! Tables of bad input: what is wrong, what is run, how it ends, what it says, and that nothing changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{Bench, files};

/// One case.
pub struct Row<W> {
    /// What is wrong, in words.
    pub wrong: &'static str,
    /// Makes it so.
    pub arrange: fn(&mut Bench, &W),
    /// Program and arguments.
    pub run: &'static str,
    /// How it has to end.
    pub exit: i32,
    /// All it says, stdout before stderr; `…` stands for anything. Ports are PORT, sets SET, the folder HERE.
    pub says: &'static str,
}

/// What the cases of a table happen in.
pub trait World {
    /// A folder of its own with copies of the prepared repositories.
    fn bench(&self) -> Bench;

    /// The databases with their content, in any form that changes when they do.
    fn databases(&self) -> String;

    /// Replaces what differs from run to run.
    fn redact(&self, text: String) -> String;
}

/// Runs every row and tells of all that are wrong.
pub fn check<W: World>(world: &W, rows: &[Row<W>]) {
    let mut wrong = String::new();
    for row in rows {
        if let Err(problem) = try_row(world, row) {
            write!(wrong, "\n=== {}: {}\n{problem}\n", row.wrong, row.run).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn try_row<W: World>(world: &W, row: &Row<W>) -> Result<(), String> {
    let mut bench = world.bench();
    (row.arrange)(&mut bench, world);
    let before = (contents(&bench.path("")), world.databases());
    let words: Vec<&str> = row.run.split(' ').collect();
    let ended = bench.run(words[0], &words[1..]);
    let after = (contents(&bench.path("")), world.databases());
    let here = bench.path("").display().to_string();
    let said = world.redact((ended.stdout + &ended.stderr).replace(here.trim_end_matches('/'), "HERE"));
    let mut problem = String::new();
    if ended.code != row.exit {
        writeln!(problem, "ends with {} instead of {}", ended.code, row.exit).unwrap();
    }
    if !fits(row.says, said.trim_end()) {
        write!(problem, "--- says\n{said}--- instead of\n{}\n", row.says).unwrap();
    }
    if before != after {
        let (before, after) = (describe(&before), describe(&after));
        write!(problem, "--- before\n{before}\n--- after\n{after}\n").unwrap();
    }
    if problem.is_empty() { Ok(()) } else { Err(problem) }
}

/// Every file and its content; leases come and go, and checks keep what they find beside the sets.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let passing = |part: &OsStr| part == "leases" || part == "proofs";
    let of_data = |path: &PathBuf| !path.components().any(|part| passing(part.as_os_str()));
    let all = files(folder).into_iter().filter(of_data);
    all.map(|path| (path.clone(), std::fs::read(path).unwrap_or_default())).collect()
}

fn describe((files, databases): &(BTreeMap<PathBuf, Vec<u8>>, String)) -> String {
    let files = files.iter().map(|(path, bytes)| format!("{} ({} bytes)", path.display(), bytes.len()));
    format!("{}\n{databases}", files.collect::<Vec<_>>().join("\n"))
}

/// Whether a text is a pattern in which `…` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
        last = Some(piece);
    }
    rest.is_empty() || last.is_some_and(|piece| piece.is_empty() || text.ends_with(piece))
}
