//! Where the parts of a repository lie, and whether it is of a form that can be captured exactly.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::error::CodeError;
use super::git::Git;

/// Largest file of git's own that is read here.
const SMALL: u64 = 64 << 10;

/// Settings of a repository that say how files in the working tree look. Others are not taken over: they name programs.
pub(super) const KEPT: [&str; 8] = [
    "core.autocrlf",
    "core.eol",
    "core.filemode",
    "core.symlinks",
    "core.ignorecase",
    "core.precomposeunicode",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
];

/// A repository.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// As it was named, without links.
    pub(super) folder: PathBuf,
    /// What belongs to this working tree: HEAD, index.
    pub(super) git: PathBuf,
    /// What all working trees share: objects, refs.
    pub(super) common: PathBuf,
    pub(super) work_tree: Option<PathBuf>,
    pub(super) object_format: String,
    pub(super) settings: BTreeMap<String, String>,
    /// LFS objects lie somewhere else.
    pub(super) lfs_elsewhere: bool,
}

impl Layout {
    /// Looks at a folder; `None` if it is no repository. Nothing is looked for above it.
    pub(super) async fn find(git: &Git, folder: &Path) -> Result<Option<Self>, CodeError> {
        let folder = folder.canonicalize().map_err(|error| CodeError::io("open", folder, error))?;
        let Some((git_dir, work_tree)) = git_folder(&folder)? else { return Ok(None) };
        let common = common(&git_dir)?;
        let mut layout = Self {
            folder,
            git: git_dir,
            common,
            work_tree,
            object_format: "sha1".to_owned(),
            settings: BTreeMap::new(),
            lfs_elsewhere: false,
        };
        let mut partial = has_promised_packs(&layout.common);
        for file in [layout.common.join("config"), layout.git.join("config.worktree")] {
            if fs::symlink_metadata(&file).is_err() {
                continue;
            }
            for (name, value) in settings(git, &layout, &file).await? {
                partial |= name == "extensions.partialclone"
                    || name.starts_with("remote.") && name.ends_with(".promisor") && value != "false";
                layout.take(name, value);
            }
        }
        layout.check(partial)?;
        Ok(Some(layout))
    }

    fn take(&mut self, name: String, value: String) {
        match name.as_str() {
            "extensions.objectformat" => self.object_format = value,
            "lfs.storage" => self.lfs_elsewhere = true,
            kept if KEPT.contains(&kept) && is_plain(&value) => {
                self.settings.insert(name, value);
            }
            _ => {}
        }
    }

    fn check(&self, partial: bool) -> Result<(), CodeError> {
        let refuse = |problem: &str, remedy| {
            let (path, problem) = (self.folder.clone(), problem.to_owned());
            Err(CodeError::NotTaken { path, problem, remedy })
        };
        if !["sha1", "sha256"].contains(&self.object_format.as_str()) {
            return refuse("its object format is unknown", "a newer version of this program may know it");
        }
        let shallow = self.common.join("shallow").symlink_metadata();
        if shallow.is_ok_and(|file| file.len() > 0 || !file.is_file()) {
            return refuse(
                "it is a shallow clone, which lacks the beginning of its history",
                "fetch the rest first: git fetch --unshallow; or back up the repository that it comes from",
            );
        }
        if partial {
            return refuse(
                "it is a partial clone, which lacks objects",
                "back up the repository that it comes from, or make a whole clone of that",
            );
        }
        if self.objects().as_os_str().as_bytes().contains(&b'\n') {
            return refuse("git cannot lend objects of a folder with a line break in its name", "rename it");
        }
        Ok(())
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.common.join("objects")
    }
}

fn is_plain(value: &str) -> bool {
    value.len() <= 16 && value.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The repository's own folder, and the working tree, where there is one.
fn git_folder(folder: &Path) -> Result<Option<(PathBuf, Option<PathBuf>)>, CodeError> {
    let inside = folder.join(".git");
    match fs::metadata(&inside) {
        Ok(facts) if facts.is_dir() => {
            let git = inside.canonicalize().map_err(|error| CodeError::io("open", &inside, error))?;
            Ok(is_repository(&git).then(|| (git, Some(folder.to_owned()))))
        }
        Ok(facts) if facts.is_file() => {
            let git = pointed_to(&inside, b"gitdir: ", folder)?;
            Ok(Some((git, Some(folder.to_owned()))))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(is_repository(folder).then(|| (folder.to_owned(), None)))
        }
        Err(error) => Err(CodeError::io("open", &inside, error)),
    }
}

fn is_repository(folder: &Path) -> bool {
    folder.join("HEAD").symlink_metadata().is_ok()
        && folder.join("objects").is_dir()
        && folder.join("refs").is_dir()
}

fn common(git: &Path) -> Result<PathBuf, CodeError> {
    match fs::metadata(git.join("commondir")) {
        Ok(_) => pointed_to(&git.join("commondir"), b"", git),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(git.to_owned()),
        Err(error) => Err(CodeError::io("open", &git.join("commondir"), error)),
    }
}

/// The folder that a file of git names.
fn pointed_to(file: &Path, prefix: &[u8], base: &Path) -> Result<PathBuf, CodeError> {
    let content = read_small(file)?;
    let path = content.strip_prefix(prefix).unwrap_or_default().trim_ascii_end();
    let target = base.join(std::ffi::OsString::from_vec(path.to_vec()));
    let found = target.canonicalize().ok().filter(|found| !path.is_empty() && found.is_dir());
    found.ok_or_else(|| CodeError::NotTaken {
        path: base.to_owned(),
        problem: format!("{} points to no folder", file.display()),
        remedy: "git worktree repair, or git submodule update --init, may mend it",
    })
}

/// Reads a short regular file. A pipe in its place does not make anybody wait.
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>, CodeError> {
    let failed = |error| CodeError::io("read", path, error);
    let flags =
        i32::try_from((rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits()).unwrap_or(0);
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(ErrorKind::InvalidInput.into()));
    }
    let mut content = Vec::new();
    file.take(SMALL).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

fn has_promised_packs(common: &Path) -> bool {
    let Ok(packs) = fs::read_dir(common.join("objects/pack")) else { return false };
    packs.flatten().any(|entry| entry.path().extension().is_some_and(|ending| ending == "promisor"))
}

/// What stands in a configuration file, without what it includes.
async fn settings(git: &Git, layout: &Layout, file: &Path) -> Result<Vec<(String, String)>, CodeError> {
    // Git would wait for whoever writes into a pipe.
    read_small(file)?;
    let command = git.bare_command(["config", "--no-includes", "-z", "--list", "--file"]).arg(file);
    let said = git.say(command).await?;
    if said.code != 0 {
        return Err(CodeError::NotTaken {
            path: layout.folder.clone(),
            problem: format!("its configuration cannot be read: {}", said.words),
            remedy: "git config --list names the line",
        });
    }
    let entries = said.stdout.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let pair = |entry: &[u8]| {
        let text = String::from_utf8_lossy(entry);
        // A name without a value means yes.
        let (name, value) = text.split_once('\n').unwrap_or((&text, "true"));
        // Only the outer parts of a name have no upper and lower case; the inner one is not looked for.
        (name.to_owned(), value.to_owned())
    };
    Ok(entries.map(pair).collect())
}
