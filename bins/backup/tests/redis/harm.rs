//! Kills, and bits that flip.

use std::process::{Command, Stdio};
use std::time::Duration;

use backstay_testkit::RedisOptions;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::scene::{LOCAL, PROGRAM, back_up, bench, fill, quick, start};
use crate::support::{files, until};

#[test]
fn a_run_that_is_killed_or_stopped_leaves_whole_sets_only_and_a_server_as_it_was() {
    let server = start(&RedisOptions::default().setting("repl-diskless-sync-delay", "0"));
    fill(&server);
    let bench = bench(&server);
    back_up(&bench, &[]);
    server.cli(&["CONFIG", "SET", "rdb-key-save-delay", "10000"]).unwrap();
    let seed = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..8 {
        let mut running =
            bench.command(PROGRAM, &LOCAL).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(0..500)));
        let id = running.id().to_string();
        let signal = if round % 2 == 0 { "-KILL" } else { "-TERM" };
        let _ = Command::new("kill").args([signal, &id]).stderr(Stdio::null()).status();
        let status = running.wait().unwrap();
        assert!(matches!(status.code(), None | Some(0 | 5)), "seed {seed}, round {round}: {status}");
    }
    server.cli(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).unwrap();
    until(|| !server.cli(&["INFO", "replication"]).unwrap().contains("slave0:"));
    let checked = bench.run("verify-backups", &[&LOCAL[..], &["--full", "--content"]].concat()).expect(0);
    assert!(checked.stdout.contains(" 0 failed"), "seed {seed}: {}", checked.stdout);
    // The lease of a killed run is outwaited.
    assert_eq!(back_up(&bench, &[])["keys"], 40);
}

#[test]
fn flipped_bits_of_a_stored_set_are_found() {
    let flips = if std::env::var_os("BACKSTAY_SOAK").is_some() { 1_000 } else { 60 };
    let server = start(&quick());
    fill(&server);
    let bench = bench(&server);
    back_up(&bench, &[]);
    let mut stored = files(&bench.path("local"));
    stored.retain(|path| path.to_str().unwrap().contains("/sets/"));
    let seed = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    for flip in 0..flips {
        let path = &stored[rng.random_range(0..stored.len())];
        let good = std::fs::read(path).unwrap();
        let mut bad = good.clone();
        bad[rng.random_range(0..good.len())] ^= 1 << rng.random_range(0..8);
        std::fs::write(path, bad).unwrap();
        let ended = bench.run("verify-backups", &[&LOCAL[..], &["--full", "--no-proof"]].concat());
        assert_eq!(ended.code, 3, "seed {seed}, flip {flip} of {}: {}", path.display(), ended.stdout);
        std::fs::write(path, good).unwrap();
    }
    bench.run("verify-backups", &[&LOCAL[..], &["--full"]].concat()).expect(0);
}
