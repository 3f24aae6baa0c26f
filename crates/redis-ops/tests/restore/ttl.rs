//! Expiry times: kept, shifted, removed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backstay_redis_ops::restore::{LiveFacts, RestoreTarget, TtlPolicy};
use backstay_testkit::TestRedis;
use redis::aio::MultiplexedConnection;

use crate::recorder::Recorder;
use crate::world::{World, ask, connect, offset, options, server};

/// Remaining milliseconds of every key.
async fn remaining(connection: &mut MultiplexedConnection) -> BTreeMap<String, i64> {
    let keys: Vec<String> = ask(connection, "KEYS *").await;
    let mut found = BTreeMap::new();
    for key in keys {
        let left = ask(connection, &format!("PTTL {key}")).await;
        found.insert(key, left);
    }
    found
}

async fn wait_until_gone(connection: &mut MultiplexedConnection, key: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while ask::<i64>(connection, &format!("EXISTS {key}")).await != 0 {
        assert!(Instant::now() < deadline, "{key} does not expire");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Keys that expire soon and late, some in the snapshot, some in the stream, each set in another way.
async fn archived(world: &World, source: &TestRedis) -> BTreeMap<String, i64> {
    let mut connection = connect(source).await;
    for number in 0..40 {
        let seconds = if number % 2 == 0 { 3 } else { 3600 };
        let _: redis::Value = ask(&mut connection, &format!("SET base:{number} v EX {seconds}")).await;
    }
    let _: redis::Value = ask(&mut connection, "SET base:gone v PX 1").await;
    let _: redis::Value = ask(&mut connection, "SET base:extended v PX 400").await;
    let _: redis::Value = ask(&mut connection, "SET base:forever v").await;
    let recorder = Recorder::attach(source);
    let _: redis::Value = ask(&mut connection, "EXPIRE base:extended 3").await;
    for number in 0..20 {
        for command in [
            format!("SET stream:set:{number} v EX 3"),
            format!("SETEX stream:setex:{number} 3 v"),
            format!("SET stream:expire:{number} v"),
            format!("PEXPIRE stream:expire:{number} 3500"),
            format!("SET stream:getex:{number} v"),
            format!("GETEX stream:getex:{number} EX 3600"),
            format!("SET stream:persist:{number} v EX 3"),
            format!("PERSIST stream:persist:{number}"),
        ] {
            let _: redis::Value = ask(&mut connection, &command).await;
        }
    }
    wait_until_gone(&mut connection, "base:gone").await;
    let end = offset(&mut connection).await;
    let lived = remaining(&mut connection).await;
    world.set(&recorder).await;
    world.segments(recorder.id, recorder.start, recorder.until(end), std::iter::repeat(900)).await;
    // The moment has passed for the half of them.
    for key in ["base:0", "stream:set:19", "stream:expire:19", "base:extended"] {
        wait_until_gone(&mut connection, key).await;
    }
    lived
}

async fn restored(world: &World, target: &mut TestRedis, ttl: TtlPolicy) -> (BTreeMap<String, i64>, f64) {
    target.stop().unwrap();
    let options = options(target, ttl).await;
    let begun = Instant::now();
    let receipt = world.restore(RestoreTarget::Newest, &options).await.unwrap();
    assert_eq!(receipt.ttl, ttl);
    target.restart().unwrap();
    let mut connection = connect(target).await;
    LiveFacts::ask(&mut connection).await.unwrap();
    (remaining(&mut connection).await, begun.elapsed().as_secs_f64())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lived_at_the_target_lives_as_long_as_it_had_left() {
    for append_only in ["yes", "no"] {
        let world = World::new().await;
        let source = server(&[]).await;
        let lived = archived(&world, &source).await;
        let mut target = server(&[("appendonly", append_only)]).await;

        let (kept, _) = restored(&world, &mut target, TtlPolicy::Keep).await;
        assert!(!kept.contains_key("base:0") && kept.contains_key("base:1"), "expired keys stay away");

        let (shifted, seconds) = restored(&world, &mut target, TtlPolicy::Shift).await;
        let mut alive = 0;
        for (key, left) in &lived {
            let found = shifted.get(key).unwrap_or_else(|| panic!("{key} did not come back"));
            if *left < 0 {
                assert_eq!(*found, -1, "{key}");
            } else {
                // What the restore itself took has gone by as well.
                let passed = (seconds * 1000.0) as i64;
                assert!(
                    (left - passed - 1000..=left + 1000).contains(found),
                    "{key}: {left} → {found}, {passed} ms passed"
                );
            }
            alive += 1;
        }
        assert_eq!(alive, shifted.len(), "nothing came back that had expired");

        let (stripped, _) = restored(&world, &mut target, TtlPolicy::Strip).await;
        assert_eq!(stripped.keys().collect::<Vec<_>>(), lived.keys().collect::<Vec<_>>());
        assert!(stripped.values().all(|left| *left == -1));
        println!("appendonly {append_only}: {alive} of {} keys came back with their time", lived.len());
    }
}

/// Nobody could see them, and the source had not come to remove them: from the snapshot or the stream, they must not come back.
#[tokio::test(flavor = "multi_thread")]
async fn what_had_expired_at_the_target_and_was_not_removed_yet_stays_away() {
    let world = World::new().await;
    let source = server(&[]).await;
    let mut connection = connect(&source).await;
    let _: redis::Value = ask(&mut connection, "DEBUG SET-ACTIVE-EXPIRE 0").await;
    for command in ["SET base:dead v PX 50", "SET base:alive v EX 3600", "SET base:forever v"] {
        let _: redis::Value = ask(&mut connection, command).await;
    }
    let recorder = Recorder::attach(&source);
    for command in ["SET stream:dead v PX 50", "SET stream:alive v EX 3600", "HSET stream:hash f v"] {
        let _: redis::Value = ask(&mut connection, command).await;
    }
    // Nobody looks at them, so that the server does not remove them.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let _: redis::Value = ask(&mut connection, "SET stream:last v").await;
    let there: i64 = ask(&mut connection, "DBSIZE").await;
    let lived = remaining(&mut connection).await;
    assert_eq!(there, lived.len() as i64 + 2, "the server has removed what had expired");
    let end = offset(&mut connection).await;
    world.set(&recorder).await;
    world.segments(recorder.id, recorder.start, recorder.until(end), std::iter::repeat(50)).await;
    for append_only in ["yes", "no"] {
        let mut target = server(&[("appendonly", append_only)]).await;
        for ttl in [TtlPolicy::Keep, TtlPolicy::Shift, TtlPolicy::Strip] {
            let (back, _) = restored(&world, &mut target, ttl).await;
            let (back, lived): (Vec<_>, Vec<_>) = (back.keys().collect(), lived.keys().collect());
            assert_eq!(back, lived, "appendonly {append_only}, {ttl}");
        }
    }
}
