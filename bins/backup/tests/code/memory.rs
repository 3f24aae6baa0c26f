//! How much memory a backup takes of a repository with a few large files.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

use crate::support::{files, git, peak};
use crate::{COMMON, bench};

const FILES: u64 = 3;

/// Bytes of each. Git takes a minute to find that larger ones have nothing in common.
fn large() -> u64 {
    if std::env::var_os("BACKSTAY_SOAK").is_some() { 100 << 20 } else { 30 << 20 }
}

/// Of our process. Git takes as much as it takes: it holds a file of that size as a whole.
#[test]
fn memory_is_small_however_large_the_files_are() {
    let (bench, large) = (bench(), large());
    for number in 0..FILES {
        let mut noise = File::open("/dev/urandom").unwrap().take(large);
        let mut file = File::create(bench.path("shop").join(format!("large-{number}"))).unwrap();
        assert_eq!(std::io::copy(&mut noise, &mut file).unwrap(), large);
    }
    // Compressing noise takes most of the time otherwise.
    git(&bench.path("shop"), &["config", "core.compression", "0"]);
    git(&bench.path("shop"), &["add", "."]);
    git(&bench.path("shop"), &["commit", "-q", "-m", "large"]);
    let args = [&COMMON[..], &["--uncommitted", "shop"]].concat();
    let mut command = bench.command("backup-code", &args);
    command.stdout(Stdio::null());
    let peak = peak(command);
    eprintln!("{peak} MiB for {} MiB in {FILES} files", (large >> 20) * FILES);
    assert!(peak <= 64, "{peak} MiB");
    let stored: u64 = files(&bench.path("local")).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(stored > large * FILES, "{stored} bytes");
}
