//! What is left when a test process dies without a chance to clean up: nothing.
#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstay_testkit::{PostgresOptions, RedisOptions, TestPostgres, TestRedis};

const ANNOUNCEMENT: &str = "running:";

/// Set in the process that the tests start and kill.
const HELPER: &str = "BACKSTAY_TEST_HELPER";

/// What that process does. Starts the servers from a thread that ends, as tests do.
fn help() {
    let start = || {
        let postgres = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
        let redis = TestRedis::start_blocking(&RedisOptions::default()).unwrap();
        (postgres, redis)
    };
    let (postgres, redis) = std::thread::spawn(start).join().unwrap();
    let mut session = postgres.client("psql").unwrap();
    let endless = "SELECT count(*) FROM generate_series(1, 100000000000::bigint)";
    let mut session = session.args(["-d", "postgres", "-c", endless]).spawn().unwrap();
    let active =
        format!("SELECT count(*) FROM pg_stat_activity WHERE query = '{endless}' AND state = 'active'");
    while postgres.psql("postgres", &active).unwrap() != "1" {}
    if std::env::var_os("BACKSTAY_TEST_FREEZE").is_some() {
        postgres.process().unwrap().freeze();
        redis.process().unwrap().freeze();
    }
    println!(
        "{ANNOUNCEMENT} {} {} {} {} {} {}",
        postgres.process().unwrap().pid(),
        postgres.port(),
        postgres.scratch().path().display(),
        redis.process().unwrap().pid(),
        redis.port(),
        redis.data_directory().display(),
    );
    session.wait().unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

struct Helper {
    child: Child,
    pids: Vec<u32>,
    ports: Vec<u16>,
    directories: Vec<PathBuf>,
}

fn start_helper(freeze: bool) -> Helper {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "nothing_outlives_a_killed_test_process", "--nocapture"]);
    command.env(HELPER, "1").stdout(Stdio::piped()).stderr(Stdio::null());
    if freeze {
        command.env("BACKSTAY_TEST_FREEZE", "1");
    }
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines
        .map(Result::unwrap)
        .find(|line| line.contains(ANNOUNCEMENT))
        .expect("the helper started its servers");
    let words: Vec<_> = line.split_once(ANNOUNCEMENT).unwrap().1.split_whitespace().collect();
    let [postgres, postgres_port, postgres_directory, redis, redis_port, redis_directory] = words[..] else {
        panic!("unexpected line: {line}")
    };
    let mut pids = vec![postgres.parse().unwrap(), redis.parse().unwrap()];
    let children = children_of(pids[0]);
    assert!(children.len() >= 4, "PostgreSQL has background processes");
    pids.extend(children);
    Helper {
        child,
        pids,
        ports: vec![postgres_port.parse().unwrap(), redis_port.parse().unwrap()],
        directories: vec![postgres_directory.into(), redis_directory.into()],
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

fn assert_all_gone(helper: &Helper, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let pids: Vec<_> = helper.pids.iter().filter(|pid| runs(**pid)).collect();
        let ports: Vec<_> =
            helper.ports.iter().filter(|port| TcpStream::connect(("127.0.0.1", **port)).is_ok()).collect();
        let directories: Vec<_> = helper.directories.iter().filter(|directory| directory.exists()).collect();
        if pids.is_empty() && ports.is_empty() && directories.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {pids:?} {ports:?} {directories:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_outlives_a_killed_test_process() {
    if std::env::var_os(HELPER).is_some() {
        return help();
    }
    let mut helper = start_helper(false);
    helper.child.kill().unwrap();
    helper.child.wait().unwrap();
    assert_all_gone(&helper, Duration::from_secs(10));
}

#[test]
fn a_frozen_server_does_not_outlive_a_killed_test_process_either() {
    let mut helper = start_helper(true);
    helper.child.kill().unwrap();
    helper.child.wait().unwrap();
    assert_all_gone(&helper, Duration::from_secs(10));
}
