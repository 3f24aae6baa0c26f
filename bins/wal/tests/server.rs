//! A real server archives through the program and recovers through it.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use backstay_testkit::{PostgresOptions, StopMode, TestPostgres};
use support::{eventually, rounds};

/// A server that archives, and where to.
struct Archiving {
    postgres: TestPostgres,
    shared: tempfile::TempDir,
}

impl Archiving {
    fn start(segment_size: u32) -> Self {
        let shared = tempfile::tempdir().unwrap();
        let options = PostgresOptions::default()
            .initdb_arg(&format!("--wal-segsize={segment_size}"))
            .setting("archive_mode", "on")
            .setting("archive_command", "false")
            .setting("min_wal_size", &format!("{}MB", 2 * segment_size.max(8)))
            .setting("max_wal_size", "1GB");
        let postgres = TestPostgres::start_blocking(&options).unwrap();
        let this = Self { postgres, shared };
        // The server may run under another account, which must reach program and repository.
        for name in ["archive-wal", "restore-wal", "backstay-wal"] {
            fs::copy(support::program_path(name), this.path(name)).unwrap();
        }
        fs::write(this.path("backstay.toml"), "").unwrap();
        if let Some(account) = this.postgres.account() {
            let owner = format!("{}:{}", account.uid(), account.gid());
            assert!(
                Command::new("chown")
                    .arg("-R")
                    .arg(owner)
                    .arg(this.shared.path())
                    .status()
                    .unwrap()
                    .success()
            );
        }
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.shared.path().join(name)
    }

    fn data(&self) -> &Path {
        self.postgres.data_directory()
    }

    fn command(&self, program: &str, args: &str) -> String {
        let place = |name: &str| self.path(name).display().to_string();
        format!(
            "{} {args} --config {} --repository {} --spool {}",
            place(program),
            place("backstay.toml"),
            place("repository"),
            place("spool")
        )
    }

    /// Registers the cluster and makes the server archive.
    fn begin(&self) {
        let register = self.command("archive-wal", "--register");
        assert!(self.as_server(&register).status().unwrap().success());
        let archive = self.command("archive-wal", "%p");
        self.sql(&format!("ALTER SYSTEM SET archive_command = '{archive}'"));
        self.sql("SELECT pg_reload_conf()");
    }

    /// A command line run in the data directory by the account of the server.
    fn as_server(&self, line: &str) -> Command {
        let mut command = match self.postgres.account() {
            Some(account) => {
                let mut command = Command::new("setpriv");
                let ids = [format!("--reuid={}", account.uid()), format!("--regid={}", account.gid())];
                command.args(ids).args(["--clear-groups", "sh", "-c"]);
                command
            }
            None => {
                let mut command = Command::new("sh");
                command.arg("-c");
                command
            }
        };
        command.arg(line).current_dir(self.data());
        command
    }

    fn sql(&self, statement: &str) -> String {
        self.postgres.psql("postgres", statement).unwrap().trim().to_owned()
    }

    fn fill(&self, rows: u32) {
        self.sql("CREATE TABLE IF NOT EXISTS load (id bigserial, text text)");
        self.sql(&format!(
            "INSERT INTO load (text) SELECT md5(n::text) || repeat(md5((n / 7)::text), 10) FROM generate_series(1, {rows}) n"
        ));
    }

    /// Waits until everything that is complete now is archived; name of the last segment.
    fn drain(&self) -> String {
        let last = self.sql("SELECT pg_walfile_name(pg_switch_wal())");
        let begin = Instant::now();
        while self.sql("SELECT coalesce(max(last_archived_wal), '') FROM pg_stat_archiver") < last {
            assert!(
                begin.elapsed() < Duration::from_secs(240),
                "{}",
                fs::read_to_string(self.postgres.log()).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        last
    }

    /// Fetches every segment that the server still has and has archived, and compares; how many.
    fn compare_all(&self) -> usize {
        let mut compared = 0;
        let target = self.path("fetched");
        for entry in fs::read_dir(self.data().join("pg_wal/archive_status")).unwrap() {
            let note = entry.unwrap().file_name().into_string().unwrap();
            let Some(name) = note.strip_suffix(".done").filter(|name| name.len() == 24) else { continue };
            let line = self.command("restore-wal", &format!("{name} {} --no-prefetch", target.display()));
            assert!(self.as_server(&line).status().unwrap().success(), "{name}");
            assert_eq!(
                fs::read(&target).unwrap(),
                fs::read(self.data().join("pg_wal").join(name)).unwrap(),
                "{name}"
            );
            compared += 1;
        }
        compared
    }

    fn helpers(&self) -> Vec<i32> {
        let mine = self.shared.path().to_str().unwrap();
        let names =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let arguments = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_mine = |pid: &i32| {
            let text = String::from_utf8_lossy(&arguments(pid)).into_owned();
            text.contains(mine) && text.contains("--helper")
        };
        names.filter_map(|name| name.parse().ok()).filter(is_mine).collect()
    }
}

impl Drop for Archiving {
    fn drop(&mut self) {
        let _ = self.postgres.stop(StopMode::Fast);
        eventually("the helpers end", || self.helpers().is_empty());
    }
}

#[test]
fn a_busy_server_archives_everything_while_helpers_are_killed() {
    let server = Archiving::start(1);
    server.fill(20_000);
    server.begin();
    let (mut kills, mut filled) = (0, 0);
    // A helper may end between two looks.
    while filled < rounds(6, 40) || kills == 0 {
        filled += 1;
        assert!(filled < 200, "no helper was ever seen");
        server.fill(20_000);
        for helper in server.helpers() {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(helper).unwrap(),
                rustix::process::Signal::KILL,
            );
            kills += 1;
        }
    }
    server.drain();
    println!("{kills} helpers killed");
    assert!(kills > 0);
    assert_eq!(server.sql("SELECT failed_count > 100 FROM pg_stat_archiver"), "f");
    let compared = server.compare_all();
    println!("{compared} segments compared");
    assert!(compared > 10, "{compared}");
}

#[test]
fn large_segments_are_archived_and_fetched() {
    let server = Archiving::start(64);
    server.begin();
    server.fill(100_000);
    server.drain();
    assert!(server.compare_all() >= 1);
}

#[test]
fn a_server_recovers_to_the_last_commit_through_the_program() {
    let mut server = Archiving::start(1);
    server.begin();
    let base = server.path("base");
    server.postgres.stop(StopMode::Fast).unwrap();
    let copied = Command::new("cp").arg("-a").arg(server.data()).arg(&base).status().unwrap();
    assert!(copied.success());
    server.postgres.restart().unwrap();
    server.fill(60_000);
    let rows = server.sql("SELECT count(*) FROM load");
    server.drain();
    server.postgres.stop(StopMode::Fast).unwrap();
    fs::remove_dir_all(base.join("pg_wal")).unwrap();
    fs::create_dir_all(base.join("pg_wal/archive_status")).unwrap();
    if let Some(account) = server.postgres.account() {
        let owner = format!("{}:{}", account.uid(), account.gid());
        assert!(Command::new("chown").arg("-R").arg(owner).arg(&base).status().unwrap().success());
    }
    let _ = fs::remove_file(base.join("postmaster.pid"));
    fs::write(base.join("recovery.signal"), "").unwrap();
    let restore = server.command("restore-wal", "%f %p");
    let options = PostgresOptions::default()
        .existing(&base, server.postgres.password())
        .setting("restore_command", &restore)
        .setting("archive_mode", "off")
        .setting("recovery_target_action", "promote");
    let restored = TestPostgres::start_blocking(&options).unwrap();
    eventually("the recovered server is promoted", || {
        restored.psql("postgres", "SELECT pg_is_in_recovery()").is_ok_and(|answer| answer.trim() == "f")
    });
    assert_eq!(restored.psql("postgres", "SELECT count(*) FROM load").unwrap().trim(), rows);
    assert_eq!(
        restored.psql("postgres", "SELECT timeline_id FROM pg_control_checkpoint()").unwrap().trim(),
        "2"
    );
}
