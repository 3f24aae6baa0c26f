//! Runs the programs the way cron does: by their path, with almost no environment.
#![allow(dead_code, unreachable_pub)]

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The programs of this package.
pub const PROGRAMS: [&str; 5] =
    ["backup-database", "check-storage", "list-backups", "prune-backups", "verify-backups"];

pub fn path(program: &str) -> &'static str {
    match program {
        "backup-database" => env!("CARGO_BIN_EXE_backup-database"),
        "check-storage" => env!("CARGO_BIN_EXE_check-storage"),
        "list-backups" => env!("CARGO_BIN_EXE_list-backups"),
        "prune-backups" => env!("CARGO_BIN_EXE_prune-backups"),
        "verify-backups" => env!("CARGO_BIN_EXE_verify-backups"),
        other => panic!("no program {other}"),
    }
}

/// A folder and the environment in which programs run.
pub struct Bench {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

/// What a program left.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        // A server that is tested into may run under another account.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // A file of its own, so that the one of the machine is never read.
        std::fs::write(folder.path().join("backstay.toml"), "").unwrap();
        Self { folder, variables: Vec::new() }
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn command<A: AsRef<OsStr>>(&self, program: &str, args: &[A]) -> Command {
        let mut command = Command::new(path(program));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("BACKSTAY_CONFIG", "backstay.toml")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub fn run<A: AsRef<OsStr>>(&self, program: &str, args: &[A]) -> Ended {
        self.command(program, args).output().unwrap().into()
    }

    /// Runs with `--json` and gives its one object too.
    pub fn json(&self, program: &str, args: &[&str]) -> (Ended, Value) {
        let ended = self.run(program, &[args, &["--json"]].concat());
        assert_eq!(ended.stdout.lines().count(), 1, "exactly one object: {ended:?}");
        let value = serde_json::from_str(&ended.stdout).unwrap();
        (ended, value)
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

impl Ended {
    /// Asserts the exit code, showing everything when it differs.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }
}

/// All files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut all: Vec<_> = entries
        .flatten()
        .flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect();
    all.sort();
    all
}

/// Changes one bit in the middle of a file.
pub fn flip_a_bit(path: &Path) {
    let mut content = Vec::new();
    std::fs::File::open(path).unwrap().read_to_end(&mut content).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Looks again until it holds, for a minute.
#[track_caller]
pub fn until(mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "timed out");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
