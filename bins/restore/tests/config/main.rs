//! `restore-config` as it is run.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod faults;
mod ordinary;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
mod usual;

use std::fs;
use std::path::PathBuf;

use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::store::SharedStore;
use backstay_file_ops::SelectionOptions;
use backstay_file_ops::config_set::{ConfigOptions, backup_config};
use support::{Bench, folder, key_text, repositories};
use tokio_util::sync::CancellationToken;

const COMMON: [&str; 4] = ["--repository", "./local", "--identity-file", "key.txt"];

/// A set of `etc`, encrypted to the key in `key.txt`.
fn bench() -> Bench {
    let bench = Bench::new();
    let options = prepare(&bench);
    in_a_folder(&bench, &options);
    bench
}

/// Makes the key and two files, and says how they are backed up.
fn prepare(bench: &Bench) -> ConfigOptions {
    let key = age::x25519::Identity::generate();
    bench.write_secret("key.txt", &key_text(&key));
    fs::create_dir_all(bench.path("etc/app")).unwrap();
    bench.write("etc/app/main.conf", "listen = 80\n");
    bench.write("etc/app/other.conf", "x\n");
    let mut selection = SelectionOptions::default();
    selection.paths = vec![etc(bench)];
    let mut options = ConfigOptions::new(Stanza::parse("main").unwrap(), selection);
    let recipient = key.to_public().to_string();
    options.recipients = Recipients::parse([recipient.as_str()]).unwrap();
    options
}

/// Backs up into the repository `local`.
fn in_a_folder(bench: &Bench, options: &ConfigOptions) {
    let store = folder(bench, "local");
    tokio::runtime::Runtime::new().unwrap().block_on(Box::pin(store_in(store, options)));
}

/// Makes a repository with one set.
async fn store_in(store: SharedStore, options: &ConfigOptions) {
    let repositories = repositories([store]).await;
    backup_config(&repositories, options, &Progress::new(), &CancellationToken::new()).await.unwrap();
}

fn etc(bench: &Bench) -> PathBuf {
    bench.path("").canonicalize().unwrap().join("etc")
}
