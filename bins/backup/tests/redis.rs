//! `backup-redis` on real servers: one, a replicated one, a cluster, Sentinels.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use backstay_testkit::{Account, PortLease, RedisOptions, ScratchDir, TestRedis};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use support::{Bench, files, until};

const LOCAL: [&str; 2] = ["--repository", "./local"];
const PROGRAM: &str = "backup-redis";

fn quick() -> RedisOptions {
    RedisOptions::default().setting("repl-diskless-sync-delay", "0")
}

fn start(options: &RedisOptions) -> TestRedis {
    TestRedis::start_blocking(options).unwrap()
}

/// Keys of every kind in three databases; 40 of them, 12 of which expire.
fn fill(server: &TestRedis) {
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

fn bench(server: &TestRedis) -> Bench {
    let mut bench = Bench::new();
    bench.set("BACKSTAY_REDIS_URL", server.url());
    bench
}

fn back_up(bench: &Bench, args: &[&str]) -> Value {
    let (ended, report) = bench.json(PROGRAM, &[&LOCAL, args].concat());
    ended.expect(0);
    report
}

/// The only file of a repository whose name begins so.
fn object(bench: &Bench, name: &str) -> PathBuf {
    let mut found = files(&bench.path("local"));
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name));
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.remove(0)
}

/// Opens an object with stock `zstd`, and `age` where it is encrypted.
fn open(object: &Path, key: Option<&Path>, to: &Path) {
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
fn restored(snapshot: &Path) -> TestRedis {
    let mut server = start(&RedisOptions::default());
    server.stop().unwrap();
    server.place_snapshot(snapshot).unwrap();
    server.restart().unwrap();
    server
}

fn setting(server: &TestRedis, name: &str) -> String {
    server.cli(&["CONFIG", "GET", name]).unwrap().lines().nth(1).unwrap_or_default().to_owned()
}

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

fn zstd_of(bench: &Bench, content: &[u8]) -> String {
    let (stored, plain) = (bench.path("small.zst"), bench.path("small"));
    std::fs::write(&stored, content).unwrap();
    open(&stored, None, &plain);
    std::fs::read_to_string(plain).unwrap()
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

fn in_sync(primary: &TestRedis, replica: &TestRedis) {
    replica.cli(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).unwrap();
    until(|| primary.cli(&["INFO", "replication"]).unwrap().contains("state=online"));
    until(|| replica.cli(&["INFO", "replication"]).unwrap().contains("master_link_status:up"));
}

#[test]
fn a_replica_that_is_in_sync_is_read_and_one_that_is_not_is_refused() {
    let open = quick().password(false);
    let (mut primary, replica) = (start(&open), start(&open));
    fill(&primary);
    in_sync(&primary, &replica);
    let bench = bench(&primary);
    let at = |server: &TestRedis| Value::from(format!("127.0.0.1:{}", server.port()));
    let report = back_up(&bench, &[]);
    assert_eq!((&report["facts"]["shards"][0]["server"], &report["keys"]), (&at(&replica), &40.into()));
    let report = back_up(&bench, &["--attach", "primary"]);
    assert_eq!(report["facts"]["shards"][0]["server"], at(&primary));
    // Frozen, not gone: the primary does not know yet.
    let mut replica = replica;
    replica.kill9();
    let report = back_up(&bench, &[]);
    assert_eq!(report["facts"]["shards"][0]["server"], at(&primary), "{report}");
    replica.restart().unwrap();
    in_sync(&primary, &replica);
    primary.kill9();
    until(|| replica.cli(&["INFO", "replication"]).unwrap().contains("master_link_status:down"));
    let address = format!("127.0.0.1:{}", replica.port());
    let mut alone = Bench::new();
    alone.set("BACKSTAY_REDIS_ADDRESSES", &address);
    let refused = alone.run(PROGRAM, &LOCAL).expect(5).stderr;
    assert!(refused.contains("is a replica that is not in sync with its primary"), "{refused}");
    assert!(!alone.path("local").exists(), "nothing was written");
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
fn changed_settings_of_the_server_are_put_back() {
    let server = start(&RedisOptions::default().setting("repl-diskless-sync-delay", "7"));
    fill(&server);
    let bench = bench(&server);
    let began = Instant::now();
    let report = back_up(&bench, &["--tune-server"]);
    assert!(began.elapsed() < Duration::from_secs(7), "it waited for other replicas");
    assert_eq!(report["keys"], 40);
    assert_eq!(
        (setting(&server, "repl-diskless-sync-delay"), setting(&server, "rdbcompression")),
        ("7".into(), "yes".into())
    );
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

/// Servers of a cluster, with the ports of their bus.
fn cluster() -> Vec<(TestRedis, PortLease)> {
    let ranges = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    let mut nodes = Vec::new();
    for (first, last) in ranges {
        let bus = PortLease::reserve().unwrap();
        let options = quick()
            .password(false)
            .setting("cluster-enabled", "yes")
            .setting("cluster-node-timeout", "1000")
            .setting("cluster-port", &bus.port().to_string());
        let node = start(&options);
        node.cli(&["CLUSTER", "ADDSLOTSRANGE", first, last]).unwrap();
        nodes.push((node, bus));
    }
    for (node, bus) in &nodes[1..] {
        let (port, bus) = (node.port().to_string(), bus.port().to_string());
        nodes[0].0.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).unwrap();
    }
    for (node, _) in &nodes {
        until(|| node.cli(&["CLUSTER", "INFO"]).unwrap().contains("cluster_state:ok"));
        until(|| node.cli(&["CLUSTER", "NODES"]).unwrap().matches(" connected").count() == 3);
    }
    nodes
}

#[test]
fn a_cluster_is_one_set_and_none_when_a_shard_is_down() {
    let mut nodes = cluster();
    for number in 0..30 {
        nodes[0].0.cli(&["-c", "SET", &format!("key{number}"), "value"]).unwrap();
    }
    let bench = bench(&nodes[1].0);
    let report = back_up(&bench, &["--jobs", "2"]);
    let shards = report["facts"]["shards"].as_array().unwrap();
    let names: Vec<_> = shards.iter().map(|shard| shard["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["shard-00000", "shard-05461", "shard-10923"]);
    assert_eq!((&report["keys"], &shards[1]["slots"]), (&30.into(), &serde_json::json!([[5461, 10922]])));
    let stored =
        files(&bench.path("local")).iter().filter(|path| path.to_str().unwrap().contains(".rdb")).count();
    assert_eq!(stored, 3);
    nodes[2].0.kill9();
    until(|| nodes[1].0.cli(&["CLUSTER", "NODES"]).unwrap().contains("fail"));
    let refused = bench.run(PROGRAM, &LOCAL).expect(5).stderr;
    assert!(
        refused.contains("primaries of the cluster are down") && refused.contains("slots 10923-16383"),
        "{refused}"
    );
}

#[test]
fn sentinels_name_the_primary() {
    let open = quick().password(false);
    let (primary, replica) = (start(&open), start(&open));
    fill(&primary);
    in_sync(&primary, &replica);
    // The server is a Sentinel when it is called by that name.
    let account = Account::for_servers().unwrap();
    let programs = ScratchDir::create("sentinel", account.as_ref()).unwrap();
    let program = programs.path().join("redis-sentinel");
    symlink("/usr/bin/redis-server", &program).unwrap();
    let watched = format!("monitor shop 127.0.0.1 {} 1", primary.port());
    let sentinel =
        start(&RedisOptions::default().password(false).program(&program).setting("sentinel", &watched));
    let address = format!("127.0.0.1:{}", sentinel.port());
    let bench = Bench::new();
    let words = ["--address", &address, "--sentinel", "shop"];
    let report = back_up(&bench, &words);
    assert_eq!((&report["keys"], &report["facts"]["topology"]), (&40.into(), &"sentinel".into()));
    assert_eq!(report["facts"]["shards"][0]["server"], format!("127.0.0.1:{}", replica.port()));
    let wrong =
        bench.run(PROGRAM, &[&LOCAL[..], &["--address", &address, "--sentinel", "blog"]].concat()).expect(2);
    assert!(wrong.stderr.contains("watches no primary called blog"), "{}", wrong.stderr);
    let bare = bench.run(PROGRAM, &[&LOCAL[..], &["--address", &address]].concat()).expect(2).stderr;
    assert!(bare.contains("is a Sentinel and holds no data"), "{bare}");
}

#[test]
fn bad_input_ends_in_one_clear_error_and_nothing_is_written() {
    let server = start(&RedisOptions::default());
    let port = server.port();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let web = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let cases = [
        (format!("redis://:wrong@127.0.0.1:{port}"), 2, "does not let default in: WRONGPASS"),
        (format!("redis://127.0.0.1:{port}"), 2, "does not let default in: NOAUTH"),
        ("redis://127.0.0.1:1".to_owned(), 5, "cannot connect to 127.0.0.1:1"),
        (format!("redis://127.0.0.1:{web}"), 2, "is not a Redis"),
        (format!("rediss://127.0.0.1:{port}"), 2, "cannot make an encrypted connection"),
        ("http://127.0.0.1".to_owned(), 2, "write it as redis://user@host:port"),
    ];
    for (url, exit, words) in cases {
        let mut bench = Bench::new();
        bench.set("BACKSTAY_REDIS_URL", &url);
        let ended = bench.run(PROGRAM, &LOCAL).expect(exit);
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains(words),
            "{url}: {}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("wrong@") && ended.stdout.is_empty());
        assert!(!bench.path("local").exists(), "{url} made a repository");
    }
}

#[test]
fn a_full_disk_and_a_server_that_dies_leave_no_set() {
    let mut server = start(&quick());
    for _ in 0..40 {
        let key = format!("key{}", rand::random::<u64>());
        let noise: String = (0..60_000).map(|_| char::from(rand::random_range(33_u8..127))).collect();
        server.cli(&["SET", &key, &noise]).unwrap();
    }
    let mut full = bench(&server);
    full.make_full("local");
    let ended = full.run(PROGRAM, &LOCAL).expect(5);
    assert!(
        ended.stderr.contains("no space left") || ended.stderr.contains("File too large"),
        "{}",
        ended.stderr
    );
    // A child that writes slowly, and a server that is gone before it is done.
    let bench = bench(&server);
    server.cli(&["CONFIG", "SET", "rdb-key-save-delay", "100000"]).unwrap();
    let mut running = bench.command(PROGRAM, &LOCAL).stderr(Stdio::null()).spawn().unwrap();
    until(|| server.cli(&["INFO", "replication"]).unwrap().contains("slave0:"));
    server.kill9();
    let status = running.wait().unwrap();
    assert_eq!(status.code(), Some(5));
    assert!(files(&bench.path("local")).iter().all(|path| !path.ends_with("manifest.json")));
}

/// A certificate for 127.0.0.1 and the authority behind it, in the folder of a bench.
fn certificates(bench: &Bench) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let script = format!(
        "openssl req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=authority -days 2 2>/dev/null
         openssl req {key} -keyout server.key -out server.csr -subj /CN=localhost 2>/dev/null
         printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >extensions
         openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 \
             -extfile extensions 2>/dev/null
         chmod 644 server.key"
    );
    let made = Command::new("sh").args(["-ec", &script]).current_dir(bench.path("")).status().unwrap();
    assert!(made.success(), "openssl makes certificates");
}

#[test]
fn an_encrypted_connection_is_made_to_the_right_server_only() {
    let bench = Bench::new();
    certificates(&bench);
    let port = PortLease::reserve().unwrap();
    let file = |name: &str| bench.path(name).display().to_string();
    let options = quick()
        .password(false)
        .setting("tls-port", &port.port().to_string())
        .setting("tls-cert-file", &file("server.crt"))
        .setting("tls-key-file", &file("server.key"))
        .setting("tls-ca-cert-file", &file("ca.crt"))
        .setting("tls-auth-clients", "no");
    let server = start(&options);
    fill(&server);
    let address = format!("127.0.0.1:{}", port.port());
    let known = ["--address", &address, "--tls", "--tls-ca", "ca.crt"];
    assert_eq!(back_up(&bench, &known)["keys"], 40);
    let stranger = [&LOCAL[..], &["--address", &address, "--tls"]].concat();
    let refused = bench.run(PROGRAM, &stranger).expect(2).stderr;
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    let other = [&LOCAL[..], &known, &["--option", "redis.tls-server-name=other.example"]].concat();
    let refused = bench.run(PROGRAM, &other).expect(2).stderr;
    assert!(refused.contains("not valid for name"), "{refused}");
    server.cli(&["CONFIG", "SET", "tls-auth-clients", "yes"]).unwrap();
    let refused = bench.run(PROGRAM, &[&LOCAL[..], &known].concat()).expect(2).stderr;
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let ours = ["--option", "redis.tls-certificate=server.crt", "--option", "redis.tls-key=server.key"];
    assert_eq!(back_up(&bench, &[&known[..], &ours].concat())["keys"], 40);
}

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
