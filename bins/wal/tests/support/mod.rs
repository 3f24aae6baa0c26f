//! A data directory as far as the programs look at it, and the programs as a server starts them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod bucket;
pub mod steps;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub const SYSTEM: u64 = 7_301_234_567_890_123_456;
pub const MIB: usize = 1 << 20;

/// A folder with a data directory, whose "server" is this test.
pub struct Stage {
    folder: tempfile::TempDir,
    /// Arguments behind those of the server.
    pub flags: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// What a call left.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Stage {
    /// With a repository in a directory, made one by `--register`, which also registers the cluster.
    pub fn new() -> Self {
        let stage = Self::bare();
        stage.put(0, 7);
        assert_eq!(stage.archive(&["--register"]).code, 0);
        fs::remove_file(stage.segment_path(0)).unwrap();
        stage
    }

    /// With an address of a repository that does not exist yet.
    pub fn bare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        for below in ["pg_wal/archive_status", "global"] {
            fs::create_dir_all(data.join(below)).unwrap();
        }
        fs::write(data.join("global/pg_control"), [&SYSTEM.to_le_bytes()[..], &[0; 8184]].concat()).unwrap();
        fs::write(data.join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        fs::write(place("backstay.toml"), "").unwrap();
        let flags = ["--repository", &place("repository"), "--spool", &place("spool")];
        let flags = flags.into_iter().map(str::to_owned).collect();
        let environment = vec![("BACKSTAY_CONFIG".to_owned(), place("backstay.toml"))];
        Self { folder, flags, environment }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn configure(&self, text: &str) {
        fs::write(self.path("backstay.toml"), text).unwrap();
    }

    pub fn segment_path(&self, number: u64) -> PathBuf {
        self.data().join("pg_wal").join(segment_name(number))
    }

    /// Writes a segment into `pg_wal`, where the server waits for it.
    pub fn put(&self, number: u64, filling: u8) {
        fs::write(self.segment_path(number), segment(1, number, filling)).unwrap();
        let note = format!("pg_wal/archive_status/{}.ready", segment_name(number));
        fs::write(self.data().join(note), "").unwrap();
    }

    /// What the server does after a call that ended with 0.
    pub fn note_done(&self, number: u64) {
        let note = self.data().join("pg_wal/archive_status").join(segment_name(number));
        fs::rename(format!("{}.ready", note.display()), format!("{}.done", note.display())).unwrap();
    }

    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program_path(program));
        command.args(args).args(&self.flags).current_dir(self.data()).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    pub fn archive(&self, args: &[&str]) -> Ended {
        ended(self.command("archive-wal", args))
    }

    /// Archives a segment as the server does.
    pub fn push(&self, number: u64) -> Ended {
        self.archive(&[&format!("pg_wal/{}", segment_name(number))])
    }

    pub fn restore(&self, name: &str, args: &[&str]) -> Ended {
        ended(self.command("restore-wal", &[&[name, "pg_wal/RECOVERYXLOG"], args].concat()))
    }

    /// Begins a call and leaves it alone.
    pub fn spawn(&self, program: &str, args: &[&str]) -> Child {
        let mut command = self.command(program, args);
        command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
    }

    /// Asks the repository itself, without spool and prefetch, and compares.
    pub fn is_archived(&self, number: u64, filling: u8) -> bool {
        let target = self.path("fetched");
        let ended = ended(self.command(
            "restore-wal",
            &[&segment_name(number), target.to_str().unwrap(), "--no-prefetch", "--deadline", "20s"],
        ));
        ended.code == 0 && fs::read(target).unwrap() == segment(1, number, filling)
    }

    /// Processes of the helpers of this stage.
    pub fn helpers(&self) -> Vec<i32> {
        let mine = self.folder.path().to_str().unwrap();
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let pids = processes.filter_map(|name| name.parse::<i32>().ok());
        pids.filter(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).into_owned();
            arguments.contains("--helper") && arguments.contains(mine)
        })
        .collect()
    }

    /// Waits until the helpers of this stage have ended by themselves.
    pub fn wait_for_helpers(&self) {
        eventually("the helpers end", || self.helpers().is_empty());
    }

    pub fn spooled(&self, kind: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.path("spool"), &mut found);
        found.retain(|path| path.to_string_lossy().contains(kind));
        found
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Helpers end when the server is gone.
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
        self.wait_for_helpers();
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => collect(&path, found),
            path => found.push(path),
        }
    }
}

/// Waits for something that is going to happen.
pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        // Much longer than it ever takes: machines may be busy.
        assert!(begin.elapsed() < Duration::from_secs(300), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn program_path(program: &str) -> &'static str {
    match program {
        "archive-wal" => env!("CARGO_BIN_EXE_archive-wal"),
        "backstay-wal" => env!("CARGO_BIN_EXE_backstay-wal"),
        _ => env!("CARGO_BIN_EXE_restore-wal"),
    }
}

pub fn ended(mut command: Command) -> Ended {
    let begin = Instant::now();
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended {
        code: status.code().unwrap_or(-1),
        stdout: text(stdout),
        stderr: text(stderr),
        took: begin.elapsed(),
    }
}

/// Name of a segment of 1 MiB on timeline 1.
pub fn segment_name(number: u64) -> String {
    format!("00000001{:08X}{:08X}", number / 4096, number % 4096)
}

/// A segment as PostgreSQL 15 begins it, with what compresses by half.
pub fn segment(timeline: u32, number: u64, filling: u8) -> Vec<u8> {
    sized(timeline, number, filling, MIB)
}

pub fn sized(timeline: u32, number: u64, filling: u8, size: usize) -> Vec<u8> {
    let mut bytes = header(timeline, number, size);
    let mut state = (number << 8) | u64::from(filling) | 1;
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
        bytes.extend([filling; 8]);
    }
    bytes.truncate(size);
    bytes
}

/// A segment of timeline 1 that zstd makes no shorter.
pub fn incompressible(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = header(1, number, size);
    let begin = bytes.len();
    bytes.resize(size, 0);
    StdRng::seed_from_u64(number).fill(&mut bytes[begin..]);
    bytes
}

fn header(timeline: u32, number: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    bytes.extend(0xD110u16.to_le_bytes());
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(timeline.to_le_bytes());
    bytes.extend((number * size as u64).to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(SYSTEM.to_le_bytes());
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend(8192u32.to_le_bytes());
    bytes
}

/// How often a test repeats what it does: a sample, or everything when soaked.
pub fn rounds(sample: u64, all: u64) -> u64 {
    if std::env::var_os("BACKSTAY_SOAK").is_some() { all } else { sample }
}
