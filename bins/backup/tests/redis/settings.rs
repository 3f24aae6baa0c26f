//! Settings of the server that are changed for a moment: whatever happens, they are put back.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstay_testkit::{RedisOptions, TestRedis};

use crate::scene::{LOCAL, PROGRAM, back_up, bench, fill, quick, setting, start};
use crate::support::{Bench, files, until};

const NAMES: [&str; 2] = ["repl-diskless-sync-delay", "rdbcompression"];

fn settings(server: &TestRedis) -> [String; 2] {
    NAMES.map(|name| setting(server, name))
}

#[test]
fn changed_settings_of_the_server_are_put_back() {
    let server = start(&RedisOptions::default().setting("repl-diskless-sync-delay", "7"));
    fill(&server);
    let bench = bench(&server);
    let began = Instant::now();
    let report = back_up(&bench, &["--tune-server"]);
    assert!(began.elapsed() < Duration::from_secs(7), "it waited for other replicas");
    assert_eq!(report["keys"], 40);
    assert_eq!(settings(&server), ["7", "yes"]);
}

/// A server that is busy saving, so that a snapshot has to wait, and the program that waits, with the settings changed.
fn waiting(key_delay: &str) -> (TestRedis, Bench, Child) {
    let server = start(&RedisOptions::default().setting("repl-diskless-sync-delay", "7"));
    fill(&server);
    let bench = bench(&server);
    // For each of 40 keys, in microseconds.
    server.cli(&["CONFIG", "SET", "rdb-key-save-delay", key_delay]).unwrap();
    server.cli(&["BGSAVE"]).unwrap();
    let mut command = bench.command(PROGRAM, &[&LOCAL[..], &["--tune-server"]].concat());
    let running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until(|| settings(&server) == ["0", "no"]);
    (server, bench, running)
}

fn signal(running: &Child, name: &str) {
    let told = Command::new("kill").args([name, &running.id().to_string()]).status().unwrap();
    assert!(told.success());
}

#[test]
fn changed_settings_are_put_back_when_the_program_is_killed_or_stopped() {
    for (name, code) in [("-KILL", None), ("-TERM", Some(5))] {
        let (server, bench, mut running) = waiting("1000000");
        signal(&running, name);
        assert_eq!(running.wait().unwrap().code(), code, "{name}");
        until(|| settings(&server) == ["7", "yes"]);
        assert!(files(&bench.path("local")).iter().all(|path| !path.ends_with("manifest.json")));
    }
}

#[test]
fn changed_settings_are_put_back_by_the_program_itself_when_nobody_else_is_left() {
    let (server, _bench, mut running) = waiting("100000");
    server.cli(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).unwrap();
    let custodians = children_of(running.id());
    assert_eq!(custodians.len(), 1, "one process watches over the settings");
    assert!(Command::new("kill").args(["-KILL", &custodians[0]]).status().unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(0));
    assert_eq!(settings(&server), ["7", "yes"]);
}

/// Processes that a process started, whichever of its threads did.
fn children_of(process: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn changed_settings_are_put_back_as_soon_as_a_server_answers_again() {
    let (server, _bench, mut running) = waiting("1000000");
    server.process().unwrap().freeze();
    signal(&running, "-KILL");
    running.wait().unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    server.process().unwrap().thaw();
    until(|| settings(&server) == ["7", "yes"]);
}

#[test]
fn a_user_that_may_not_change_settings_is_told_so_and_nothing_is_changed() {
    let server = start(&RedisOptions::default().setting("repl-diskless-sync-delay", "7"));
    fill(&server);
    let rules = "-@all +psync +replconf +ping +info +time +config|get";
    let words: Vec<&str> =
        ["ACL", "SETUSER", "backup", "on", ">word"].into_iter().chain(rules.split(' ')).collect();
    server.cli(&words).unwrap();
    let mut bench = Bench::new();
    bench.set("BACKSTAY_REDIS_URL", format!("redis://backup:word@127.0.0.1:{}", server.port()));
    let refused = bench.run(PROGRAM, &[&LOCAL[..], &["--tune-server"]].concat()).expect(2).stderr;
    assert!(refused.contains("ACL SETUSER backup +config|get +config|set"), "{refused}");
    assert_eq!(settings(&server), ["7", "yes"]);
    let both = ["--tune-server", "--via", "bgsave"];
    let refused = bench.run(PROGRAM, &[&LOCAL[..], &both].concat()).expect(2).stderr;
    assert!(refused.contains("--via bgsave"), "{refused}");
}

#[test]
fn settings_that_are_right_already_are_left_alone() {
    let server = start(&quick().setting("rdbcompression", "no"));
    fill(&server);
    assert_eq!(back_up(&bench(&server), &["--tune-server"])["keys"], 40);
    assert_eq!(settings(&server), ["0", "no"]);
}
