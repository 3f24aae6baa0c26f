//! Git repositories with everything in them, their backups and restores, and snapshots of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use backstay_backup_core::catalog::{Catalog, Filter, SetSummary};
use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::progress::Progress;
use backstay_file_ops::code::{
    CodeError, CodeOptions, CodeReport, FileOptions, Name, Outcome, RestoreOptions, Restored, StoredSet,
    backup_code, restore, restore_file,
};
use tokio_util::sync::CancellationToken;

pub use crate::scene::{Scene, is_root, shell};

impl Scene {
    /// A new repository with one commit.
    pub fn git(&self, name: &str) -> Git {
        let git = Git::init(self.path(name), &[]);
        git.commit("README", "hello\n");
        git
    }

    pub fn options(&self, folder: &Path) -> CodeOptions {
        let mut options = CodeOptions::new(Self::stanza(), "app", folder, &self.path("scratch"));
        options.recipients = self.recipients();
        options
    }

    pub fn plain(&self, folder: &Path) -> CodeOptions {
        let mut options = self.options(folder);
        options.recipients = Recipients::none();
        options.plaintext = true;
        options
    }

    pub fn try_back_up(&self, options: &CodeOptions) -> Result<Outcome, CodeError> {
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let backup = backup_code(&self.repositories, options, &self.runner, &progress, &cancel);
        let outcome = self.runtime.block_on(Box::pin(backup));
        let left: Vec<_> = fs::read_dir(self.path("scratch")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        outcome
    }

    #[track_caller]
    pub fn back_up(&self, options: &CodeOptions) -> CodeReport {
        match self.try_back_up(options).unwrap() {
            Outcome::Stored(report) => *report,
            other => panic!("nothing was stored: {other:?}"),
        }
    }

    pub fn with_newest<T>(&self, work: impl FnOnce(&Catalog, &SetSummary) -> T) -> Result<T, String> {
        let catalog = self.catalog();
        let newest = catalog.newest_good(&Filter::default()).map_err(|error| error.to_string())?;
        Ok(work(&catalog, newest))
    }

    /// Restores the newest good set.
    pub fn try_restore(&self, options: &RestoreOptions) -> Result<Restored, String> {
        self.with_newest(|catalog, set| self.restore_set(catalog, set, options))?
    }

    pub fn restore_set(
        &self,
        catalog: &Catalog,
        set: &SetSummary,
        options: &RestoreOptions,
    ) -> Result<Restored, String> {
        self.with_stored(catalog, set, |stored| {
            self.runtime.block_on(Box::pin(restore(stored, options))).map_err(|error| error.to_string())
        })
    }

    /// Restores one file of a commit of the newest good set; its commit.
    pub fn restore_file(&self, path: &str, revision: &str, to: &str) -> Result<String, String> {
        let mut options = FileOptions::new(self.path(to), Name(path.as_bytes().to_vec()));
        options.revision = revision.to_owned();
        self.with_newest(|catalog, set| {
            self.with_stored(catalog, set, |stored| {
                let restoring = restore_file(stored, &options);
                self.runtime.block_on(Box::pin(restoring)).map_err(|error| error.to_string())
            })
        })?
    }

    fn with_stored<T>(
        &self,
        catalog: &Catalog,
        set: &SetSummary,
        work: impl FnOnce(&StoredSet<'_>) -> T,
    ) -> T {
        let (progress, cancel, identities) = (Progress::new(), CancellationToken::new(), self.identities());
        work(&StoredSet {
            repositories: &self.repositories,
            catalog,
            set,
            identities: &identities,
            runner: &self.runner,
            progress: &progress,
            cancel: &cancel,
        })
    }

    #[track_caller]
    pub fn restore(&self, to: &str) -> Git {
        self.try_restore(&RestoreOptions::new(&self.path(to))).unwrap();
        Git(self.path(to))
    }
}

/// A git repository.
#[derive(Clone)]
pub struct Git(pub PathBuf);

impl Git {
    pub fn init(path: PathBuf, args: &[&str]) -> Self {
        fs::create_dir_all(&path).unwrap();
        let git = Self(path);
        git.run(&[&["init", "-q", "-b", "main"], args].concat());
        git
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs git with nobody's configuration; returns what it says.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> String {
        let output = self.command(args).output().unwrap();
        let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        assert!(
            output.status.success(),
            "git {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new("git");
        command
            .args(["-c", "protocol.file.allow=always"])
            .args(args)
            .current_dir(&self.0)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "somebody").env(format!("GIT_{who}_EMAIL"), "s@localhost");
        }
        command
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn commit(&self, name: &str, content: impl AsRef<[u8]>) {
        self.write(name, content);
        self.run(&["add", name]);
        self.run(&["commit", "-q", "-m", name]);
    }

    /// An LFS object, as git-lfs would have placed it; its name.
    pub fn lfs(&self, content: &[u8]) -> String {
        use sha2::Digest as _;
        let id = hex::encode(sha2::Sha256::digest(content));
        let folder = self.0.join(format!(".git/lfs/objects/{}/{}", &id[..2], &id[2..4]));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(&id), content).unwrap();
        id
    }

    /// Every ref, what symbolic ones stand for, and HEAD.
    pub fn refs(&self) -> String {
        let refs = self.run(&["for-each-ref", "--format=%(objectname) %(symref) %(refname)"]);
        let head = fs::read_to_string(self.folder().join("HEAD")).unwrap();
        refs + &head
    }

    pub fn folder(&self) -> PathBuf {
        let inside = self.0.join(".git");
        if inside.is_dir() { inside } else { self.0.clone() }
    }

    /// What is not committed, as git tells it, and the content of every file of the working tree.
    pub fn work(&self) -> (String, BTreeMap<PathBuf, (u32, Vec<u8>)>) {
        let status =
            self.run(&["status", "--porcelain=v2", "--untracked-files=all", "--ignore-submodules=dirty"]);
        let mut files = BTreeMap::new();
        collect(&self.0, &self.0, &mut files);
        (status, files)
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let facts = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        if name == Path::new(".git") {
            continue;
        }
        if facts.is_dir() {
            collect(root, &path, files);
        } else if facts.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            files.insert(name, (0, target.as_os_str().as_encoded_bytes().to_vec()));
        } else {
            files.insert(name, (facts.permissions().mode() & 0o111, fs::read(&path).unwrap()));
        }
    }
}
