//! Servers of every version: archived, struck by a `FLUSHALL`, and restored to just before it, with append-only files and
//! without.

use std::process::{Command, Stdio};
use std::time::Duration;

use backstay_backup_core::lease::LeaseOptions;
use backstay_backup_core::manifest::SetKind;
use backstay_backup_core::secret::Secret;
use backstay_backup_core::set_writer::SetSpec;
use backstay_redis_ops::follow::{FollowOptions, FollowReport, follow};
use backstay_redis_ops::{Address, Login, Source};
use backstay_testkit::{RedisOptions, RedisProgram, TestRedis};
use tokio_util::sync::CancellationToken;

use crate::world::{World, ask, connect, digest};

/// A server that tells its digest.
fn options(program: &RedisProgram) -> RedisOptions {
    let options = program.options().setting("repl-diskless-sync-delay", "0");
    if program.major >= 7 { options.setting("enable-debug-command", "local") } else { options }
}

/// Archives whatever the server has by now.
async fn archive(world: &World, server: &TestRedis) -> FollowReport {
    let login = Login::new(None, server.password().map(|password| Secret::new(password.to_owned())));
    let source = Source::new(vec![Address::new("127.0.0.1", server.port())]).login(login);
    let set = SetSpec::new(SetKind::new(SetKind::REDIS_SNAPSHOT), world.stanza.clone(), "test");
    let lease = LeaseOptions::new("test").ttl(Duration::from_secs(5));
    let mut options = FollowOptions::new(&world.folder.path().join("spool"), set, lease);
    options.until_caught_up = true;
    follow(&source.into(), &world.archive(), &options, &CancellationToken::new()).await.unwrap()
}

/// Writes of every kind, as `round` makes them.
async fn write(program: &RedisProgram, server: &TestRedis, round: usize) {
    let mut connection = connect(server).await;
    let common = [
        "SET session:ROUND text EX 100000",
        "SET gone:ROUND text",
        "DEL gone:ROUND",
        "EXPIRE session:ROUND 90000",
        "INCRBY counter 41",
        "HSET hash a 1 b 2 ROUND x",
        "RPUSH list a b c",
        "LMOVE list other LEFT RIGHT",
        "SADD set a b c d e f ROUND",
        "SPOP set 2",
        "ZADD zset 1 a 2.5 b ROUND c",
        "ZPOPMIN zset",
        "XADD stream * field ROUND",
        "PFADD log a ROUND",
        "GEOADD places 13.4 52.5 berlin",
        "EVAL return(redis.call('set','lua','ROUND')) 0",
        "SELECT 5",
        "SET elsewhere ROUND",
        "SELECT 0",
        "MULTI",
        "SET one ROUND",
        "INCR two",
        "EXEC",
    ];
    let functions = [
        "FUNCTION LOAD REPLACE #!lua\u{a0}name=mine\nredis.register_function('f',function(keys)return(redis.call('incr',keys[1]))end)",
        "FCALL f 1 called",
    ];
    let fields = ["HPEXPIRE hash 90000000 FIELDS 1 a"];
    let functions = functions.iter().filter(|_| program.major >= 7);
    let fields = fields.iter().filter(|_| program.has_field_expiries());
    for words in common.iter().chain(functions).chain(fields) {
        let words = words.replace("ROUND", &round.to_string());
        let mut command = redis::Cmd::new();
        // The first line of a library has a space of its own.
        words.split(' ').for_each(|word| {
            command.arg(word.replace('\u{a0}', " "));
        });
        let answer: Result<redis::Value, _> = command.query_async(&mut connection).await;
        answer.unwrap_or_else(|error| panic!("{}: {words}: {error}", program.name));
    }
}

fn run(world: &World, target: &TestRedis, args: &[&str]) -> (i32, String) {
    let folder = world.folder.path();
    std::fs::write(folder.join("backstay.toml"), "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_restore-redis"))
        .args(["--repository", "./repository", "--no-progress"])
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("BACKSTAY_CONFIG", "backstay.toml")
        .env("REDISCLI_AUTH", target.password().unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
}

async fn restored(world: &World, program: &RedisProgram, append_only: &str) -> String {
    let mut target = TestRedis::start(options(program).setting("appendonly", append_only)).await.unwrap();
    target.cli(&["SET", "mine", "1"]).unwrap();
    target.stop().unwrap();
    let (configuration, path) =
        (target.configuration().display().to_string(), program.path.display().to_string());
    let server = ["--config-file", &configuration, "--server-program", &path];
    let (code, told) = run(world, &target, &[&server[..], &["--before", "FLUSHALL"]].concat());
    assert_eq!(code, 0, "{}, appendonly {append_only}: {told}", program.name);
    target.restart().unwrap();
    let (data, url) =
        (target.data_directory().display().to_string(), format!("redis://127.0.0.1:{}", target.port()));
    let (code, told) =
        run(world, &target, &["--check-receipt", "--data-directory", &data, "--redis-url", &url]);
    assert_eq!(code, 0, "{}, appendonly {append_only}: {told}", program.name);
    digest(&mut connect(&target).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_archived_and_restored_to_just_before_a_flushall() {
    for program in RedisProgram::all().unwrap() {
        let name = &program.name;
        let world = World::new().await;
        let server = TestRedis::start(options(&program)).await.unwrap();
        write(&program, &server, 1).await;
        let first = archive(&world, &server).await;
        write(&program, &server, 2).await;
        let mut connection = connect(&server).await;
        let before = digest(&mut connection).await;
        let _: redis::Value = ask(&mut connection, "FLUSHALL").await;
        let _: redis::Value = ask(&mut connection, "SET after 1").await;
        let second = archive(&world, &server).await;
        assert_eq!(
            (first.facts.full_syncs, second.facts.full_syncs),
            (1, 0),
            "{name}: a second snapshot was needed"
        );
        for append_only in ["yes", "no"] {
            assert_eq!(
                restored(&world, &program, append_only).await,
                before,
                "{name}, appendonly {append_only}"
            );
        }
        println!("{name}: archived, and restored to just before FLUSHALL in both ways");
    }
}
