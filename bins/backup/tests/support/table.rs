//! Tables of bad input: what is wrong, what is run, how it ends, what it says, and that nothing changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Bench, files};

/// The kinds of bad input. Each is told of in words that fit no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    UnreachableServer,
    Password,
    MissingDatabase,
    MissingClient,
    OldClient,
    Unwritable,
    NoRepository,
    NewerRepository,
    OtherKey,
    NoKey,
    CutManifest,
    OtherStanza,
    FullDisk,
    TargetExists,
    TargetFilled,
    TargetInUse,
    UnknownKey,
    BadUrl,
    BadRetention,
    Clock,
    /// Anything else.
    Other,
}

/// Ways of saying what to do; every refusal has one.
const REMEDIES: [&str; 6] = ["\nhint: ", "did you mean", "write ", "try '--help'", "it must be", "→ "];

/// One case.
pub struct Row<W> {
    kind: Wrong,
    case: &'static str,
    run: String,
    arrange: fn(&mut Bench, &W),
    exit: i32,
    says: String,
}

impl<W> Row<W> {
    /// A case: what is wrong, in words, and program with arguments.
    pub fn new(kind: Wrong, case: &'static str, run: impl Into<String>) -> Self {
        Self { kind, case, run: run.into(), arrange: |_, _| {}, exit: 0, says: String::new() }
    }

    /// What makes it so.
    pub fn given(self, arrange: fn(&mut Bench, &W)) -> Self {
        Self { arrange, ..self }
    }

    /// How it has to end, and all it says, stdout before stderr; `…` stands for anything. Ports are PORT, sets SET, the
    /// folder HERE.
    pub fn ends(self, exit: i32, says: impl Into<String>) -> Self {
        Self { exit, says: says.into(), ..self }
    }

    /// What it stands for.
    pub fn tried(&self) -> Tried {
        Tried {
            kind: self.kind,
            case: self.case,
            program: self.run.split(' ').next().unwrap_or_default().to_owned(),
            helps: !self.says.contains("error: ") || REMEDIES.iter().any(|remedy| self.says.contains(remedy)),
        }
    }
}

/// What a row stands for, whatever its world.
#[derive(Debug)]
pub struct Tried {
    kind: Wrong,
    case: &'static str,
    program: String,
    helps: bool,
}

/// What the cases of a table happen in.
pub trait World {
    /// A folder of its own with copies of the prepared repositories.
    fn bench(&self) -> Bench;

    /// What lies outside of the folder (databases, buckets), in any form that changes when it does.
    fn outside(&self) -> String;

    /// Replaces what differs from run to run.
    fn redact(&self, text: String) -> String;
}

/// What a case said, for the comparison with those of other kinds.
struct Said {
    kind: Wrong,
    name: String,
    pattern: String,
    text: String,
}

/// What all cases of this process said.
static SAID: Mutex<Vec<Said>> = Mutex::new(Vec::new());

/// Runs every row and tells of all that are wrong.
pub fn check<W: World>(world: &W, rows: &[Row<W>]) {
    let mut wrong = String::new();
    for row in rows {
        let name = format!("{}: {}", row.case, row.run);
        match try_row(world, row) {
            Err(problem) => write!(wrong, "\n=== {name}\n{problem}\n").unwrap(),
            Ok(text) if row.exit != 0 => {
                let said = Said { kind: row.kind, name, pattern: row.says.clone(), text };
                wrong += &confused(said);
            }
            Ok(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Cases of another kind that speak in the same words; whichever of two is run later finds out.
fn confused(new: Said) -> String {
    let mut all = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let alike = |old: &&Said| {
        old.kind != new.kind && (fits(&old.pattern, &new.text) || fits(&new.pattern, &old.text))
    };
    let found: Vec<String> = all.iter().filter(alike).map(|old| old.name.clone()).collect();
    let words = found.iter().map(|old| format!("\n=== {}\nspeaks like {old}\n{}\n", new.name, new.text));
    let words = words.collect();
    all.push(new);
    words
}

/// Asserts that every kind was tried on every program named, and that every refusal that is expected says what to do.
pub fn check_coverage(tried: &[Tried], needed: &[(Wrong, &[&str])]) {
    let present: BTreeSet<(Wrong, &str)> =
        tried.iter().map(|tried| (tried.kind, tried.program.as_str())).collect();
    let wanted = needed.iter().flat_map(|(kind, programs)| programs.iter().map(move |name| (*kind, *name)));
    let missing: Vec<_> = wanted.filter(|pair| !present.contains(pair)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    let helpless: Vec<_> = tried.iter().filter(|tried| !tried.helps).collect();
    assert!(helpless.is_empty(), "no word on what to do: {helpless:#?}");
}

fn try_row<W: World>(world: &W, row: &Row<W>) -> Result<String, String> {
    let mut bench = world.bench();
    (row.arrange)(&mut bench, world);
    let before = (contents(&bench.path("")), world.outside());
    let words: Vec<&str> = row.run.split(' ').collect();
    let ended = bench.run(words[0], &words[1..]);
    let after = (contents(&bench.path("")), world.outside());
    let here = bench.path("").display().to_string();
    let said = world.redact((ended.stdout + &ended.stderr).replace(here.trim_end_matches('/'), "HERE"));
    let said = said.trim_end().to_owned();
    let mut problem = String::new();
    if ended.code != row.exit {
        writeln!(problem, "ends with {} instead of {}", ended.code, row.exit).unwrap();
    }
    if !fits(&row.says, &said) {
        write!(problem, "--- says\n{said}\n--- instead of\n{}\n", row.says).unwrap();
    }
    if before != after {
        let (before, after) = (describe(&before), describe(&after));
        write!(problem, "--- before\n{before}\n--- after\n{after}\n").unwrap();
    }
    if problem.is_empty() { Ok(said) } else { Err(problem) }
}

/// Every file and its content; leases come and go, and checks keep what they find beside the sets.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let passing = |part: &OsStr| part == "leases" || part == "proofs";
    let of_data = |path: &PathBuf| !path.components().any(|part| passing(part.as_os_str()));
    let all = files(folder).into_iter().filter(of_data);
    all.map(|path| (path.clone(), std::fs::read(path).unwrap_or_default())).collect()
}

fn describe((files, outside): &(BTreeMap<PathBuf, Vec<u8>>, String)) -> String {
    let files = files.iter().map(|(path, bytes)| format!("{} ({} bytes)", path.display(), bytes.len()));
    format!("{}\n{outside}", files.collect::<Vec<_>>().join("\n"))
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
