//! Starting, stopping and losing Redis servers.
#![allow(clippy::unwrap_used, missing_docs)]

use backstay_testkit::{Error, RedisOptions, TestRedis};

#[tokio::test]
async fn a_server_answers_and_is_gone_after_its_handle() {
    let server = TestRedis::start(RedisOptions::default()).await.unwrap();
    assert_eq!(server.cli(&["SET", "key", "two words"]).unwrap(), "OK");
    assert_eq!(server.cli(&["GET", "key"]).unwrap(), "two words");
    let (port, socket) = (server.port(), server.socket());
    assert!(socket.exists());
    drop(server);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!socket.exists());
}

#[test]
fn the_password_is_asked_for() {
    let server = TestRedis::start_blocking(&RedisOptions::default()).unwrap();
    let port = server.port().to_string();
    let output =
        std::process::Command::new("redis-cli").args(["-e", "-p", &port, "GET", "key"]).output().unwrap();
    assert!(!output.status.success());
    let open = TestRedis::start_blocking(&RedisOptions::default().password(false)).unwrap();
    assert_eq!(open.cli(&["PING"]).unwrap(), "PONG");
    assert_eq!(open.url(), format!("redis://127.0.0.1:{}", open.port()));
}

#[test]
fn an_append_only_server_keeps_its_data_through_a_kill() {
    let options = RedisOptions::default().setting("appendonly", "yes").setting("appendfsync", "always");
    let mut server = TestRedis::start_blocking(&options).unwrap();
    server.cli(&["INCRBY", "counter", "41"]).unwrap();
    server.kill9();
    assert!(server.process().is_none());
    server.restart().unwrap();
    assert_eq!(server.cli(&["INCR", "counter"]).unwrap(), "42");
}

#[test]
fn a_snapshot_can_be_placed_before_a_start() {
    let server = TestRedis::start_blocking(&RedisOptions::default()).unwrap();
    server.cli(&["SET", "key", "saved"]).unwrap();
    server.cli(&["SAVE"]).unwrap();
    let snapshot = server.data_directory().join("dump.rdb");
    let mut other = TestRedis::start_blocking(&RedisOptions::default()).unwrap();
    assert!(matches!(other.place_snapshot(&snapshot), Err(Error::State(_))));
    other.stop().unwrap();
    other.place_snapshot(&snapshot).unwrap();
    other.restart().unwrap();
    assert_eq!(other.cli(&["GET", "key"]).unwrap(), "saved");
}

#[test]
fn errors_are_errors() {
    let server = TestRedis::start_blocking(&RedisOptions::default()).unwrap();
    assert!(server.cli(&["NOSUCHCOMMAND"]).is_err());
    let refused = TestRedis::start_blocking(&RedisOptions::default().setting("no-such-setting", "1"));
    let Err(Error::NotStarted { log, .. }) = refused else { panic!("started: {refused:?}") };
    assert!(log.contains("no-such-setting"), "{log}");
    let missing = TestRedis::start_blocking(&RedisOptions::default().program("/nowhere/redis-server"));
    assert!(missing.unwrap_err().to_string().contains("run: scripts/setup.sh"));
}
