//! `restore-code` as it is run.
#![allow(clippy::unwrap_used, missing_docs)]

mod stores;
#[path = "../support/mod.rs"]
mod support;
mod usual;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::process::{CommandRunner, SystemRunner};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_file_ops::code::{CodeOptions, backup_code};
use support::{Bench, folder, git, key_text, repositories};
use tokio_util::sync::CancellationToken;

const COMMON: [&str; 4] = ["--repository", "./local", "--identity-file", "key.txt"];

/// A full set and an increment of `shop`, encrypted to the key in `key.txt`, in the repository `local`.
fn bench() -> Bench {
    let bench = Bench::new();
    let store = folder(&bench, "local");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        Box::pin(fill(&bench, &repositories([store]).await)).await;
    });
    bench
}

/// Makes the key and the shop, and backs it up twice.
async fn fill(bench: &Bench, repositories: &Repositories) {
    let key = age::x25519::Identity::generate();
    bench.write_secret("key.txt", &key_text(&key));
    fs::create_dir(bench.path("scratch")).unwrap();
    bench.init("shop");
    let stanza = Stanza::parse("main").unwrap();
    let mut options = CodeOptions::new(stanza, "shop", &bench.path("shop"), &bench.path("scratch"));
    let recipient = key.to_public().to_string();
    options.recipients = Recipients::parse([recipient.as_str()]).unwrap();
    options.uncommitted = true;
    let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    let runner: Arc<dyn CommandRunner> = Arc::new(SystemRunner::new(&environment));
    for file in ["first", "second"] {
        bench.commit("shop", file, file);
        git(&bench.path("shop"), &["tag", file]);
        bench.write("shop/untracked", "u\n");
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        backup_code(repositories, &options, &runner, &progress, &cancel).await.unwrap();
    }
}
