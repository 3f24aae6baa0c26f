//! One server: what is stored of it, by replication and by a save of its own.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use backstay_testkit::RedisOptions;
use serde_json::Value;

use crate::scene::{LOCAL, PROGRAM, back_up, bench, fill, object, open, quick, restored, start, zstd_of};
use crate::support::{Bench, files, until};

#[test]
fn a_snapshot_is_counted_checked_listed_verified_and_opens_with_stock_tools() {
    let server = start(&quick());
    fill(&server);
    let bench = bench(&server);
    let dry = bench.run(PROGRAM, &[&LOCAL[..], &["--dry-run"]].concat()).expect(0).stdout;
    assert!(dry.contains("would back up one Redis, as a replica") && dry.contains("40 keys"), "{dry}");
    assert!(!bench.path("local").exists(), "a dry run makes no repository");

    let report = back_up(&bench, &[]);
    assert_eq!((&report["keys"], &report["stored-in"]), (&40.into(), &serde_json::json!(["./local"])));
    let shard = &report["facts"]["shards"][0];
    assert_eq!(shard["rdb"]["databases"]["3"], serde_json::json!({ "keys": 10, "expires": 2, "expired": 0 }));
    assert_eq!((&shard["rdb"]["functions"][0], &shard["rdb"]["checksum"]), (&"mine".into(), &"right".into()));
    assert_eq!(shard["product"], "redis");
    assert_eq!(shard["replication-id"].as_str().unwrap().len(), 40);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("only stored encrypted"), "{warnings}");

    let snapshot = bench.path("dump.rdb");
    open(&object(&bench, "main.rdb"), None, &snapshot);
    assert!(Command::new("redis-check-rdb").arg(&snapshot).stdout(Stdio::null()).status().unwrap().success());
    let again = restored(&snapshot);
    for (database, keys) in [("0", "20"), ("3", "10"), ("9", "10")] {
        assert_eq!(again.cli(&["-n", database, "DBSIZE"]).unwrap(), keys);
    }
    let settings = std::fs::read(object(&bench, "settings.json")).unwrap();
    let settings = zstd_of(&bench, &settings);
    assert!(settings.contains("maxmemory-policy") && !settings.contains(server.password().unwrap()));

    let id = report["set"].as_str().unwrap();
    let listed = bench.run("list-backups", &LOCAL).expect(0).stdout;
    assert!(listed.contains(&format!("{id}  redis ")) && listed.contains("  good "), "{listed}");
    let checked = bench.run("verify-backups", &[&LOCAL[..], &["--full", "--content"]].concat()).expect(0);
    assert!(checked.stdout.contains("1 copies passed, 0 failed"), "{}", checked.stdout);
    back_up(&bench, &[]);
    let rules = ["--keep-last", "1", "--option", "retention.min-age=0s"];
    let pruned = bench.run("prune-backups", &[&LOCAL[..], &rules].concat()).expect(0).stdout;
    assert!(pruned.contains("1 sets removed") && pruned.contains(id), "{pruned}");
}

#[test]
fn users_are_stored_only_where_nobody_else_can_read_them() {
    let server = start(&quick());
    server.cli(&["ACL", "SETUSER", "shop", "on", ">hunter2", "~shop:*", "+@read"]).unwrap();
    let bench = bench(&server);
    let keys = [age::x25519::Identity::generate(), age::x25519::Identity::generate()];
    let recipients =
        format!("--option=encryption.recipients={},{}", keys[0].to_public(), keys[1].to_public());
    let report = back_up(&bench, &[&recipients]);
    assert_eq!(report["facts"]["shards"][0]["users"], "main.acl.zst.age");
    bench.write_secret("key", keys[0].to_string().expose_secret());
    let plain = bench.path("users.acl");
    open(&object(&bench, "main.acl"), Some(&bench.path("key")), &plain);
    let users = std::fs::read_to_string(plain).unwrap();
    assert!(
        users.lines().any(|line| line.starts_with("user shop on ") && line.contains("~shop:*")),
        "{users}"
    );

    let open_bench = self::bench(&server);
    let report = back_up(&open_bench, &[]);
    assert_eq!(report["facts"]["shards"][0]["users"], Value::Null);
    let stored: Vec<_> = files(&open_bench.path("local"));
    assert!(!stored.iter().any(|path| path.to_str().unwrap().contains(".acl")), "{stored:?}");
}

#[test]
fn a_save_of_the_server_is_awaited_and_its_failure_noticed() {
    let server = start(&RedisOptions::default());
    fill(&server);
    let bench = bench(&server);
    for round in 1..=2 {
        server.cli(&["SET", "round", &round.to_string()]).unwrap();
        let report = back_up(&bench, &["--via", "bgsave"]);
        assert_eq!(
            (&report["keys"], &report["facts"]["via"]),
            (&41.into(), &"bgsave".into()),
            "round {round}"
        );
    }
    let warnings = back_up(&bench, &["--via", "bgsave"])["warnings"].to_string();
    assert!(warnings.contains("refuse writes"), "{warnings}");
    // A folder where the file should be makes every save fail.
    let dump = server.data_directory().join("dump.rdb");
    std::fs::remove_file(&dump).unwrap();
    std::fs::create_dir(&dump).unwrap();
    std::fs::write(dump.join("in-the-way"), "").unwrap();
    let sets = bench.json("list-backups", &LOCAL).1["sets"].as_array().unwrap().len();
    let failed = bench.run(PROGRAM, &[&LOCAL[..], &["--via", "bgsave"]].concat()).expect(5).stderr;
    assert!(failed.contains("the background save of") && failed.contains("the server's log"), "{failed}");
    assert_eq!(bench.json("list-backups", &LOCAL).1["sets"].as_array().unwrap().len(), sets);
}

#[test]
fn a_file_that_is_not_the_one_just_saved_is_refused() {
    let server = start(&RedisOptions::default());
    fill(&server);
    server.cli(&["SAVE"]).unwrap();
    let bench = bench(&server);
    let old = bench.path("old.rdb");
    std::fs::copy(server.data_directory().join("dump.rdb"), &old).unwrap();
    let began = Instant::now();
    until(|| began.elapsed() > Duration::from_millis(1_100));
    let words = ["--via", "bgsave", "--rdb-file", old.to_str().unwrap()];
    let refused = bench.run(PROGRAM, &[&LOCAL[..], &words].concat()).expect(5).stderr;
    assert!(refused.contains("older than the save"), "{refused}");
}

#[test]
fn a_user_that_may_only_replicate_is_enough() {
    let server = start(&quick());
    fill(&server);
    server.cli(&["ACL", "SETUSER", "backup", "on", ">word", "-@all", "+replconf", "+ping"]).unwrap();
    let mut bench = Bench::new();
    bench.set("BACKSTAY_REDIS_URL", format!("redis://backup:word@127.0.0.1:{}", server.port()));
    let refused = bench.run(PROGRAM, &LOCAL).expect(2).stderr;
    assert!(
        refused.contains("hint: give it what it lacks: ACL SETUSER backup -@all +psync +replconf +ping"),
        "{refused}"
    );
    server.cli(&["ACL", "SETUSER", "backup", "+psync"]).unwrap();
    let report = back_up(&bench, &[]);
    assert_eq!((&report["keys"], &report["facts"]["topology"]), (&40.into(), &"unknown".into()));
    assert!(report["warnings"].to_string().contains("attached to it as it is"), "{report}");
}
