//! The programs together, on a real PostgreSQL server and a local repository.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use backstay_testkit::{PostgresOptions, TestPostgres};
use serde_json::Value;
use support::{Bench, files, flip_a_bit, until};

const LOCAL: [&str; 2] = ["--repository", "./local"];

fn server() -> TestPostgres {
    let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
    server.psql("postgres", "CREATE DATABASE shop").unwrap();
    let fill = "CREATE TABLE item AS SELECT n, repeat('x', 100) AS text FROM generate_series(1, 1000) n";
    server.psql("shop", fill).unwrap();
    server
}

fn bench(server: &TestPostgres) -> Bench {
    let mut bench = Bench::new();
    bench.reach(server, "shop");
    bench
}

fn back_up(bench: &Bench, args: &[&str]) -> Value {
    let (ended, report) = bench.json("backup-database", &[&LOCAL, args].concat());
    ended.expect(0);
    report["sets"][0].clone()
}

fn list(bench: &Bench) -> Value {
    bench.json("list-backups", &LOCAL).1["sets"].clone()
}

#[test]
fn a_full_disk_can_be_pruned() {
    let server = server();
    let mut bench = bench(&server);
    let old = back_up(&bench, &[])["set"].as_str().unwrap().to_owned();
    let new = back_up(&bench, &[])["set"].as_str().unwrap().to_owned();
    bench.fill_disk_of("local");
    let full = bench.run("backup-database", &LOCAL).expect(5).stderr;
    assert!(full.contains("no space left"), "{full}");
    let rules = ["--keep-last", "1", "--option", "retention.min-age=0s"];
    let pruned = bench.run("prune-backups", &[&LOCAL[..], &rules].concat()).expect(0);
    assert!(pruned.stdout.contains("1 sets removed") && pruned.stdout.contains(&old), "{}", pruned.stdout);
    assert!(pruned.stderr.contains("going on without one"), "{}", pruned.stderr);
    let left = list(&bench);
    assert_eq!((left.as_array().unwrap().len(), left[0]["set"].as_str()), (1, Some(new.as_str())));
}

#[test]
fn a_backup_is_listed_verified_proven_held_and_pruned() {
    let server = server();
    let bench = bench(&server);
    let set = back_up(&bench, &["--digests"]);
    assert_eq!(
        (&set["tables"], &set["rows"], &set["stored-in"]),
        (&1.into(), &1000.into(), &serde_json::json!(["./local"]))
    );
    let id = set["set"].as_str().unwrap();

    let listed = bench.run("list-backups", &LOCAL).expect(0).stdout;
    assert!(listed.lines().nth(1).unwrap().starts_with(&format!("{id}  shop ")), "{listed}");
    assert!(listed.contains("  good ") && listed.contains("  never "), "{listed}");

    let quick = bench.run("verify-backups", &LOCAL).expect(0).stdout;
    assert!(quick.contains("1 copies passed, 0 failed"), "{quick}");
    let full = bench.run("verify-backups", &[&LOCAL[..], &["--full", "--content"]].concat()).expect(0);
    assert!(full.stdout.contains(&format!("{id} passed    full ./local")), "{}", full.stdout);
    let (_, again) =
        bench.json("verify-backups", &[&LOCAL[..], &["--full", "--recheck-after", "1d"]].concat());
    assert_eq!(again["sets"][0]["copies"][0]["outcome"], "skipped");

    bench.write("check.sql", "SELECT count(*) = 1000 FROM item;\n");
    let proof = ["--restore-test", "--check", "check.sql", "--scratch", "."];
    let (ended, proven) = bench.json("verify-backups", &[&LOCAL[..], &proof].concat());
    ended.expect(0);
    assert_eq!(proven["restore-tests"][0]["passed"], true, "{proven}");
    assert_eq!(proven["restore-tests"][0]["report"]["checks"][0]["passed"], true, "{proven}");

    let listed = list(&bench);
    assert_eq!(
        (&listed[0]["verified"]["kind"], &listed[0]["proven"]["passed"]),
        (&"verify-full".into(), &true.into())
    );

    let hold = ["--hold", &id[..18], "--reason", "audit"];
    bench.run("prune-backups", &[&LOCAL[..], &hold].concat()).expect(0);
    assert_eq!(list(&bench)[0]["held"], "audit");

    back_up(&bench, &[]);
    let rules = ["--keep-last", "1", "--option", "retention.min-age=0s"];
    let plan = bench.run("prune-backups", &[&LOCAL[..], &rules, &["--dry-run"]].concat()).expect(0);
    assert!(plan.stdout.contains("./local: 2 sets stay, 0 would be removed"), "{}", plan.stdout);
    let release = ["--release", id, "--reason", "audit is over"];
    bench.run("prune-backups", &[&LOCAL[..], &release].concat()).expect(0);
    let (ended, pruned) = bench.json("prune-backups", &[&LOCAL[..], &rules].concat());
    ended.expect(0);
    assert_eq!(pruned["repositories"][0]["removed"], serde_json::json!([id]), "{pruned}");
    assert_eq!(list(&bench).as_array().unwrap().len(), 1);
}

#[test]
fn one_flipped_bit_is_found_named_and_remembered() {
    let server = server();
    let bench = bench(&server);
    let set = back_up(&bench, &[]);
    let objects = files(&bench.path("local/main/sets"));
    let data = objects.iter().find(|path| path.to_string_lossy().ends_with(".zst")).unwrap();
    flip_a_bit(data);
    bench.run("verify-backups", &LOCAL).expect(0);
    let found = bench.run("verify-backups", &[&LOCAL[..], &["--full"]].concat()).expect(3);
    assert!(found.stdout.contains("FAILED"), "{}", found.stdout);
    assert!(
        found.stdout.contains(&data.file_name().unwrap().to_string_lossy().into_owned()),
        "{}",
        found.stdout
    );
    let listed = bench.run("list-backups", &LOCAL).expect(1).stdout;
    assert!(listed.contains(" BAD ") && listed.contains(set["set"].as_str().unwrap()), "{listed}");
}

#[test]
fn a_missing_copy_is_done_but_missed() {
    let server = server();
    let bench = bench(&server);
    std::fs::create_dir(bench.path("taken")).unwrap();
    bench.write("taken/other", "somebody's file");
    let both = ["--repository", "./local", "--repository", "./taken"];
    let (ended, report) = bench.json("backup-database", &both);
    let ended = ended.expect(6);
    assert_eq!(report["sets"][0]["stored-in"], serde_json::json!(["./local"]));
    assert_eq!(report["sets"][0]["missing-in"][0][0], "./taken", "{report}");
    assert!(ended.stderr.contains("other things in it"), "{}", ended.stderr);
    assert_eq!(files(&bench.path("taken")).len(), 1);
    let strict = [&both[..], &["--option", "quorum=2"]].concat();
    bench.run("backup-database", &strict).expect(2);
}

#[test]
fn all_databases_are_backed_up_and_one_failure_does_not_stop_the_rest() {
    let server = server();
    server.psql("postgres", "CREATE DATABASE \"odd name/ö\"").unwrap();
    server.psql("postgres", "CREATE DATABASE locked").unwrap();
    let bench = bench(&server);
    let (ended, report) = bench.json("backup-database", &[&LOCAL[..], &["--all-databases"]].concat());
    ended.expect(0);
    let names: Vec<_> =
        report["sets"].as_array().unwrap().iter().map(|set| set["database"].as_str().unwrap()).collect();
    assert_eq!(names, ["locked", "odd name/ö", "postgres", "shop"]);

    server.psql("postgres", "ALTER DATABASE locked CONNECTION LIMIT 0").unwrap();
    server.psql("postgres", "CREATE ROLE guest LOGIN PASSWORD 'guest' IN ROLE pg_read_all_data").unwrap();
    let mut guest = Bench::new();
    guest.set("BACKSTAY_POSTGRES_URL", server.url("shop").replacen("postgres:", "guest:", 1));
    guest.set("BACKSTAY_POSTGRES_PASSWORD", "guest");
    let url = format!("postgresql://guest:guest@127.0.0.1:{}/shop", server.port());
    guest.set("BACKSTAY_POSTGRES_URL", url);
    guest.set("BACKSTAY_POSTGRES_BIN_DIR", server.install().bin().display().to_string());
    let existing = bench.path("local").display().to_string();
    let args = ["--repository", &existing, "--all-databases", "--no-globals"];
    let (ended, report) = guest.json("backup-database", &args);
    assert_eq!(report["sets"].as_array().unwrap().len(), 3, "{report}");
    assert_eq!(report["failed"][0]["database"], "locked", "{report}");
    assert_eq!(i64::from(ended.code), report["failed"][0]["exit-code"].as_i64().unwrap());
}

#[test]
fn bad_logins_have_their_own_words_and_leave_nothing() {
    let server = server();
    let mut bench = bench(&server);
    let url =
        |user: &str, database: &str| format!("postgresql://{user}@127.0.0.1:{}/{database}", server.port());
    bench.set("BACKSTAY_POSTGRES_URL", url("postgres:wrong", "shop"));
    let wrong = bench.run("backup-database", &LOCAL).expect(2);
    assert!(wrong.stderr.contains("refused role postgres"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("wrong"), "{}", wrong.stderr);
    bench.set("BACKSTAY_POSTGRES_URL", server.url("absent"));
    let absent = bench.run("backup-database", &LOCAL).expect(2);
    assert!(absent.stderr.contains("database absent does not exist"), "{}", absent.stderr);
    bench.set("BACKSTAY_POSTGRES_URL", server.url("shop"));
    let empty = bench.path("").display().to_string();
    let no_tool = bench.run("backup-database", &[&LOCAL[..], &["--bin-dir", &empty]].concat()).expect(2);
    assert!(
        no_tool.stderr.contains("pg_dump") && no_tool.stderr.contains("hint: install"),
        "{}",
        no_tool.stderr
    );
    assert!(!bench.path("local").exists());
}

/// While the backup still looks around: its own session waits for the size of a table.
#[test]
fn sigterm_ends_a_backup_that_waits_and_no_set_appears() {
    sigterm_behind_a_gate("CREATE TABLE gate()");
}

/// Inside the dump: pg_dump waits for a table that has no size.
#[test]
fn sigterm_ends_a_dump_with_its_sessions_and_no_set_appears() {
    sigterm_behind_a_gate("CREATE TABLE gate (n int) PARTITION BY RANGE (n)");
}

fn sigterm_behind_a_gate(gate: &str) {
    let server = server();
    let bench = bench(&server);
    back_up(&bench, &[]);
    // A lock that the backup waits for: the moment of the signal is certain.
    server.psql("shop", gate).unwrap();
    let mut gate = server.client("psql").unwrap();
    let mut holder = gate
        .args([
            "-X",
            "-q",
            "-d",
            "shop",
            "-c",
            "BEGIN; LOCK TABLE gate IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)",
        ])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    let holds = "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation = 'gate'::regclass";
    until(|| server.psql("shop", holds).unwrap().trim() == "1");
    let child = bench
        .command("backup-database", &[&LOCAL[..], &["--lock-timeout", "300", "--json"]].concat())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until(|| server.psql("shop", waits).unwrap().trim() != "0");
    let signal =
        std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let started = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["error"]["message"], "stopped by a signal");
    // A backend that waits for a lock would not notice that its client is gone; the gate is still closed.
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^(backstay|pg_dump)'";
    until(|| server.psql("postgres", sessions).unwrap().trim() == "0");
    assert_eq!(server.psql("shop", waits).unwrap().trim(), "0");
    let open_gate =
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
    server.psql("shop", open_gate).unwrap();
    holder.wait().unwrap();
    assert_eq!(list(&bench).as_array().unwrap().len(), 1);
    // The lease was given back: the next run starts at once.
    back_up(&bench, &[]);
}
