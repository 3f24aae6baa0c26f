//! `restore-database` on a real server: the program's words, exit codes, and what it must not touch.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::process::{Command, Stdio};

use support::{Scene, key_text, until};

#[test]
fn help_fits_a_screen_and_shows_a_cron_line() {
    let help = support::Bench::new().run("restore-database", &["--help"]).expect(0).stdout;
    assert!(help.lines().count() <= 50 && help.contains("0 4 * * 0  restore-database "), "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
}

#[test]
fn a_lost_database_comes_back_proven() {
    let scene = Scene::new(&[]);
    scene.server.psql("postgres", "DROP DATABASE shop").unwrap();
    let plan = scene.run(&["--dry-run"]).expect(0);
    assert!(plan.stdout.contains("into database shop"), "{}", plan.stdout);
    assert_eq!(scene.databases(), "postgres");
    let receipt = scene.run(&["--json"]).expect(0);
    let receipt: serde_json::Value = serde_json::from_str(&receipt.stdout).unwrap();
    assert_eq!(receipt["database"], "shop");
    assert_eq!(receipt["comparison"]["differences"], serde_json::json!([]));
    assert_eq!((scene.databases().as_str(), scene.count("shop").as_str()), ("postgres shop", "500"));
}

#[test]
fn a_filled_target_is_refused_and_replaced_only_on_request() {
    let scene = Scene::new(&[]);
    scene.server.psql("shop", "DELETE FROM item").unwrap();
    let refused = scene.run(&[]).expect(4);
    assert!(
        refused.stderr.starts_with("error: database shop exists and is not empty\nhint: "),
        "{}",
        refused.stderr
    );
    assert_eq!(scene.count("shop"), "0");
    let replaced = scene.run(&["--replace"]).expect(0);
    assert!(replaced.stdout.contains("the old database is kept as shop_before_"), "{}", replaced.stdout);
    assert_eq!(scene.count("shop"), "500");
}

#[test]
fn a_damaged_set_is_refused_before_the_target_is_touched() {
    let scene = Scene::new(&[]);
    support::flip_a_bit(&scene.data());
    let refused = scene.run(&["--target-database", "copy"]).expect(3);
    assert!(refused.stderr.contains(" is damaged: "), "{}", refused.stderr);
    assert_eq!(scene.databases(), "postgres shop");
}

#[test]
fn an_encrypted_set_asks_for_its_key_and_opens_with_it() {
    let key = age::x25519::Identity::generate();
    let other = age::x25519::Identity::generate();
    let public = key.to_public().to_string();
    let scene = Scene::new(&[&public]);
    scene.bench.write_secret("right.key", &key_text(&key));
    scene.bench.write_secret("wrong.key", &key_text(&other));
    let without = scene.run(&["--target-database", "copy"]).expect(2);
    assert!(without.stderr.contains("hint: give the private key"), "{}", without.stderr);
    let wrong = scene.run(&["--target-database", "copy", "--identity-file", "wrong.key"]).expect(2);
    assert!(!wrong.stderr.contains("AGE-SECRET-KEY"), "{}", wrong.stderr);
    assert_eq!(scene.databases(), "postgres shop");
    scene.run(&["--target-database", "copy", "--identity-file", "right.key"]).expect(0);
    assert_eq!(scene.count("copy"), "500");
}

#[test]
fn sets_that_are_not_there_are_an_answer() {
    let scene = Scene::new(&[]);
    let cases: [&[&str]; 4] = [
        &["--set", "2020"],
        &["--at", "2020-01-01T00:00:00Z"],
        &["--database", "other"],
        &["--stanza", "other"],
    ];
    for args in cases {
        let ended = scene.run(args).expect(1);
        assert!(ended.stderr.starts_with("error: no "), "{}", ended.stderr);
        assert!(ended.stderr.contains("hint: `list-backups` shows the sets there are"), "{}", ended.stderr);
    }
    assert_eq!(scene.databases(), "postgres shop");
}

#[test]
fn sigterm_ends_a_restore_with_its_sessions() {
    let scene = Scene::new(&[]);
    scene.server.psql("shop", "DROP TABLE note").unwrap();
    // Who makes the same table waits for the end of this transaction: the signal is certain to come inside the restore.
    let mut psql = scene.server.client("psql").unwrap();
    psql.args(["-X", "-q", "-d", "shop", "-c", "BEGIN; CREATE TABLE note (x int); SELECT pg_sleep(600)"]);
    let mut holder = psql.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let asked = |query: &str| scene.server.psql("postgres", query).unwrap();
    until(|| {
        asked("SELECT count(*) FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND pid <> pg_backend_pid()")
            == "1"
    });
    let args = ["--repository", "./local", "--table", "public.note"];
    let mut command = scene.bench.command("restore-database", &args);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until(|| asked("SELECT count(*) FROM pg_locks WHERE NOT granted") != "0");
    let signal = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{words}");
    assert!(words.contains("error: stopped by a signal\nhint: "), "{words}");
    until(|| {
        asked("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^(backstay|pg_restore)'")
            == "0"
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
}
