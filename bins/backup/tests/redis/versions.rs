//! Servers of every version: each is backed up in every way, and its snapshot loads again.

use backstay_testkit::{RedisProgram, TestRedis};

use crate::scene::{LOCAL, back_up, bench, object, open, setting, start};
use crate::support::Bench;

/// Keys in two databases, ten in all, two of which expire; fields that expire where a server has such.
fn fill(program: &RedisProgram, server: &TestRedis) {
    for number in 0..4 {
        server.cli(&["RPUSH", &format!("list:{number}"), "a", "b"]).unwrap();
        server.cli(&["-n", "2", "HSET", &format!("hash:{number}"), "f", "1", "g", "two"]).unwrap();
    }
    for key in ["mine", "yours"] {
        server.cli(&["SET", key, &"session ".repeat(40), "EX", "100000"]).unwrap();
    }
    if program.has_field_expiries() {
        server.cli(&["-n", "2", "HPEXPIRE", "hash:0", "700000", "FIELDS", "1", "f"]).unwrap();
    }
}

#[test]
fn every_version_is_backed_up_in_every_way_and_loads_what_was_stored() {
    for program in RedisProgram::all().unwrap() {
        let name = &program.name;
        let server = start(&program.options().setting("repl-diskless-sync-delay", "7"));
        fill(&program, &server);
        for way in [&["--tune-server"][..], &["--via", "bgsave"]] {
            let bench = bench(&server);
            let report = back_up(&bench, way);
            let shard = &report["facts"]["shards"][0];
            let found = (&report["keys"], &shard["rdb"]["checksum"], &shard["rdb"]["contents"]);
            assert_eq!(found, (&10.into(), &"right".into(), &"counted".into()), "{name}, {way:?}: {report}");
            let product =
                format!("{}-{}", shard["product"].as_str().unwrap(), shard["version"].as_str().unwrap());
            assert_eq!(&product, name);
            assert_eq!(
                (&shard["rdb"]["databases"]["0"]["keys"], &shard["rdb"]["databases"]["0"]["expires"]),
                (&6.into(), &2.into()),
                "{name}, {way:?}"
            );
            loads(&program, &server, &bench);
        }
        let tuned = ["repl-diskless-sync-delay", "rdbcompression"].map(|name| setting(&server, name));
        assert_eq!(tuned, ["7", "yes"], "{name}");
    }
}

/// A server of the same version starts from the stored snapshot, and has it all.
fn loads(program: &RedisProgram, source: &TestRedis, bench: &Bench) {
    let snapshot = bench.path("dump.rdb");
    open(&object(bench, "main.rdb"), None, &snapshot);
    let mut server = start(&program.options());
    server.stop().unwrap();
    server.place_snapshot(&snapshot).unwrap();
    server.restart().unwrap();
    for words in [
        &["GET", "mine"][..],
        &["LRANGE", "list:3", "0", "-1"],
        &["-n", "2", "HGETALL", "hash:0"],
        &["-n", "2", "DBSIZE"],
        &["DBSIZE"],
    ] {
        assert_eq!(server.cli(words).unwrap(), source.cli(words).unwrap(), "{}: {words:?}", program.name);
    }
    if program.has_field_expiries() {
        let words = ["-n", "2", "HPEXPIRETIME", "hash:0", "FIELDS", "1", "f"];
        assert_eq!(server.cli(&words).unwrap(), source.cli(&words).unwrap(), "{}", program.name);
    }
    bench.run("verify-backups", &[&LOCAL[..], &["--full", "--content"]].concat()).expect(0);
}
