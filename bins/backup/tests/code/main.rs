//! `backup-code` as it is run, and what the other programs make of its sets.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod memory;
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod usual;

use std::fs;

use support::Bench;

const COMMON: [&str; 4] = ["--repository", "./local", "--scratch", "scratch"];

/// A key, a scratch folder, and two repositories with one commit each.
fn bench() -> Bench {
    let mut bench = Bench::new();
    let key = age::x25519::Identity::generate();
    bench.set("BACKSTAY_ENCRYPTION_RECIPIENTS", key.to_public().to_string());
    bench.set("BACKSTAY_ENCRYPTION_ALLOW_SINGLE_RECIPIENT", "true");
    bench.write_secret("key.txt", age::secrecy::ExposeSecret::expose_secret(&key.to_string()));
    for repository in ["shop", "tools"] {
        bench.init(repository);
        bench.commit(repository, "README", "hello\n");
    }
    fs::create_dir(bench.path("scratch")).unwrap();
    bench
}
