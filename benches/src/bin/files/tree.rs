//! A tree of source code: crates of the registry's cache, in a seeded order.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

const SEED: u64 = 11;
/// Largest crate that is taken, so that no single one is a tenth of the tree.
const LARGEST: u64 = 60_000_000;

/// Makes the tree, unless it is there; returns how many files and bytes it has. Where the cache has too few crates, they are
/// taken again with a line of their own in each file, so that no two files are the same.
///
/// # Panics
/// When there is no cache, or it cannot be copied.
pub(crate) fn make(folder: &Path, files: usize, bytes: u64) -> (usize, u64) {
    let mark = folder.with_extension("made");
    if mark.exists() {
        return count(folder);
    }
    fs::create_dir_all(folder).expect("a folder for the tree");
    let mut crates = crates();
    assert!(!crates.is_empty(), "cargo has no crates in its cache");
    crates.shuffle(&mut StdRng::seed_from_u64(SEED));
    let mut total = (0, 0);
    for copy in 0..20 {
        for source in &crates {
            if total.0 >= files || total.1 >= bytes {
                fs::File::create(&mark).expect("a mark beside the tree");
                return total;
            }
            if count(source).1 <= LARGEST {
                let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let made = copy_tree(source, &folder.join(format!("{copy}/{name}")), copy);
                total = (total.0 + made.0, total.1 + made.1);
            }
        }
    }
    panic!("the crates in cargo's cache are too small for such a tree");
}

/// Every crate that cargo unpacked.
fn crates() -> Vec<PathBuf> {
    let home = std::env::home_dir().unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let entries =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> =
        entries(&cargo.join("registry/src")).flat_map(|registry| entries(&registry)).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

fn copy_tree(from: &Path, to: &Path, copy: usize) -> (usize, u64) {
    fs::create_dir_all(to).expect("a folder of the tree");
    let mut total = (0, 0);
    for entry in fs::read_dir(from).expect("a folder of a crate").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("the kind of an entry");
        if kind.is_dir() {
            let made = copy_tree(&from, &to, copy);
            total = (total.0 + made.0, total.1 + made.1);
        } else if kind.is_file() {
            let mut content = fs::read(&from).expect("a file of a crate");
            if copy > 0 {
                let _ = writeln!(content, "// copy {copy}");
            }
            fs::write(&to, &content).expect("a file of the tree");
            total = (total.0 + 1, total.1 + content.len() as u64);
        }
    }
    total
}

fn count(folder: &Path) -> (usize, u64) {
    let mut total = (0, 0);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(facts) = entry.metadata() else { continue };
        let below = if facts.is_dir() { count(&entry.path()) } else { (1, facts.len()) };
        total = (total.0 + below.0, total.1 + below.1);
    }
    total
}
