//! The look for secrets in what would not be encrypted: every file is read once more before any is stored.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use super::backup::ConfigOptions;
use crate::error::{Error, Finding};
use crate::files::Root;
use crate::scan::Scanner;
use crate::walk::{Found, Tree};

/// Files that a thread takes together.
const TOGETHER: usize = 64;
/// Most threads; each holds a file's mebibyte.
const MOST_THREADS: usize = 4;

/// Looks for secrets, unless nobody but the recipients will read the set.
pub(super) async fn find_secrets(
    tree: &Arc<Tree>,
    options: &ConfigOptions,
    cancel: &CancellationToken,
) -> Result<Vec<Finding>, Error> {
    if !options.recipients.is_empty() {
        return Ok(Vec::new());
    }
    let (tree, allow, cancel) = (tree.clone(), options.allow.clone(), cancel.clone());
    let looked = tokio::task::spawn_blocking(move || look(&tree.found, &Scanner::new(&allow)?, &cancel));
    looked.await.map_err(|error| Error::internal(&error))?
}

/// Looks into all files, several at a time; the findings are in the order of the files.
fn look(found: &[Found], scanner: &Scanner, cancel: &CancellationToken) -> Result<Vec<Finding>, Error> {
    let root = Path::new("/");
    let root = Root::open(root).map_err(|error| Error::io("open", root, error.into()))?;
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let looker = Looker { root, found, scanner, next, cancel };
    let parts = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| looker.run())).collect();
        running.into_iter().map(|thread| thread.join().expect("a look does not panic")).collect::<Vec<_>>()
    });
    let mut all = Vec::new();
    for part in parts {
        all.extend(part?);
    }
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().flat_map(|(_, findings)| findings).collect())
}

struct Looker<'a> {
    root: Root,
    found: &'a [Found],
    scanner: &'a Scanner,
    next: AtomicUsize,
    cancel: &'a CancellationToken,
}

impl Looker<'_> {
    /// Takes files until there are none left. Those with findings, by number.
    fn run(&self) -> Result<Vec<(usize, Vec<Finding>)>, Error> {
        let (mut buffer, mut all) = (Vec::new(), Vec::new());
        loop {
            let first = self.next.fetch_add(TOGETHER, Ordering::Relaxed);
            if first >= self.found.len() {
                return Ok(all);
            }
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let last = self.found.len().min(first + TOGETHER);
            for (number, found) in self.found[first..last].iter().enumerate() {
                let findings = self.look_into(found, &mut buffer)?;
                if !findings.is_empty() {
                    all.push((first + number, findings));
                }
            }
        }
    }

    fn look_into(&self, found: &Found, buffer: &mut Vec<u8>) -> Result<Vec<Finding>, Error> {
        if found.state.file_type() != FileType::RegularFile || self.scanner.is_allowed(&found.path) {
            return Ok(Vec::new());
        }
        // One that cannot be read will not be stored either; that is told then.
        let Ok(file) = self.root.open_file(&found.path) else { return Ok(Vec::new()) };
        self.scanner
            .scan_through(buffer, &found.path, std::fs::File::from(file))
            .map_err(|error| Error::io("read", &Path::new("/").join(found.path.as_path()), error))
    }
}
