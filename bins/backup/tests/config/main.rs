//! `backup-config` as it is run.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod faults;
mod ordinary;
mod secrets;
mod section;
#[path = "../support/mod.rs"]
mod support;
mod system;
mod usual;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Bench, files};

const COMMON: [&str; 2] = ["--repository", "./local"];

/// A folder with a file to back up, and the public key that sets are encrypted to.
fn bench() -> (Bench, String) {
    let mut bench = Bench::new();
    let key = age::x25519::Identity::generate().to_public().to_string();
    bench.set("BACKSTAY_ENCRYPTION_RECIPIENTS", &key);
    bench.set("BACKSTAY_ENCRYPTION_ALLOW_SINGLE_RECIPIENT", "true");
    fs::create_dir(bench.path("etc")).unwrap();
    bench.write("etc/app.conf", "listen = 80\n");
    (bench, key)
}

/// The object of that name, wherever it is in the only repository `local`.
fn object(bench: &Bench, name: &str) -> PathBuf {
    let mut found = files(&bench.path("local/main/sets"));
    found.retain(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)));
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.remove(0)
}

/// What stock tools make of something, in a folder.
#[track_caller]
fn shell(script: &str, folder: &Path) -> String {
    let output =
        Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
