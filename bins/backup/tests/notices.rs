//! What every program of this package tells of itself through `[notify.on]`, with real servers and a real service that
//! is told: a first success, a failure, the recovery, a missed objective; and that nothing about notices changes a task.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
#[path = "support/notices.rs"]
mod notices;
mod support;

use std::path::PathBuf;
use std::process::Command;

use backstay_testkit::{Answer, PostgresOptions, RedisOptions, TestPostgres, TestRedis};
use cluster::Cluster;
use notices::{Notices, Task};
use support::Bench;

const LOCAL: [&str; 2] = ["--repository", "./local"];

/// A folder whose configuration tells everything.
fn told(more: &str) -> (Bench, Notices) {
    let (mut bench, notices) = (Bench::new(), Notices::new());
    let key = age::x25519::Identity::generate().to_public().to_string();
    bench.set("BACKSTAY_ENCRYPTION_RECIPIENTS", key);
    bench.set("BACKSTAY_ENCRYPTION_ALLOW_SINGLE_RECIPIENT", "true");
    bench.write("backstay.toml", &format!("{}{more}", notices.configuration()));
    (bench, notices)
}

fn lives(bench: &Bench, notices: &Notices, program: &str, args: &[&str]) {
    let command = || bench.command(program, &[&LOCAL[..], args].concat());
    let folder = bench.path("");
    let task = Task { program, folder: &folder, repository: bench.path("local"), command: Box::new(command) };
    task.lives(notices);
}

fn postgres() -> TestPostgres {
    let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
    server.psql("postgres", "CREATE TABLE item AS SELECT generate_series(1, 50) n").unwrap();
    server
}

fn git(bench: &Bench, args: &[&str]) {
    let done = Command::new("git")
        .args(["-c", "user.name=somebody", "-c", "user.email=s@localhost"])
        .args(args)
        .current_dir(bench.path("shop"))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn repository_of_code(bench: &Bench) {
    std::fs::create_dir(bench.path("shop")).unwrap();
    std::fs::create_dir(bench.path("scratch")).unwrap();
    git(bench, &["init", "-q", "-b", "main"]);
    bench.write("shop/README", "hello\n");
    git(bench, &["add", "README"]);
    git(bench, &["commit", "-q", "-m", "first"]);
}

const CODE: [&str; 3] = ["--scratch", "scratch", "shop"];

#[test]
fn backups_of_databases_tell_how_they_end() {
    let server = postgres();
    let (mut bench, notices) = told("");
    bench.reach(&server, "postgres");
    lives(&bench, &notices, "backup-database", &[]);
}

/// A folder whose program reaches the cluster. Its repository is the one that the cluster's WAL goes to.
fn told_of(cluster: &Cluster) -> (Bench, Notices, PathBuf) {
    let (mut bench, notices) = told("");
    bench.reach(&cluster.postgres, "postgres");
    (bench, notices, cluster.root.path().join("repository"))
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_of_clusters_tell_how_they_end() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    tokio::task::block_in_place(|| {
        let (bench, notices, repository) = told_of(&cluster);
        let place = repository.display().to_string();
        let command = || bench.command("backup-cluster", &["--repository", &place]);
        let folder = bench.path("");
        let task =
            Task { program: "backup-cluster", folder: &folder, repository, command: Box::new(command) };
        task.lives(&notices);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_cluster_that_lacks_a_copy_tells_that_its_objective_was_missed() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    tokio::task::block_in_place(|| {
        let (bench, notices, repository) = told_of(&cluster);
        std::fs::create_dir(bench.path("taken")).unwrap();
        bench.write("taken/other", "somebody's file");
        let place = repository.display().to_string();
        bench.run("backup-cluster", &["--repository", &place, "--repository", "./taken"]).expect(6);
        missed(&notices, "backup-cluster");
    });
}

#[track_caller]
fn missed(notices: &Notices, program: &str) {
    let title = format!("{program} missed its objective");
    let told = notices.told();
    assert!(told.len() == 1 && told[0].0 == "objective-missed" && told[0].1 == title, "{program}: {told:?}");
}

#[test]
fn backups_of_configuration_and_code_tell_how_they_end() {
    let (bench, notices) = told("");
    std::fs::create_dir(bench.path("etc")).unwrap();
    bench.write("etc/app.conf", "listen = 80\n");
    lives(&bench, &notices, "backup-config", &["etc"]);
    let (bench, notices) = told("");
    repository_of_code(&bench);
    lives(&bench, &notices, "backup-code", &CODE);
}

#[test]
fn backups_and_archives_of_redis_tell_how_they_end() {
    let options = RedisOptions::default().setting("repl-diskless-sync-delay", "0");
    let server = TestRedis::start_blocking(&options).unwrap();
    server.cli(&["SET", "a", "1"]).unwrap();
    let (mut bench, notices) = told("");
    bench.set("BACKSTAY_REDIS_URL", server.url());
    lives(&bench, &notices, "backup-redis", &[]);
    let (mut bench, notices) = told("");
    bench.set("BACKSTAY_REDIS_URL", server.url());
    lives(&bench, &notices, "archive-redis", &["--spool", "spool", "--until-caught-up"]);
}

#[test]
fn what_looks_after_backups_tells_how_it_ends() {
    for program in ["verify-backups", "prune-backups", "check-storage"] {
        let (bench, notices) = told("");
        std::fs::create_dir(bench.path("etc")).unwrap();
        bench.write("etc/app.conf", "listen = 80\n");
        bench.run("backup-config", &[&LOCAL[..], &["etc"]].concat()).expect(0);
        notices.told();
        let args: &[&str] = if program == "prune-backups" { &["--keep-last", "1"] } else { &[] };
        lives(&bench, &notices, program, args);
    }
}

#[test]
fn a_backup_that_lacks_a_copy_tells_that_its_objective_was_missed() {
    let (server, redis) = (postgres(), TestRedis::start_blocking(&RedisOptions::default()).unwrap());
    let (mut bench, notices) = told("");
    bench.reach(&server, "postgres");
    bench.set("BACKSTAY_REDIS_URL", redis.url());
    std::fs::create_dir(bench.path("etc")).unwrap();
    bench.write("etc/app.conf", "listen = 80\n");
    repository_of_code(&bench);
    std::fs::create_dir(bench.path("taken")).unwrap();
    bench.write("taken/other", "somebody's file");
    let both = ["--repository", "./local", "--repository", "./taken"];
    let programs: [(&str, &[&str]); 4] = [
        ("backup-database", &[]),
        ("backup-redis", &[]),
        ("backup-config", &["etc"]),
        ("backup-code", &CODE),
    ];
    for (program, args) in programs {
        bench.run(program, &[&both[..], args].concat()).expect(6);
        missed(&notices, program);
    }
}

/// Only what is asked for is told, by those that are asked, and looks are no tasks.
#[test]
fn what_nobody_asked_for_is_not_told() {
    let (bench, notices) = told("");
    std::fs::create_dir(bench.path("etc")).unwrap();
    bench.write("etc/app.conf", "listen = 80\n");
    let args = [&LOCAL[..], &["etc"]].concat();
    bench.run("backup-config", &[&args[..], &["--dry-run"]].concat()).expect(0);
    bench.run("list-backups", &["--repository", "./nowhere"]);
    notices.nothing("a look is no task");
    let quiet = notices.configuration().replace("first-success = true", "programs = [\"backup-code\"]");
    bench.write("backstay.toml", &quiet);
    bench.run("backup-config", &[&args[..], &["gone"]].concat()).expect(3);
    notices.nothing("another program is asked");
    let failures = notices.configuration().replace("first-success = true", "");
    bench.write("backstay.toml", &failures);
    bench.run("backup-config", &args).expect(0);
    notices.nothing("successes are not asked for");
    bench.write("backstay.toml", &notices.configuration().replace("failure = \"P1\"\n", ""));
    bench.run("backup-config", &[&args[..], &["gone"]].concat()).expect(3);
    notices.nothing("failures are not asked for");
    bench.write("backstay.toml", &notices.configuration().replace("first-success", "every-success"));
    for _ in 0..2 {
        bench.run("backup-config", &args).expect(0);
        assert_eq!(notices.told()[0].0, "task-succeeded");
    }
}

/// A service that is down for a while: the task ends as it does, says that its notice waits, and the next one brings it.
#[test]
fn a_notice_that_waits_is_brought_by_the_next_task() {
    let (bench, notices) = told("");
    std::fs::create_dir(bench.path("etc")).unwrap();
    bench.write("etc/app.conf", "listen = 80\n");
    let args = [&LOCAL[..], &["etc", "gone"]].concat();
    notices.sink.answer(|_, _| Answer::status(503));
    let failed = bench.run("backup-config", &args).expect(3);
    assert!(failed.stderr.contains("notification waits in the outbox"), "{}", failed.stderr);
    notices.sink.answer(|_, _| Answer::ok(""));
    notices.told();
    let mut told = Vec::new();
    support::until(|| {
        bench.run("backup-config", &[&LOCAL[..], &["etc"]].concat()).expect(0);
        told.extend(notices.told());
        told.len() >= 2
    });
    let kinds: Vec<&str> = told.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(kinds, ["task-failed", "task-succeeded"], "{told:?}");
}

/// Two tasks of one program over one stanza: each has an end of its own.
#[test]
fn the_backup_of_one_database_does_not_end_what_is_told_of_another() {
    let server = postgres();
    let (mut bench, notices) = told("");
    bench.reach(&server, "postgres");
    let run = |database: &str, is_done: bool| {
        let ended = bench.run("backup-database", &[&LOCAL[..], &["--database", database]].concat());
        assert_eq!(ended.code == 0, is_done, "{ended:?}");
        notices.told().into_iter().map(|(kind, ..)| kind).collect::<Vec<_>>()
    };
    run("postgres", true);
    assert_eq!(run("shop", false), ["task-failed"]);
    assert_eq!(run("postgres", true), [""; 0]);
    server.psql("postgres", "CREATE DATABASE shop").unwrap();
    assert_eq!(run("shop", true), ["task-succeeded"]);
}
