//! What is not committed: two patches as git makes them, and an archive of the files that git does not know.
//!
//! The working tree is compared through the repository of ours, with a copy of the index: filters and monitors that the
//! repository's own configuration names are not run, and nothing in the repository is written.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use backstay_backup_core::process::CommandSpec;

use super::error::CodeError;
use super::git::{Git, ended};
use super::layout::{Layout, read_small};
use super::lfs;
use super::scratch::Scratch;
use super::shadow::Shadow;
use super::state::Dirty;
use crate::files::Root;
use crate::path::ArchivePath;
use crate::walk::{Found, Problem, ProblemKind, State as FileState};

/// How both patches are written.
const DIFF: [&str; 10] = [
    "diff",
    "--binary",
    "--full-index",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--no-color",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--submodule=short",
];

/// What a look at a working tree found.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) dirty: Dirty,
    /// Files that git knows and that differ.
    pub(super) changed: Vec<Vec<u8>>,
    /// Files that it does not know.
    pub(super) untracked: Vec<Vec<u8>>,
}

/// Both patches, in files, and what is to be archived.
#[derive(Debug)]
pub(super) struct Uncommitted {
    pub(super) staged: Patch,
    pub(super) unstaged: Patch,
    pub(super) untracked: Vec<Found>,
    pub(super) problems: Vec<Problem>,
}

/// A patch in a file.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) digest: String,
}

/// Looks at the working tree. Nothing in it is read but what the index is not sure of.
pub(super) async fn look(
    git: &Git,
    scratch: &Scratch,
    shadow: &Shadow,
    layout: &Layout,
    tree: &Path,
) -> Result<Look, CodeError> {
    take_over(layout, shadow, &scratch.path("index"))?;
    let args = [
        "status",
        "--porcelain=v2",
        "-z",
        "--untracked-files=all",
        "--ignore-submodules=dirty",
        "--no-renames",
    ];
    let command = with_index(git.command_with_tree(&shadow.path, tree, args), scratch);
    let said = git.say_long(command, &[]).await?;
    if said.code != 0 {
        return Err(CodeError::of_repository(&layout.folder, "status", &said.words));
    }
    let mut look = Look::default();
    said.stdout.split(|byte| *byte == 0).for_each(|record| look.take(record));
    Ok(look)
}

fn with_index(command: CommandSpec, scratch: &Scratch) -> CommandSpec {
    command.env("GIT_INDEX_FILE", scratch.path("index"))
}

/// Gives our repository what says how the working tree is to be looked at.
fn take_over(layout: &Layout, shadow: &Shadow, index: &Path) -> Result<(), CodeError> {
    copy_plain(&layout.git.join("index"), index)?;
    if let Ok(entries) = fs::read_dir(&layout.git) {
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("sharedindex.") {
                copy_plain(&entry.path(), &shadow.path.join(name))?;
            }
        }
    }
    let info = shadow.path.join("info");
    fs::create_dir_all(&info).map_err(|error| CodeError::io("create", &info, error))?;
    for (from, name) in
        [(&layout.common, "exclude"), (&layout.common, "attributes"), (&layout.git, "sparse-checkout")]
    {
        copy_plain(&from.join("info").join(name), &info.join(name))?;
    }
    let config = shadow.path.join("config");
    let mut text = String::from_utf8_lossy(&read_small(&config)?).into_owned();
    for (name, value) in &layout.settings {
        // Both are letters and digits only, see `layout.rs`.
        let (section, key) = name.split_once('.').unwrap_or(("core", name));
        text.push_str(&format!("[{section}]\n\t{key} = {value}\n"));
    }
    fs::write(&config, text).map_err(|error| CodeError::io("write", &config, error))
}

/// Copies a regular file, if it is there. Nobody is waited for.
fn copy_plain(from: &Path, to: &Path) -> Result<(), CodeError> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let copied = || {
        let mut source = match fs::OpenOptions::new().read(true).custom_flags(flags).open(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if !source.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        io::copy(&mut source, &mut File::create(to)?).map(|_| ())
    };
    copied().map_err(|error| CodeError::io("copy", from, error))
}

impl Look {
    /// Takes one record of `git status --porcelain=v2 -z`.
    fn take(&mut self, record: &[u8]) {
        let fields = |number: usize| record.splitn(number, |byte| *byte == b' ').collect::<Vec<_>>();
        match record.first() {
            Some(b'?') => {
                self.dirty.untracked += 1;
                self.untracked.push(record[2..].to_vec());
            }
            Some(b'u') => {
                self.dirty.unmerged += 1;
                self.changed.extend(fields(11).get(10).map(|path| path.to_vec()));
            }
            Some(b'1') => {
                let fields = fields(9);
                let [_, both, submodule, .., path] = fields.as_slice() else { return };
                self.dirty.staged += u64::from(both.first() != Some(&b'.'));
                if submodule.starts_with(b"S") {
                    self.dirty.moved_submodules += u64::from(submodule.get(1) == Some(&b'C'));
                    return;
                }
                self.dirty.unstaged += u64::from(both.get(1) != Some(&b'.'));
                self.changed.push(path.to_vec());
            }
            _ => {}
        }
    }
}

/// Makes the patches, and finds what is to be archived.
pub(super) async fn capture(
    git: &Git,
    scratch: &Scratch,
    shadow: &Shadow,
    layout: &Layout,
    tree: &Path,
    look: &Look,
) -> Result<Uncommitted, CodeError> {
    if look.dirty.unmerged > 0 {
        return Err(CodeError::NotTaken {
            path: layout.folder.clone(),
            problem: format!(
                "a merge left {} files in conflict, which no patch expresses",
                look.dirty.unmerged
            ),
            remedy: "finish or abort the merge, or leave --uncommitted away",
        });
    }
    let staged = ["--cached", "--ignore-submodules=none"];
    let unstaged = ["--ignore-submodules=all"];
    let staged = patch(git, scratch, shadow, layout, tree, "staged.patch", &staged).await?;
    let unstaged = patch(git, scratch, shadow, layout, tree, "unstaged.patch", &unstaged).await?;
    let (untracked, problems) = find_untracked(tree, &look.untracked)?;
    Ok(Uncommitted { staged, unstaged, untracked, problems })
}

async fn patch(
    git: &Git,
    scratch: &Scratch,
    shadow: &Shadow,
    layout: &Layout,
    tree: &Path,
    name: &str,
    more: &[&str],
) -> Result<Patch, CodeError> {
    let path = scratch.path(name);
    let args = DIFF.iter().chain(more).copied();
    let command = with_index(git.command_with_tree(&shadow.path, tree, args), scratch).pipe_stdout();
    let writing = async {
        let failed = |error| CodeError::io("write", &path, error);
        let mut child = git.spawn(command).await?;
        let mut file = tokio::fs::File::create(&path).await.map_err(failed)?;
        if let Some(mut stdout) = child.take_async_stdout().map_err(failed)? {
            tokio::io::copy(&mut stdout, &mut file).await.map_err(failed)?;
        }
        file.sync_data().await.map_err(failed)?;
        match ended(&mut child).await? {
            (0, _) => Ok(()),
            (_, words) => Err(CodeError::of_repository(&layout.folder, "diff", &words)),
        }
    };
    git.bounded("diff", writing).await?;
    let from = path.clone();
    let (bytes, digest) =
        tokio::task::spawn_blocking(move || digest(&from)).await.map_err(CodeError::internal)??;
    Ok(Patch { path, bytes, digest })
}

fn digest(path: &Path) -> Result<(u64, String), CodeError> {
    let read = fs::metadata(path).and_then(|facts| Ok((facts.len(), lfs::digest(path)?)));
    read.map_err(|error| CodeError::io("read", path, error))
}

/// The files and the folders on the way to them.
fn find_untracked(tree: &Path, paths: &[Vec<u8>]) -> Result<(Vec<Found>, Vec<Problem>), CodeError> {
    let root = Root::open(tree).map_err(|error| CodeError::io("open", tree, error.into()))?;
    let (mut wanted, mut problems) = (BTreeSet::new(), Vec::new());
    for path in paths {
        let shown = crate::path::printable(path);
        if let Some(folder) = path.strip_suffix(b"/") {
            let reason = "it is a repository of its own, and not in the set; name it too".to_owned();
            let path = crate::path::printable(folder);
            problems.push(Problem { path, kind: ProblemKind::Special, reason });
            continue;
        }
        match ArchivePath::parse(path) {
            Ok(path) => {
                wanted.extend(path.ancestors());
                wanted.insert(path);
            }
            Err(problem) => {
                let reason = problem.to_string();
                problems.push(Problem { path: shown, kind: ProblemKind::Unreadable, reason });
            }
        }
    }
    let mut found = Vec::new();
    for path in wanted {
        match root.stat(&path) {
            Ok(Some(stat)) => found.push(Found { path, state: FileState::of(&stat) }),
            Ok(None) => problems.push(Problem::new(ProblemKind::Vanished, &path, "it is gone")),
            Err(error) => {
                let reason = io::Error::from(error).to_string();
                problems.push(Problem::new(ProblemKind::Unreadable, &path, reason));
            }
        }
    }
    Ok((found, problems))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_status_are_counted() {
        let zero = "0".repeat(40);
        let ordinary = |both: &str, sub: &str, path: &str| {
            format!("1 {both} {sub} 100644 100644 100644 {zero} {zero} {path}").into_bytes()
        };
        let mut look = Look::default();
        look.take(&ordinary("M.", "N...", "a b"));
        look.take(&ordinary(".M", "N...", "c"));
        look.take(&ordinary(".M", "SC..", "sub"));
        look.take(format!("u UU N... 1 1 1 1 {zero} {zero} {zero} d e").as_bytes());
        look.take(b"? new file");
        look.take(b"");
        assert_eq!(look.changed, [b"a b".to_vec(), b"c".to_vec(), b"d e".to_vec()]);
        assert_eq!(look.untracked, [b"new file".to_vec()]);
        let dirty = &look.dirty;
        assert_eq!(
            (dirty.staged, dirty.unstaged, dirty.untracked, dirty.unmerged, dirty.moved_submodules),
            (1, 1, 1, 1, 1)
        );
    }
}
