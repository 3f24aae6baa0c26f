//! Snapshots of every Redis and Valkey that is installed: every kind of value counted, expiries rewritten, loaded again.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use backstay_backup_core::secret::Secret;
use backstay_redis_ops::psync::{Answer, Position, PsyncOptions, connect};
use backstay_redis_ops::rdb::{Checksum, Contents, Expiries, RdbFacts, RdbScanner, shift_expires};
use backstay_redis_ops::{Address, Endpoint, Login};
use backstay_testkit::{RedisOptions, TestRedis, cache_directories};

/// An hour in milliseconds.
const HOUR: i64 = 3_600_000;

/// The distribution's, and those that `scripts/setup.sh --redis` fetched.
fn programs() -> Vec<PathBuf> {
    let mut programs = vec![PathBuf::from("/usr/bin/redis-server")];
    for cache in cache_directories() {
        let Ok(folders) = std::fs::read_dir(cache.join("redis")) else { continue };
        let mut found: Vec<_> =
            folders.map(|folder| folder.unwrap().path().join("bin/redis-server")).collect();
        found.retain(|program| program.is_file());
        found.sort();
        programs.extend(found);
    }
    programs
}

fn start(program: &PathBuf) -> TestRedis {
    TestRedis::start_blocking(
        &RedisOptions::default().program(program).setting("repl-diskless-sync-delay", "0"),
    )
    .unwrap()
}

fn number(server: &TestRedis, words: &[&str]) -> i64 {
    server.cli(words).unwrap().lines().last().unwrap().parse().unwrap()
}

/// Values of every kind, in every encoding that sizes lead to. True when fields of hashes can expire there.
fn fill(server: &TestRedis) -> bool {
    let many: Vec<String> = (0..600).flat_map(|n| [format!("field{n}"), format!("value{n}")]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let scores: Vec<String> = (0..300).flat_map(|n| [format!("{n}.5"), format!("member{n}")]).collect();
    let scores: Vec<&str> = scores.iter().map(String::as_str).collect();
    let long = "long text, ".repeat(200);
    let run = |words: &[&str], rest: &[&str]| server.cli(&[words, rest].concat()).unwrap();
    for key in ["small", "large"] {
        let rest = if key == "small" { 4 } else { many.len() };
        run(&["HSET", &format!("hash:{key}")], &many[..rest]);
        run(&["SADD", &format!("set:{key}")], &many[..rest]);
        run(&["RPUSH", &format!("list:{key}")], &many[..rest]);
        run(&["ZADD", &format!("zset:{key}")], &scores[..rest.min(scores.len())]);
    }
    run(&["SADD", "set:numbers", "1", "2", "300000"], &[]);
    run(&["RPUSH", "list:long", &long, "short"], &[]);
    run(&["SET", "number", "123456"], &[]);
    run(&["SET", "string", &long, "PX", "900000"], &[]);
    run(&["PFADD", "log", "a", "b"], &[]);
    for n in 1..=250 {
        run(&["XADD", "stream", &format!("{n}-1"), "field", "value"], &[]);
    }
    run(&["XGROUP", "CREATE", "stream", "group", "0"], &[]);
    run(&["XREADGROUP", "GROUP", "group", "me", "COUNT", "5", "STREAMS", "stream", ">"], &[]);
    run(&["-n", "7", "SET", "elsewhere", "1", "PX", "900000"], &[]);
    run(
        &[
            "FUNCTION",
            "LOAD",
            "#!lua name=mine\nredis.register_function('f', function() return 'a rather long text' end)",
        ],
        &[],
    );
    let fields = server.cli(&["HPEXPIRE", "hash:small", "700000", "FIELDS", "1", "field0"]).is_ok();
    if fields {
        run(&["HPEXPIRE", "hash:large", "800000", "FIELDS", "2", "field0", "field500"], &[]);
    }
    fields
}

async fn snapshot(server: &TestRedis) -> Vec<u8> {
    let password = server.password().map(|password| Secret::new(password.to_owned()));
    let endpoint = Endpoint::new(Address::new("127.0.0.1", server.port())).login(Login::new(None, password));
    let options = PsyncOptions::default().snapshot_only();
    let Answer::Full(mut full) = connect(&endpoint, Position::New, &options).await.unwrap() else { panic!() };
    let mut all = Vec::new();
    while full.read(&mut all, 1 << 20).await.unwrap() > 0 {}
    all
}

fn facts(rdb: &[u8]) -> RdbFacts {
    let mut scanner = RdbScanner::new();
    for piece in rdb.chunks(777) {
        scanner.push(piece).unwrap();
    }
    scanner.finish().unwrap()
}

/// A server of that program with the rewritten snapshot.
fn loaded(program: &PathBuf, rdb: &[u8], expiries: Expiries) -> TestRedis {
    let mut rewritten = Vec::new();
    shift_expires(rdb, &mut rewritten, expiries).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rewritten).unwrap();
    let mut server = start(program);
    server.stop().unwrap();
    server.place_snapshot(file.path()).unwrap();
    server.restart().unwrap();
    server
}

const FIELD: [&str; 5] = ["HPEXPIRETIME", "hash:small", "FIELDS", "1", "field0"];
const LARGE_FIELD: [&str; 5] = ["HPEXPIRETIME", "hash:large", "FIELDS", "1", "field500"];
const PLAIN_FIELD: [&str; 5] = ["HPEXPIRETIME", "hash:large", "FIELDS", "1", "field7"];

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_counted_rewritten_and_loaded_again() {
    for program in programs() {
        let name = program.display();
        let server = start(&program);
        let fields = fill(&server);
        assert_eq!(fields, !name.to_string().starts_with("/usr/bin"), "{name}: expiring fields");
        let rdb = snapshot(&server).await;
        let facts = facts(&rdb);
        assert_eq!(
            (&facts.contents, facts.checksum),
            (&Contents::Counted, Checksum::Right),
            "{name}: {facts:?}"
        );
        for database in ["0", "7"] {
            let there = number(&server, &["-n", database, "DBSIZE"]);
            let counted = facts.databases[&database.parse().unwrap()].keys;
            assert_eq!(counted, u64::try_from(there).unwrap(), "{name}: keys of database {database}");
        }
        assert_eq!((facts.expires(), &facts.functions), (2, &vec!["mine".to_owned()]), "{name}");
        assert_eq!(facts.databases[&0].field_expires, if fields { 2 } else { 0 }, "{name}");

        let moved = loaded(&program, &rdb, Expiries::Shift(HOUR));
        let mut expiries = vec![vec!["PEXPIRETIME", "string"], vec!["-n", "7", "PEXPIRETIME", "elsewhere"]];
        if fields {
            expiries.extend([FIELD.to_vec(), LARGE_FIELD.to_vec()]);
            assert_eq!(number(&moved, &PLAIN_FIELD), -1, "{name}");
        }
        for words in &expiries {
            assert_eq!(number(&moved, words), number(&server, words) + HOUR, "{name}: {words:?}");
        }
        assert_eq!(number(&moved, &["DBSIZE"]), number(&server, &["DBSIZE"]), "{name}");
        let stripped = loaded(&program, &rdb, Expiries::Strip);
        for words in &expiries {
            assert_eq!(number(&stripped, words), -1, "{name}: {words:?}");
        }
        for words in [
            &["HGETALL", "hash:large"][..],
            &["HGETALL", "hash:small"],
            &["XINFO", "STREAM", "stream"],
            &["ZRANGE", "zset:large", "0", "-1", "WITHSCORES"],
            &["GET", "string"],
            &["FUNCTION", "LIST"],
        ] {
            let sorted = |server: &TestRedis| {
                let mut lines: Vec<String> = server.cli(words).unwrap().lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(&moved), sorted(&server), "{name}: {words:?}");
            assert_eq!(sorted(&stripped), sorted(&server), "{name}: {words:?}");
        }
    }
}
