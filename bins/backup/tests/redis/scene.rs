//! Servers with keys of every kind, the program, and what it stored.

use std::path::{Path, PathBuf};
use std::process::Command;

use backstay_testkit::{RedisOptions, TestRedis};
use serde_json::Value;

use crate::support::{Bench, files, until};

pub const LOCAL: [&str; 2] = ["--repository", "./local"];
pub const PROGRAM: &str = "backup-redis";

pub fn quick() -> RedisOptions {
    RedisOptions::default().setting("repl-diskless-sync-delay", "0")
}

pub fn start(options: &RedisOptions) -> TestRedis {
    TestRedis::start_blocking(options).unwrap()
}

/// Keys of every kind in three databases; 40 of them, 12 of which expire.
pub fn fill(server: &TestRedis) {
    for number in 0..10 {
        let key = format!("k{number}");
        for command in [
            &["-n", "0", "SET", &format!("string:{key}"), &"session ".repeat(40), "EX", "100000"][..],
            &["-n", "0", "HSET", &format!("hash:{key}"), "f", "1", "g", "two"],
            &["-n", "3", "ZADD", &format!("zset:{key}"), "1.5", "a", "2.5", "b"],
            &["-n", "9", "XADD", &format!("stream:{key}"), "*", "f", "v"],
        ] {
            server.cli(command).unwrap();
        }
    }
    server.cli(&["-n", "9", "XGROUP", "CREATE", "stream:k0", "group", "0"]).unwrap();
    server.cli(&["-n", "9", "XREADGROUP", "GROUP", "group", "me", "STREAMS", "stream:k0", ">"]).unwrap();
    server.cli(&["-n", "3", "EXPIRE", "zset:k0", "100000"]).unwrap();
    server.cli(&["-n", "3", "EXPIRE", "zset:k1", "100000"]).unwrap();
    server
        .cli(&["FUNCTION", "LOAD", "#!lua name=mine\nredis.register_function('f', function() return 1 end)"])
        .unwrap();
}

pub fn bench(server: &TestRedis) -> Bench {
    let mut bench = Bench::new();
    bench.set("BACKSTAY_REDIS_URL", server.url());
    bench
}

pub fn back_up(bench: &Bench, args: &[&str]) -> Value {
    let (ended, report) = bench.json(PROGRAM, &[&LOCAL, args].concat());
    ended.expect(0);
    report
}

/// The only file of a repository whose name begins so.
pub fn object(bench: &Bench, name: &str) -> PathBuf {
    let mut found = files(&bench.path("local"));
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name));
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.remove(0)
}

/// Opens an object with stock `zstd`, and `age` where it is encrypted.
pub fn open(object: &Path, key: Option<&Path>, to: &Path) {
    let mut script = "zstd -dc".to_owned();
    if let Some(key) = key {
        script = format!("age -d -i {} | {script}", key.display());
    }
    let input = std::fs::File::open(object).unwrap();
    let output = std::fs::File::create(to).unwrap();
    let status = Command::new("sh").args(["-c", &script]).stdin(input).stdout(output).status().unwrap();
    assert!(status.success());
}

/// A server that was started from the snapshot of a set.
pub fn restored(snapshot: &Path) -> TestRedis {
    let mut server = start(&RedisOptions::default());
    server.stop().unwrap();
    server.place_snapshot(snapshot).unwrap();
    server.restart().unwrap();
    server
}

pub fn setting(server: &TestRedis, name: &str) -> String {
    server.cli(&["CONFIG", "GET", name]).unwrap().lines().nth(1).unwrap_or_default().to_owned()
}

pub fn in_sync(primary: &TestRedis, replica: &TestRedis) {
    replica.cli(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).unwrap();
    until(|| primary.cli(&["INFO", "replication"]).unwrap().contains("state=online"));
    until(|| replica.cli(&["INFO", "replication"]).unwrap().contains("master_link_status:up"));
}

pub fn zstd_of(bench: &Bench, content: &[u8]) -> String {
    let (stored, plain) = (bench.path("small.zst"), bench.path("small"));
    std::fs::write(&stored, content).unwrap();
    open(&stored, None, &plain);
    std::fs::read_to_string(plain).unwrap()
}
