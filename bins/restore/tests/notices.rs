//! What every program of this package tells of itself through `[notify.on]`, with real servers and a real service that is
//! told; `restore-redis` has its own beside its other tests.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../backup/tests/support/notices.rs"]
mod notices;
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::process::{CommandRunner, SystemRunner};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_file_ops::SelectionOptions;
use backstay_file_ops::code::{CodeOptions, backup_code};
use backstay_file_ops::config_set::{ConfigOptions, backup_config};
use backstay_testkit::PostgresOptions;
use cluster::Cluster;
use notices::{Notices, Task};
use support::{Bench, Scene, key_text};
use tokio_util::sync::CancellationToken;

/// The life of a program that restores from a repository, into a place that is made ready before each run.
fn lives(bench: &Bench, program: &str, repository: PathBuf, args: &[&str], ready: impl Fn()) {
    let notices = Notices::new();
    bench.write("backstay.toml", &notices.configuration());
    let place = repository.display().to_string();
    let command = || {
        ready();
        bench.command(program, &[&["--repository", &*place][..], args].concat())
    };
    let folder = bench.path("");
    Task { program, folder: &folder, repository, command: Box::new(command) }.lives(&notices);
}

#[test]
fn restores_of_databases_tell_how_they_end() {
    let scene = Scene::new(&[]);
    let args = ["--target-database", "copy"];
    lives(&scene.bench, "restore-database", scene.path("local"), &args, || {
        scene.server.psql("postgres", "DROP DATABASE IF EXISTS copy").unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_of_clusters_tell_how_they_end() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.back_up(&cluster.options()).await.unwrap();
    let mut bench = Bench::new();
    bench.set("BACKSTAY_POSTGRES_BIN_DIR", cluster.postgres.install().bin().display().to_string());
    let target = cluster.root.path().join("restored");
    let args = ["--data-directory", target.to_str().unwrap(), "--restore-command", "false"];
    let repository = cluster.root.path().join("repository");
    tokio::task::block_in_place(|| {
        lives(&bench, "restore-cluster", repository, &args, || {
            let _ = std::fs::remove_dir_all(&target);
        });
    });
}

/// A repository with a set of a folder and one of a git repository, both encrypted to the key in `key.txt`.
async fn sets(bench: &Bench, recipient: &str) {
    let recipients = Recipients::parse([recipient]).unwrap();
    let store = Arc::new(LocalStore::create(bench.path("local")).unwrap());
    let repository = Repository::create("local", store, &SystemClock).await.unwrap();
    let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let stanza = Stanza::parse("main").unwrap();
    let mut selection = SelectionOptions::default();
    selection.paths = vec![bench.path("").canonicalize().unwrap().join("etc")];
    let mut options = ConfigOptions::new(stanza.clone(), selection);
    options.recipients = recipients.clone();
    Box::pin(backup_config(&repositories, &options, &progress, &cancel)).await.unwrap();
    let mut options = CodeOptions::new(stanza, "shop", &bench.path("shop"), &bench.path("scratch"));
    options.recipients = recipients;
    let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    let runner: Arc<dyn CommandRunner> = Arc::new(SystemRunner::new(&environment));
    Box::pin(backup_code(&repositories, &options, &runner, &progress, &cancel)).await.unwrap();
}

#[test]
fn restores_of_configuration_and_code_tell_how_they_end() {
    let bench = Bench::new();
    let key = age::x25519::Identity::generate();
    bench.write_secret("key.txt", &key_text(&key));
    for folder in ["etc", "shop", "scratch"] {
        std::fs::create_dir(bench.path(folder)).unwrap();
    }
    bench.write("etc/app.conf", "listen = 80\n");
    let commit = "git init -q -b main && git -c user.name=a -c user.email=a@localhost commit -q --allow-empty -m first";
    let made = std::process::Command::new("sh").args(["-c", commit]).current_dir(bench.path("shop")).status();
    assert!(made.unwrap().success());
    tokio::runtime::Runtime::new().unwrap().block_on(sets(&bench, &key.to_public().to_string()));
    let local = || bench.path("local");
    let args = ["--identity-file", "key.txt", "--staging", "staging"];
    lives(&bench, "restore-config", local(), &args, || ());
    std::fs::remove_dir_all(bench.path("notices")).unwrap();
    let args = ["--identity-file", "key.txt", "--to", "back", "--apply"];
    lives(&bench, "restore-code", local(), &args, || {
        let _ = std::fs::remove_dir_all(bench.path("back"));
    });
}
