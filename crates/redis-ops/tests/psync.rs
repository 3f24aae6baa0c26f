//! Attaching to real servers as a replica.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::secret::Secret;
use backstay_redis_ops::psync::{Answer, FullSync, Position, PsyncOptions, Replication, connect};
use backstay_redis_ops::rdb::{Checksum, RdbFacts, RdbScanner};
use backstay_redis_ops::resp::StreamState;
use backstay_redis_ops::{Address, Endpoint, Error, Login, Offset, ReplicationId};
use backstay_testkit::{RedisOptions, TestRedis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn endpoint(server: &TestRedis) -> Endpoint {
    let password = server.password().map(|password| Secret::new(password.to_owned()));
    Endpoint::new(Address::new("127.0.0.1", server.port())).login(Login::new(None, password))
}

fn as_user(server: &TestRedis, user: &str, password: &str) -> Endpoint {
    let login = Login::new(Some(user.to_owned()), Some(Secret::new(password.to_owned())));
    Endpoint::new(Address::new("127.0.0.1", server.port())).login(login)
}

fn quick() -> PsyncOptions {
    PsyncOptions::default().answer(Duration::from_secs(20))
}

async fn full(endpoint: &Endpoint, options: &PsyncOptions) -> FullSync {
    match connect(endpoint, Position::New, options).await.unwrap() {
        Answer::Full(full) => *full,
        Answer::Continue(_) => panic!("a stream, and nobody had anything"),
    }
}

async fn facts(full: &mut FullSync) -> RdbFacts {
    let mut scanner = RdbScanner::new();
    while let Some(piece) = full.next().await.unwrap() {
        scanner.push(&piece).unwrap();
    }
    scanner.finish().unwrap()
}

/// Reads until a command has passed that holds `word`, and says which commands passed.
async fn until(stream: &mut Replication, word: &str) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    while !seen.iter().any(|words| words.contains(word)) {
        let reading = stream.next_with(|command| {
            let words =
                command.arguments().map(|argument| String::from_utf8_lossy(argument.bytes).into_owned());
            seen.push(words.collect::<Vec<_>>().join(" "));
        });
        tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
    }
    seen
}

async fn cli(server: &TestRedis, words: &[&str]) -> String {
    let owned: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    tokio::task::block_in_place(|| server.cli(&owned.iter().map(String::as_str).collect::<Vec<_>>())).unwrap()
}

fn replication_offset(info: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_stream_follow_one_another_with_and_without_a_disk() {
    for diskless in ["yes", "no"] {
        let options = RedisOptions::default()
            .setting("repl-diskless-sync", diskless)
            .setting("repl-diskless-sync-delay", "0");
        let server = TestRedis::start(options).await.unwrap();
        for number in 0..1_000 {
            if number % 250 == 0 {
                cli(&server, &["-n", "3", "SET", &format!("key{number}"), &"x".repeat(1_000), "EX", "1000"])
                    .await;
            }
        }
        let library = "#!lua name=mine\nredis.register_function('f', function() return 1 end)";
        cli(&server, &["FUNCTION", "LOAD", library]).await;
        let mut snapshot = full(&endpoint(&server), &quick()).await;
        assert_eq!(snapshot.expected_length().is_some(), diskless == "no");
        let facts = facts(&mut snapshot).await;
        assert_eq!((facts.databases[&3].keys, facts.databases[&3].expires), (4, 4));
        assert_eq!(facts.functions, ["mine"]);
        assert_eq!(facts.checksum, Checksum::Right);
        assert_eq!(facts.aux["repl-offset"], snapshot.offset().to_string());
        let mut stream = snapshot.into_stream().unwrap();
        cli(&server, &["-n", "5", "SET", "after", "snapshot"]).await;
        let seen = until(&mut stream, "after").await;
        assert!(seen.contains(&"SELECT 5".to_owned()) && seen.contains(&"SET after snapshot".to_owned()));
        assert_eq!(stream.state(), StreamState { database: Some(5), in_transaction: false });
        let there = replication_offset(&cli(&server, &["INFO", "replication"]).await);
        assert_eq!(stream.offset(), Offset(there));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_it_was_left_and_only_what_is_durable_is_acknowledged() {
    let options = RedisOptions::default().setting("repl-diskless-sync-delay", "0");
    let server = TestRedis::start(options).await.unwrap();
    let mut snapshot = full(&endpoint(&server), &quick()).await;
    facts(&mut snapshot).await;
    let id = snapshot.id();
    let mut stream = snapshot.into_stream().unwrap();
    cli(&server, &["SET", "one", "1"]).await;
    until(&mut stream, "SET one").await;
    let (offset, state) = (stream.offset(), stream.state());
    // Nothing was called durable yet; WAIT would count us otherwise.
    let waited = tokio::join!(cli(&server, &["WAIT", "1", "200"]), until(&mut stream, "GETACK"));
    assert_eq!(waited.0, "0");
    let acknowledger = stream.acknowledger();
    acknowledger.durable(stream.offset());
    assert_eq!(cli(&server, &["WAIT", "1", "10000"]).await, "1");
    drop(stream);
    cli(&server, &["SET", "two", "2"]).await;
    let answer = connect(&endpoint(&server), Position::At { id, offset, state }, &quick()).await.unwrap();
    let Answer::Continue(mut again) = answer else { panic!("the server had it all: {answer:?}") };
    assert_eq!((again.id(), again.offset()), (id, offset));
    let seen = until(&mut again, "SET two").await;
    assert!(!seen.iter().any(|words| words.contains("SET one")), "{seen:?}");
}

/// A byte too many would make every offset behind it one too large, and a newline before a command is none of its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_goes_on_has_not_a_byte_more_or_less_than_the_server_counts() {
    let options = RedisOptions::default()
        .setting("repl-diskless-sync-delay", "0")
        .setting("repl-ping-replica-period", "3600");
    let server = TestRedis::start(options).await.unwrap();
    let mut snapshot = full(&endpoint(&server), &quick()).await;
    facts(&mut snapshot).await;
    let (id, mut stream) = (snapshot.id(), snapshot.into_stream().unwrap());
    for word in ["one", "two", "three"] {
        cli(&server, &["SET", word, "1"]).await;
        until(&mut stream, &format!("SET {word}")).await;
        let (offset, state) = (stream.offset(), stream.state());
        assert_eq!(offset, Offset(replication_offset(&cli(&server, &["INFO", "replication"]).await)));
        drop(stream);
        let answer = connect(&endpoint(&server), Position::At { id, offset, state }, &quick()).await;
        let Answer::Continue(again) = answer.unwrap() else { panic!("the server had it all") };
        stream = *again;
    }
    cli(&server, &["SET", "last", "1"]).await;
    let first = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap().unwrap();
    assert_eq!(first.bytes[0], b'*', "it begins with a command: {:?}", first.bytes);
}

/// Seconds since the server heard from its replica, as it says itself.
async fn lag(server: &TestRedis) -> u64 {
    let info = cli(server, &["INFO", "replication"]).await;
    let line = info.lines().find(|line| line.starts_with("slave0:")).unwrap();
    line.trim().rsplit_once("lag=").unwrap().1.parse().unwrap()
}

async fn wait_for_lag(server: &TestRedis, what: &str, is_so: impl Fn(u64) -> bool) -> u64 {
    for _ in 0..400 {
        let lag = lag(server).await;
        if is_so(lag) {
            return lag;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come");
}

/// A server that is told to stop, and a client that waits for its write, ask; they would wait for the next regular one.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_what_is_durable_is_answered_although_nothing_else_is_to_be_said() {
    let options = RedisOptions::default().setting("repl-diskless-sync-delay", "0");
    let server = TestRedis::start(options).await.unwrap();
    let mut rarely = quick();
    rarely.acknowledge_every = Duration::from_secs(3600);
    let mut snapshot = full(&endpoint(&server), &rarely).await;
    facts(&mut snapshot).await;
    let mut stream = snapshot.into_stream().unwrap();
    let reading = tokio::spawn(async move { while stream.next().await.is_ok() {} });
    cli(&server, &["SET", "one", "1"]).await;
    let silent = wait_for_lag(&server, "silence", |lag| lag >= 2).await;
    assert_eq!(cli(&server, &["WAIT", "1", "1"]).await, "0", "nothing was called durable");
    wait_for_lag(&server, "an answer", |lag| lag < silent).await;
    reading.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_server_does_not_know_begins_with_a_snapshot() {
    let options = RedisOptions::default().setting("repl-diskless-sync-delay", "0");
    let server = TestRedis::start(options).await.unwrap();
    let id = ReplicationId::parse(&"a".repeat(40)).unwrap();
    let position = Position::At { id, offset: Offset(7), state: StreamState::default() };
    let answer = connect(&endpoint(&server), position, &quick()).await.unwrap();
    let Answer::Full(mut snapshot) = answer else { panic!("continued what never was") };
    assert_eq!(facts(&mut snapshot).await.keys(), 0);
    let early = full(&endpoint(&server), &quick()).await;
    assert!(early.into_stream().is_err(), "a snapshot that was not read is no base of a stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_alone_ends_the_connection() {
    let options = RedisOptions::default().setting("repl-diskless-sync-delay", "0");
    let server = TestRedis::start(options).await.unwrap();
    cli(&server, &["SET", "key", "value"]).await;
    let mut snapshot = full(&endpoint(&server), &quick().snapshot_only()).await;
    assert_eq!(facts(&mut snapshot).await.keys(), 1);
    assert!(snapshot.next().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_named_in_the_hint_are_enough_and_less_is_refused_with_them() {
    let options = RedisOptions::default().setting("repl-diskless-sync-delay", "0");
    let server = TestRedis::start(options).await.unwrap();
    cli(&server, &["ACL", "SETUSER", "archiver", "on", ">word", "-@all", "+replconf", "+ping"]).await;
    let error = connect(&as_user(&server, "archiver", "word"), Position::New, &quick()).await.unwrap_err();
    let Error::Denied { command: "PSYNC", rules, .. } = &error else { panic!("{error:?}") };
    let mut grant = vec!["ACL", "SETUSER", "archiver"];
    grant.extend(rules.split(' '));
    cli(&server, &grant).await;
    let mut snapshot = full(&as_user(&server, "archiver", "word"), &quick()).await;
    facts(&mut snapshot).await;
    snapshot.into_stream().unwrap().next().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_and_none_are_told_apart_from_servers_that_are_gone() {
    let server = TestRedis::start(RedisOptions::default()).await.unwrap();
    let address = Address::new("127.0.0.1", server.port());
    for endpoint in [Endpoint::new(address.clone()), as_user(&server, "default", "wrong")] {
        let error = connect(&endpoint, Position::New, &quick()).await.unwrap_err();
        assert!(matches!(error, Error::Login { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Usage);
        assert!(!format!("{error:?}").contains("wrong\""), "the password is not repeated");
    }
    drop(server);
    let error = connect(&Endpoint::new(address), Position::New, &quick()).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_primary_is_not_ready() {
    let mut primary = TestRedis::start(RedisOptions::default().password(false)).await.unwrap();
    let replica = TestRedis::start(RedisOptions::default().password(false)).await.unwrap();
    primary.kill9();
    cli(&replica, &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    let error = connect(&endpoint(&replica), Position::New, &quick()).await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Temporary);
}

/// A server that answers every command with the next of these, and then does nothing more.
async fn scripted(answers: &'static [&'static [u8]]) -> Endpoint {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        for answer in answers {
            if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
            let _ = stream.write_all(answer).await;
        }
        std::future::pending::<()>().await;
    });
    Endpoint::new(Address::new("127.0.0.1", port))
}

const NEGATIVE: &[u8] = b"+FULLRESYNC 0123456789012345678901234567890123456789 -7\r\n";

#[tokio::test]
async fn strange_servers_end_in_one_clear_error() {
    let short =
        PsyncOptions::default().answer(Duration::from_millis(300)).silence(Duration::from_millis(300));
    let cases: [(&'static [&'static [u8]], &str); 8] = [
        (&[b"HTTP/1.1 400 Bad Request\r\n\r\n"], "is not a Redis"),
        (
            &[b"+PONG\r\n", b"+OK\r\n", b"-ERR what\r\n", b"-LOADING Redis is loading\r\n"],
            "is not ready: LOADING",
        ),
        (&[b"+PONG\r\n", b"+OK\r\n", b"-ERR what\r\n", b"-ERR unknown command 'PSYNC'\r\n"], "refuses PSYNC"),
        (&[b"+PONG\r\n", b"+OK\r\n", b"-ERR what\r\n", b"+CONTINUE\r\n"], "cannot be understood"),
        (&[b"+PONG\r\n", b"+OK\r\n", b"-ERR what\r\n", b"+FULLRESYNC x 7\r\n"], "cannot be understood"),
        (&[b"+PONG\r\n", b"+OK\r\n", b"-ERR what\r\n", b"\n\n\n"], "said nothing"),
        (&[b"+PONG\r\n"], "said nothing"),
        (&[b"+PONG\r\n", b"+OK\r\n", b"-ERR what\r\n", NEGATIVE], "cannot be understood"),
    ];
    for (answers, expected) in cases {
        let error = connect(&scripted(answers).await, Position::New, &short).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

/// As a network that drops everything without a word.
#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    const SNAPSHOT: &[u8] = b"+FULLRESYNC 0123456789012345678901234567890123456789 7\r\n$9\r\nREDIS0010";
    let silent = scripted(&[b"+PONG\r\n", b"+OK\r\n", b"-ERR what\r\n", SNAPSHOT]).await;
    let options = PsyncOptions::default().silence(Duration::from_millis(300));
    let mut snapshot = full(&silent, &options).await;
    while snapshot.next().await.unwrap().is_some() {}
    let mut stream = snapshot.into_stream().unwrap();
    let next = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
    let error = next.expect("it waits for ever").unwrap_err();
    assert!(matches!(error, Error::Silent { .. }), "{error:?}");
}

/// As real ones do that have not noticed yet that the child that wrote the snapshot has ended.
#[tokio::test]
async fn a_server_that_overlooks_an_acknowledgement_of_the_snapshot_gets_another_however_rarely_one_is_due() {
    const SNAPSHOT: &[u8] = b"+FULLRESYNC 0123456789012345678901234567890123456789 7\r\n$9\r\nREDIS0010";
    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
    let server = scripted(&[b"+PONG\r\n", b"+OK\r\n", b"-ERR what\r\n", SNAPSHOT, b"", PING]).await;
    let mut rarely = quick();
    rarely.acknowledge_every = Duration::from_secs(3600);
    let mut snapshot = full(&server, &rarely).await;
    while snapshot.next().await.unwrap().is_some() {}
    let mut stream = snapshot.into_stream().unwrap();
    let next = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
    assert_eq!(next.expect("the stream never begins").unwrap().bytes, PING);
}

#[tokio::test]
async fn the_end_mark_may_lie_across_reads_and_the_stream_right_behind_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mark = "0123456789abcdef0123456789abcdef01234567";
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut buffer = [0; 4096];
        for answer in [
            "+PONG\r\n".to_owned(),
            "+OK\r\n".to_owned(),
            "+OK\r\n".to_owned(),
            format!("\n+FULLRESYNC {mark} 10\r\n\n\n$EOF:{mark}\r\n"),
        ] {
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        // Byte by byte, with half a mark inside.
        let content = format!("REDIS0010{}{mark}*1\r\n$4\r\nPING\r\n", &mark[..20]);
        for byte in content.bytes() {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let read = stream.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    });
    let endpoint = Endpoint::new(Address::new("127.0.0.1", port));
    let mut snapshot = full(&endpoint, &quick()).await;
    let mut content = Vec::new();
    while let Some(piece) = snapshot.next().await.unwrap() {
        content.extend_from_slice(&piece);
    }
    assert_eq!(content, format!("REDIS0010{}", &mark[..20]).into_bytes());
    let mut stream = snapshot.into_stream().unwrap();
    assert_eq!(until(&mut stream, "PING").await, ["PING"]);
    assert_eq!(stream.offset(), Offset(10 + 14));
    let acknowledgement = serving.await.unwrap();
    assert!(acknowledgement.contains("ACK\r\n$1\r\n0\r\n"), "nothing is durable yet: {acknowledgement:?}");
}
