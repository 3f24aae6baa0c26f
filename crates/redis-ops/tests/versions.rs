//! Snapshots of every Redis and Valkey that is installed: every kind of value counted, expiries rewritten, loaded again.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::Path;

use backstay_backup_core::secret::Secret;
use backstay_redis_ops::psync::{Answer, Position, PsyncOptions, connect};
use backstay_redis_ops::rdb::{Checksum, Contents, Expiries, RdbFacts, RdbScanner, shift_expires};
use backstay_redis_ops::{Address, Endpoint, Login};
use backstay_testkit::{RedisOptions, RedisProgram, TestRedis};
use jiff::Timestamp;

/// An hour in milliseconds.
const HOUR: i64 = 3_600_000;
/// What may go by between two questions to a server that tells only how long a key has left.
const WHILE: i64 = 300_000;

fn start(program: &Path) -> TestRedis {
    TestRedis::start_blocking(
        &RedisOptions::default().program(program).setting("repl-diskless-sync-delay", "0"),
    )
    .unwrap()
}

fn number(server: &TestRedis, words: &[&str]) -> i64 {
    server.cli(words).unwrap().lines().last().unwrap().parse().unwrap()
}

/// Values of every kind, in every encoding that sizes lead to.
fn fill(program: &RedisProgram, server: &TestRedis) {
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
    if program.major >= 7 {
        let code =
            "#!lua name=mine\nredis.register_function('f', function() return 'a rather long text' end)";
        run(&["FUNCTION", "LOAD", code], &[]);
    }
    if program.has_field_expiries() {
        run(&["HPEXPIRE", "hash:small", "700000", "FIELDS", "1", "field0"], &[]);
        run(&["HPEXPIRE", "hash:large", "800000", "FIELDS", "2", "field0", "field500"], &[]);
    }
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
fn loaded(program: &Path, rdb: &[u8], expiries: Expiries) -> TestRedis {
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

/// When a key expires, in milliseconds; -1 for never.
fn expiry(program: &RedisProgram, server: &TestRedis, database: &str, key: &str) -> i64 {
    if program.major >= 7 {
        return number(server, &["-n", database, "PEXPIRETIME", key]);
    }
    match number(server, &["-n", database, "PTTL", key]) {
        -1 => -1,
        left => Timestamp::now().as_millisecond() + left,
    }
}

const FIELD: [&str; 5] = ["HPEXPIRETIME", "hash:small", "FIELDS", "1", "field0"];
const LARGE_FIELD: [&str; 5] = ["HPEXPIRETIME", "hash:large", "FIELDS", "1", "field500"];
const PLAIN_FIELD: [&str; 5] = ["HPEXPIRETIME", "hash:large", "FIELDS", "1", "field7"];

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_counted_rewritten_and_loaded_again() {
    for program in RedisProgram::all().unwrap() {
        let server = start(&program.path);
        fill(&program, &server);
        let rdb = snapshot(&server).await;
        is_counted(&program, &server, &facts(&rdb));
        let moved = loaded(&program.path, &rdb, Expiries::Shift(HOUR));
        let stripped = loaded(&program.path, &rdb, Expiries::Strip);
        let name = &program.name;
        for (database, key) in [("0", "string"), ("7", "elsewhere")] {
            let at = |server| expiry(&program, server, database, key);
            let off = at(&moved) - at(&server) - HOUR;
            let allowed = if program.major >= 7 { 0 } else { WHILE };
            assert!(off.abs() <= allowed, "{name}: {key} is off by {off} ms");
            assert_eq!(at(&stripped), -1, "{name}: {key}");
        }
        if program.has_field_expiries() {
            for words in [&FIELD, &LARGE_FIELD] {
                assert_eq!(number(&moved, words), number(&server, words) + HOUR, "{name}: {words:?}");
                assert_eq!(number(&stripped, words), -1, "{name}: {words:?}");
            }
            assert_eq!(number(&moved, &PLAIN_FIELD), -1, "{name}");
        }
        assert_eq!(number(&moved, &["DBSIZE"]), number(&server, &["DBSIZE"]), "{name}");
        is_equal(&program, &server, &moved);
        is_equal(&program, &server, &stripped);
        println!("{name}: {} bytes", rdb.len());
    }
}

fn is_counted(program: &RedisProgram, server: &TestRedis, facts: &RdbFacts) {
    let name = &program.name;
    assert_eq!((&facts.contents, facts.checksum), (&Contents::Counted, Checksum::Right), "{name}: {facts:?}");
    for database in ["0", "7"] {
        let there = number(server, &["-n", database, "DBSIZE"]);
        let counted = facts.databases[&database.parse().unwrap()].keys;
        assert_eq!(counted, u64::try_from(there).unwrap(), "{name}: keys of database {database}");
    }
    assert_eq!(facts.expires(), 2, "{name}");
    let functions = if program.major >= 7 { vec!["mine".to_owned()] } else { Vec::new() };
    assert_eq!(facts.functions, functions, "{name}");
    let fields = if program.has_field_expiries() { 2 } else { 0 };
    assert_eq!(facts.databases[&0].field_expires, fields, "{name}");
}

fn is_equal(program: &RedisProgram, one: &TestRedis, other: &TestRedis) {
    let functions = (program.major >= 7).then_some(&["FUNCTION", "LIST"][..]);
    let questions = [
        &["HGETALL", "hash:large"][..],
        &["HGETALL", "hash:small"],
        &["XINFO", "STREAM", "stream"],
        &["ZRANGE", "zset:large", "0", "-1", "WITHSCORES"],
        &["GET", "string"],
    ];
    for words in questions.into_iter().chain(functions) {
        let sorted = |server: &TestRedis| {
            let mut lines: Vec<String> = server.cli(words).unwrap().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(one), sorted(other), "{}: {words:?}", program.name);
    }
}
