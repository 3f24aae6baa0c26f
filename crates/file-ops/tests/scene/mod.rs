//! A folder with a backup repository in it, and stock tools.
#![allow(dead_code, reason = "not every test program needs all of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use age::secrecy::ExposeSecret as _;
use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::process::{CommandRunner, SystemRunner};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;

pub struct Scene {
    pub folder: tempfile::TempDir,
    pub key: age::x25519::Identity,
    pub runtime: tokio::runtime::Runtime,
    pub repositories: Repositories,
    pub runner: Arc<dyn CommandRunner>,
}

impl Scene {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let path = folder.path().join("repository");
        let repositories = runtime.block_on(async {
            let store = Arc::new(LocalStore::create(path).unwrap());
            let repository = Repository::create("local", store, &SystemClock).await.unwrap();
            Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap()
        });
        fs::create_dir(folder.path().join("scratch")).unwrap();
        let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let runner = Arc::new(SystemRunner::new(&environment));
        Self { folder, key: age::x25519::Identity::generate(), runtime, repositories, runner }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(below)
    }

    pub fn recipients(&self) -> Recipients {
        let text = self.key.to_public().to_string();
        Recipients::parse([text.as_str()]).unwrap()
    }

    pub fn identities(&self) -> Identities {
        Identities::parse(&self.key_text()).unwrap()
    }

    pub fn key_text(&self) -> String {
        self.key.to_string().expose_secret().to_owned()
    }

    pub fn stanza() -> Stanza {
        Stanza::parse("main").unwrap()
    }

    /// The catalog as it is now, read anew.
    pub fn try_catalog(&self) -> Result<Catalog, backstay_backup_core::Error> {
        self.runtime.block_on(Catalog::load(&self.repositories, &Self::stanza()))
    }

    pub fn catalog(&self) -> Catalog {
        self.try_catalog().unwrap()
    }

    /// Folders of sets, oldest first.
    pub fn sets(&self) -> Vec<PathBuf> {
        let Ok(sets) = fs::read_dir(self.path("repository/main/sets")) else { return Vec::new() };
        let mut sets: Vec<_> =
            sets.map(|set| set.unwrap().path()).filter(|set| set.join("manifest.json").exists()).collect();
        sets.sort_by_key(|set| fs::metadata(set.join("manifest.json")).unwrap().modified().unwrap());
        sets
    }
}

/// Runs a shell pipeline of stock tools; returns what it says.
#[track_caller]
pub fn shell(script: &str, folder: &Path) -> String {
    let output =
        Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
