//! Whatever the configuration of the server and whatever lies in its directory: it never comes up empty or old unnoticed.

use std::path::Path;

use backstay_redis_ops::restore::{LiveFacts, Outcome, RestoreTarget, TtlPolicy};
use backstay_testkit::TestRedis;

use crate::recorder::Recorder;
use crate::world::{World, ask, connect, digest, offset, options, server};

const LEFTOVERS: [&str; 5] =
    ["nothing", "snapshot", "append-only folder", "old append-only file", "everything"];

/// Data of former lives, all of it with other keys.
async fn leave(target: &TestRedis, what: &str) {
    let data = target.data_directory();
    let mut old = server(&[("appendonly", "yes")]).await;
    let mut connection = connect(&old).await;
    let _: redis::Value = ask(&mut connection, "SET leftover 1").await;
    let _: redis::Value = ask(&mut connection, "SAVE").await;
    old.stop().unwrap();
    let from = old.data_directory();
    let all = what == "everything";
    if all || what == "snapshot" {
        copy(&from.join("dump.rdb"), &data.join("dump.rdb"));
    }
    if all || what == "append-only folder" {
        std::fs::create_dir(data.join("appendonlydir")).unwrap();
        for entry in std::fs::read_dir(from.join("appendonlydir")).unwrap().flatten() {
            copy(&entry.path(), &data.join("appendonlydir").join(entry.file_name()));
        }
        own(&data.join("appendonlydir"), &data);
    }
    if all || what == "old append-only file" {
        let command = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$8\r\nleftover\r\n$1\r\n1\r\n";
        std::fs::write(data.join("appendonly.aof"), command).unwrap();
        own(&data.join("appendonly.aof"), &data);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    own(to, to.parent().unwrap());
}

/// Gives a file to the owner of another.
fn own(path: &Path, like: &Path) {
    use std::os::unix::fs::MetadataExt;
    let owner = like.metadata().unwrap();
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_configuration_and_no_leftover_makes_a_restore_silently_wrong() {
    let world = World::new().await;
    let source = server(&[]).await;
    let mut connection = connect(&source).await;
    for number in 0..50 {
        let _: redis::Value = ask(&mut connection, &format!("SET key:{number} {number}")).await;
    }
    let recorder = Recorder::attach(&source);
    let _: redis::Value = ask(&mut connection, "SET last 1").await;
    let end = offset(&mut connection).await;
    let expected = digest(&mut connection).await;
    world.set(&recorder).await;
    world.segments(recorder.id, recorder.start, recorder.until(end), [100]).await;
    let mut silent = 0;
    for append_only in ["yes", "no"] {
        for save in ["\"\"", "3600 1"] {
            let mut target = server(&[("appendonly", append_only), ("save", save)]).await;
            target.stop().unwrap();
            for leftovers in LEFTOVERS {
                let case = format!("appendonly {append_only}, save {save}, {leftovers}");
                empty(&target.data_directory());
                leave(&target, leftovers).await;
                let options = options(&target, TtlPolicy::Keep).await;
                let mut receipt = world.restore(RestoreTarget::Newest, &options).await.unwrap();
                assert_eq!(receipt.old.is_some(), leftovers != "nothing", "{case}");
                // Twice: at its own stop a server may write over what it did not load.
                for _ in 0..2 {
                    target.restart().unwrap();
                    let mut restored = connect(&target).await;
                    receipt.judge(LiveFacts::ask(&mut restored).await.unwrap());
                    silent += u32::from(digest(&mut restored).await != expected);
                    assert_eq!(receipt.outcome, Outcome::Loaded, "{case}: {:?}", receipt.comparison);
                    drop(restored);
                    target.stop().unwrap();
                    if append_only == "no" && save == "\"\"" {
                        break;
                    }
                }
                // The other way of loading finds nothing of former lives.
                for name in ["dump.rdb", "appendonly.aof", "appendonlydir"] {
                    let is_there = target.data_directory().join(name).exists();
                    let may_be = (name == "appendonlydir") == (append_only == "yes")
                        || (name == "dump.rdb" && save != "\"\"");
                    assert!(!is_there || may_be, "{case}: {name} was left");
                }
            }
        }
    }
    assert_eq!(silent, 0);
}

/// A server that was started with another configuration than the one restored for is noticed, whatever it came up with.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loads_something_else_is_never_called_restored() {
    let world = World::new().await;
    let source = server(&[]).await;
    let mut connection = connect(&source).await;
    let _: redis::Value = ask(&mut connection, "MSET a 1 b 2 c 3").await;
    let recorder = Recorder::attach(&source);
    world.set(&recorder).await;
    let mut target = server(&[("appendonly", "no")]).await;
    target.stop().unwrap();
    let mut options = options(&target, TtlPolicy::Keep).await;
    // What the operator says is wrong: the server will not read append-only files.
    options.configuration.append_only = true;
    let mut receipt = world.restore(RestoreTarget::Newest, &options).await.unwrap();
    target.restart().unwrap();
    let mut restored = connect(&target).await;
    receipt.judge(LiveFacts::ask(&mut restored).await.unwrap());
    assert_eq!(receipt.outcome, Outcome::Different);
    let said = receipt.comparison.differences.join("\n");
    assert!(said.contains("appendonly") && said.contains("expected 3 keys"), "{said}");
}

fn empty(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
}
