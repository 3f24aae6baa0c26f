//! Git repositories to back up.

use std::path::Path;
use std::process::Command;

use super::Bench;

/// Runs git with nobody's configuration; returns what it says.
#[track_caller]
pub fn git(folder: &Path, args: &[&str]) -> String {
    let done = Command::new("git")
        .args(["-c", "user.name=somebody", "-c", "user.email=s@localhost"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

impl Bench {
    /// Makes a repository without a commit.
    pub fn init(&self, repository: &str) {
        std::fs::create_dir(self.path(repository)).unwrap();
        git(&self.path(repository), &["init", "-q", "-b", "main"]);
    }

    /// Commits a file.
    pub fn commit(&self, repository: &str, file: &str, content: &str) {
        self.write(&format!("{repository}/{file}"), content);
        git(&self.path(repository), &["add", file]);
        git(&self.path(repository), &["commit", "-q", "-m", file]);
    }

    /// Refs and HEAD.
    pub fn refs(&self, repository: &str) -> String {
        git(&self.path(repository), &["show-ref", "--head"])
    }
}
