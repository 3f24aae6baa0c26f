//! One backup of a database at a time, and no longer than needed after one that died.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use backstay_testkit::{PostgresOptions, TestPostgres};
use support::{Bench, Ended, until};

const BACK_UP: [&str; 4] = ["--repository", "./local", "--lock-timeout", "60"];

/// A database with a table that is locked until [`Gate::open`].
struct Gate {
    server: TestPostgres,
    bench: Bench,
    holder: Child,
}

impl Gate {
    fn closed() -> Self {
        let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
        server.psql("postgres", "CREATE DATABASE shop").unwrap();
        server.psql("shop", "CREATE TABLE gate AS SELECT 1 AS id").unwrap();
        let mut bench = Bench::new();
        bench.reach(&server, "shop");
        // A first backup looks at the database before it has a repository, and so before it has a lease.
        bench.run("backup-database", &BACK_UP).expect(0);
        let lock = "BEGIN; LOCK TABLE gate IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)";
        let mut psql = server.client("psql").unwrap();
        let holder = psql.args(["-Xqd", "shop", "-c", lock]).stderr(Stdio::null()).spawn().unwrap();
        let held = "SELECT count(*) FROM pg_locks WHERE granted AND relation = 'gate'::regclass";
        until(|| server.psql("shop", held).unwrap() == "1");
        Self { server, bench, holder }
    }

    /// A backup that has its lease, and waits for the table.
    fn backup_in_progress(&self) -> Child {
        let mut program = self.bench.command("backup-database", &BACK_UP);
        let child = program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        until(|| self.server.psql("shop", waiting).unwrap() != "0");
        child
    }

    fn open(&mut self) {
        let end =
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
        self.server.psql("shop", end).unwrap();
        self.holder.wait().unwrap();
    }

    fn back_up(&self) -> (Ended, Duration) {
        let start = Instant::now();
        (self.bench.run("backup-database", &BACK_UP), start.elapsed())
    }
}

/// The one line that says whom a run waits for.
fn waits_for(stderr: &str, process: u32) -> bool {
    let lines: Vec<_> = stderr.lines().filter(|line| line.contains("its holder may have died")).collect();
    lines.len() == 1 && lines[0].contains(&format!("process {process}"))
}

#[test]
fn a_run_after_a_killed_one_starts_by_itself() {
    let mut gate = Gate::closed();
    let mut killed = gate.backup_in_progress();
    let process = killed.id();
    killed.kill().unwrap();
    killed.wait().unwrap();
    gate.open();
    let (ended, time) = gate.back_up();
    let ended = ended.expect(0);
    assert!(waits_for(&ended.stderr, process), "{}", ended.stderr);
    assert!(time < Duration::from_secs(40), "{time:?}");
    let (again, time) = gate.back_up();
    let again = again.expect(0);
    assert_eq!(again.stderr, "", "given back: nothing to wait for, {time:?}");
}

#[test]
fn a_run_beside_a_living_one_is_refused() {
    let mut gate = Gate::closed();
    let mut first = gate.backup_in_progress();
    let (second, time) = gate.back_up();
    let second = second.expect(4);
    assert!(waits_for(&second.stderr, first.id()), "{}", second.stderr);
    assert!(second.stderr.contains("is held by backup-database-shop on "), "{}", second.stderr);
    assert!(time < Duration::from_secs(20), "as soon as the first renews: {time:?}");
    gate.open();
    assert!(first.wait().unwrap().success());
}
