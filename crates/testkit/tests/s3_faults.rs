//! Roles, the access log, injected faults and the misbehaviour switches.

#![allow(clippy::unwrap_used, missing_docs)]

mod s3_client;

use std::time::{Duration, Instant, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ObjectLockMode};
use backstay_testkit::s3::{BucketOptions, Effect, FaultRule, Faults, Misbehaviour, S3Options, S3Server};
use s3_client::*;

fn body(text: &str) -> ByteStream {
    ByteStream::from(text.as_bytes().to_vec())
}

/// A client that repeats failed calls at once.
fn retrying(server: &S3Server) -> Client {
    let retries = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(1));
    Client::from_conf(config(&server.endpoint(), ADMIN).retry_config(retries).build())
}

#[tokio::test]
async fn a_writer_creates_but_neither_overwrites_nor_deletes() {
    let server = start().await;
    let (writer, admin) = (client(&server, WRITER), admin(&server));
    let write = |key: &str| writer.put_object().bucket(BUCKET).key(key).body(body("x"));
    write("sets/1").if_none_match("*").send().await.unwrap();
    assert_refused!(write("sets/1").if_none_match("*").send().await, 412, "PreconditionFailed");
    assert_refused!(write("sets/2").send().await, 403, "AccessDenied");
    let etag = write("leases/l").if_none_match("*").send().await.unwrap().e_tag().unwrap().to_owned();
    write("leases/l").if_match(&etag).body(body("y")).send().await.unwrap();
    assert_refused!(write("sets/1").if_match(&etag).send().await, 403, "AccessDenied");
    assert_refused!(writer.delete_object().bucket(BUCKET).key("sets/1").send().await, 403, "AccessDenied");
    assert_refused!(writer.create_bucket().bucket("more").send().await, 403, "AccessDenied");

    let id = writer.create_multipart_upload().bucket(BUCKET).key("big").send().await.unwrap();
    let id = id.upload_id().unwrap();
    let part = writer.upload_part().bucket(BUCKET).key("big").upload_id(id).part_number(1).body(body("x"));
    let part = part.send().await.unwrap();
    let part = CompletedPart::builder().part_number(1).e_tag(part.e_tag().unwrap()).build();
    let parts = CompletedMultipartUpload::builder().parts(part).build();
    let complete =
        writer.complete_multipart_upload().bucket(BUCKET).key("big").upload_id(id).multipart_upload(parts);
    assert_refused!(complete.clone().send().await, 403, "AccessDenied");
    complete.if_none_match("*").send().await.unwrap();

    let reader = client(&server, READER);
    assert_eq!(read(&reader, "big").await, b"x");
    assert_eq!(reader.list_objects_v2().bucket(BUCKET).send().await.unwrap().contents().len(), 3);
    let put = reader.put_object().bucket(BUCKET).key("r").if_none_match("*").body(body("x")).send().await;
    assert_refused!(put, 403, "AccessDenied");
    assert_eq!(read(&admin, "sets/1").await, b"x");
}

#[tokio::test]
async fn the_access_log_says_who_did_what_and_what_was_overwritten() {
    let server = start().await;
    let (writer, admin) = (client(&server, WRITER), admin(&server));
    let start = SystemTime::now() - Duration::from_secs(1);
    writer
        .put_object()
        .bucket(BUCKET)
        .key("a b/k")
        .if_none_match("*")
        .body(body("hello"))
        .send()
        .await
        .unwrap();
    assert!(server.access_log().iter().all(|record| !record.overwrote && !record.is_denied()));
    put(&admin, "a b/k", "again").await;
    let _ = writer.delete_object().bucket(BUCKET).key("a b/k").send().await;
    read(&admin, "a b/k").await;
    let _ = admin.get_object().bucket(BUCKET).key("nope").send().await;

    let log = server.access_log();
    let short: Vec<_> = log
        .iter()
        .map(|r| {
            (
                r.access_key.as_deref().unwrap(),
                r.operation.as_str(),
                r.status,
                r.error.as_deref(),
                r.overwrote,
                r.bytes,
            )
        })
        .collect();
    assert_eq!(
        short,
        [
            (WRITER.0, "PutObject", 200, None, false, 5),
            (ADMIN.0, "PutObject", 200, None, true, 5),
            (WRITER.0, "DeleteObject", 403, Some("AccessDenied"), false, 0),
            (ADMIN.0, "GetObject", 200, None, false, 5),
            (ADMIN.0, "GetObject", 404, Some("NoSuchKey"), false, 0),
        ]
    );
    assert_eq!((log[0].bucket.as_deref(), log[0].key.as_deref()), (Some(BUCKET), Some("a b/k")));
    assert!(log.iter().all(|record| record.time >= start && record.time <= SystemTime::now()));
    assert_eq!(server.access_log_dropped(), 0);
    server.clear_access_log();
    assert!(server.access_log().is_empty());
}

#[tokio::test]
async fn errors_hit_the_chosen_calls() {
    let server = start().await;
    let client = admin(&server);
    let cases = [
        (Effect::InternalError, 500, "InternalError"),
        (Effect::ServiceUnavailable, 503, "ServiceUnavailable"),
        (Effect::SlowDown, 503, "SlowDown"),
        (Effect::AccessDenied, 403, "AccessDenied"),
        (Effect::Conflict, 409, "ConditionalRequestConflict"),
        (Effect::Error { status: 507, code: "Full".into() }, 507, "Full"),
    ];
    for (effect, status, code) in cases {
        server
            .faults()
            .set(Faults::default().rule(FaultRule::on("PutObject", effect).key_contains("hit").nth(2)));
        // Big enough that the client is still sending when the server has made up its mind.
        let write = |key: &str| {
            client.put_object().bucket(BUCKET).key(key).body(ByteStream::from(noise(2_000_000))).send()
        };
        write("hit").await.unwrap();
        write("other").await.unwrap();
        assert_refused!(write("hit2").await, status, code);
        write("hit").await.unwrap();
        assert_eq!(server.faults().fired(), 1);
        assert_refused!(client.get_object().bucket(BUCKET).key("hit2").send().await, 404, "NoSuchKey");
    }
}

#[tokio::test]
async fn a_retrying_client_gets_through_a_storm() {
    let server = start().await;
    server.faults().set(
        Faults::default()
            .seed(11)
            .rule(FaultRule::on("PutObject", Effect::SlowDown).first(2))
            .rule(FaultRule::any(Effect::DropRequest).probability(0.1)),
    );
    let client = retrying(&server);
    for n in 0..30 {
        put(&client, &format!("k{n}"), "x").await;
    }
    assert!(server.faults().fired() > 2, "{}", server.faults().fired());
    server.faults().clear();
    assert_eq!(client.list_objects_v2().bucket(BUCKET).send().await.unwrap().contents().len(), 30);
}

#[tokio::test]
async fn a_lost_reply_means_the_work_was_done() {
    let server = start().await;
    let client = admin(&server);
    let lose = || Faults::default().rule(FaultRule::on("PutObject", Effect::LoseReply).nth(1));
    server.faults().set(lose());
    let put = client.put_object().bucket(BUCKET).key("k").if_none_match("*").body(body("x")).send().await;
    assert!(matches!(put, Err(SdkError::DispatchFailure(_))), "{put:?}");
    assert_eq!(read(&client, "k").await, b"x");
    assert!(server.access_log()[0].reply_lost);
    // The trap for clients: their own retry finds the object in the way.
    server.faults().set(lose());
    let retried = retrying(&server).put_object().bucket(BUCKET).key("k2").if_none_match("*").body(body("x"));
    assert_refused!(retried.send().await, 412, "PreconditionFailed");
}

#[tokio::test]
async fn connections_break_where_they_are_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let options = with_roles(S3Options::directory(folder.path())).bucket(BUCKET);
    let server = S3Server::start(options).await.unwrap();
    let client = admin(&server);
    let data = noise(3_000_000);
    put(&client, "k", data.clone()).await;

    server.faults().set(Faults::default().rule(FaultRule::on("GetObject", Effect::CutReply(1_500_000))));
    let mut reply = client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    let mut received = Vec::new();
    let outcome = loop {
        match reply.body.try_next().await {
            Ok(Some(chunk)) => received.extend_from_slice(&chunk),
            other => break other,
        }
    };
    assert!(outcome.is_err(), "a cut must not look like an end");
    assert_eq!(received.len(), 1_500_000);
    assert!(received == data[..1_500_000]);

    server.faults().set(Faults::default().rule(FaultRule::on("GetObject", Effect::FlipReplyBit(2_000_000))));
    let get = plain(&server).get_object().bucket(BUCKET).key("k").send().await.unwrap();
    let received = get.body.collect().await.unwrap().to_vec();
    let different: Vec<_> = (0..data.len()).filter(|at| data[*at] != received[*at]).collect();
    assert_eq!(different, [2_000_000]);

    let pause = Duration::from_millis(300);
    server
        .faults()
        .set(Faults::default().rule(FaultRule::on("GetObject", Effect::StallReply { after: 1_000, pause })));
    let start = Instant::now();
    assert!(read(&client, "k").await == data);
    assert!(start.elapsed() >= pause);

    server.faults().set(Faults::default().rule(FaultRule::on("PutObject", Effect::CutUpload(1_000_000))));
    let put =
        client.put_object().bucket(BUCKET).key("k").body(ByteStream::from(noise(2_500_000))).send().await;
    assert!(matches!(put, Err(SdkError::DispatchFailure(_))), "{put:?}");
    server.faults().clear();
    assert!(read(&client, "k").await == data);
    assert_eq!(std::fs::read_dir(folder.path().join("data")).unwrap().count(), 1);
}

#[tokio::test]
async fn an_error_may_hide_in_a_reply_of_200() {
    let server = start().await;
    let client = admin(&server);
    let id = client.create_multipart_upload().bucket(BUCKET).key("big").send().await.unwrap();
    let id = id.upload_id().unwrap();
    let part = client.upload_part().bucket(BUCKET).key("big").upload_id(id).part_number(1).body(body("x"));
    let part =
        CompletedPart::builder().part_number(1).e_tag(part.send().await.unwrap().e_tag().unwrap()).build();
    let parts = CompletedMultipartUpload::builder().parts(part).build();
    let complete =
        client.complete_multipart_upload().bucket(BUCKET).key("big").upload_id(id).multipart_upload(parts);
    let rule = FaultRule::on("CompleteMultipartUpload", Effect::ErrorInside200).first(1);
    server.faults().set(Faults::default().rule(rule));
    assert!(complete.clone().send().await.is_err());
    assert_refused!(client.head_object().bucket(BUCKET).key("big").send().await, 404, "NotFound");
    complete.send().await.unwrap();
}

#[tokio::test]
async fn latency_and_delays_are_felt() {
    let server = start().await;
    let client = admin(&server);
    let timed = || async {
        let start = Instant::now();
        client.head_bucket().bucket(BUCKET).send().await.unwrap();
        start.elapsed()
    };
    timed().await;
    server.faults().set(Faults::default().latency(Duration::from_millis(150)));
    assert!(timed().await >= Duration::from_millis(150));
    let delay = FaultRule::on("HeadBucket", Effect::Delay(Duration::from_millis(200))).nth(1);
    server.faults().set(Faults::default().rule(delay));
    assert!(timed().await >= Duration::from_millis(200));
    timed().await;
    assert_eq!(server.faults().fired(), 1);
}

#[tokio::test]
async fn a_skewed_server_refuses_honest_clocks_and_says_its_own_time() {
    let server = start().await;
    let client = admin(&server);
    server.faults().set(Faults::default().clock_skew_seconds(600));
    put(&client, "k", "x").await;
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    let ahead = head.last_modified().unwrap().secs() - DateTime::from(SystemTime::now()).secs();
    assert!((540..=660).contains(&ahead), "{ahead}");
    server.faults().set(Faults::default().clock_skew_seconds(-3_600));
    assert_refused!(client.get_object().bucket(BUCKET).key("k").send().await, 403, "RequestTimeTooSkewed");
    // A client that believes the Date header signs with the server's time and gets through.
    read(&retrying(&server), "k").await;
}

#[tokio::test]
async fn misbehaviour_lets_creates_overwrite() {
    let server = start().await;
    let client = admin(&server);
    let create =
        |text: &str| client.put_object().bucket(BUCKET).key("k").if_none_match("*").body(body(text)).send();
    create("1").await.unwrap();
    server.faults().misbehave([Misbehaviour::IgnoresIfNoneMatch]);
    create("2").await.unwrap();
    assert_eq!(read(&client, "k").await, b"2");
    server.faults().misbehave([Misbehaviour::IgnoresIfMatch]);
    assert_refused!(create("3").await, 412, "PreconditionFailed");
    client.put_object().bucket(BUCKET).key("k").if_match("\"abc\"").body(body("3")).send().await.unwrap();
    assert_eq!(read(&client, "k").await, b"3");
    server.faults().clear();
    assert_refused!(create("4").await, 412, "PreconditionFailed");
}

#[tokio::test]
async fn misbehaviour_makes_two_winners_only_of_simultaneous_creates() {
    let server = start().await;
    let client = admin(&server);
    server.faults().misbehave([Misbehaviour::TwoWinners]);
    let create =
        |key: &str| client.put_object().bucket(BUCKET).key(key).if_none_match("*").body(body("x")).send();
    for round in 0..10 {
        let key = format!("k{round}");
        let (first, second) = tokio::join!(create(&key), create(&key));
        first.unwrap();
        second.unwrap();
        assert_refused!(create(&key).await, 412, "PreconditionFailed");
    }
    assert_eq!(server.access_log().iter().filter(|record| record.overwrote).count(), 10);
}

#[tokio::test]
async fn misbehaviour_takes_bodies_with_wrong_checksums() {
    let server = start().await;
    let client = plain(&server);
    let write =
        |text: &str| client.put_object().bucket(BUCKET).key("k").body(body(text)).checksum_crc32("AAAAAA==");
    server.faults().misbehave([Misbehaviour::AcceptsWrongChecksums]);
    write("one").send().await.unwrap();
    assert_eq!(read(&client, "k").await, b"one");
    let md5 =
        client.put_object().bucket(BUCKET).key("k").body(body("two")).content_md5("AAAAAAAAAAAAAAAAAAAAAA==");
    md5.send().await.unwrap();
    server.faults().misbehave([Misbehaviour::StoresRejectedBodies]);
    assert_refused!(write("three").send().await, 400, "BadDigest");
    assert_eq!(read(&client, "k").await, b"three");
}

#[tokio::test]
async fn misbehaviour_lists_late() {
    let server = start().await;
    let client = admin(&server);
    server.faults().misbehave([Misbehaviour::StaleListing(Duration::from_secs(2))]);
    let wrote = Instant::now();
    put(&client, "k", "x").await;
    let listed = || async { client.list_objects_v2().bucket(BUCKET).send().await.unwrap().contents().len() };
    assert_eq!(listed().await, 0);
    assert_eq!(read(&client, "k").await, b"x");
    let shown = async {
        while listed().await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), shown).await.unwrap();
    assert!(wrote.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn misbehaviour_forgets_and_breaks_locks() {
    let server = start_with(BucketOptions::new(BUCKET).object_lock()).await;
    let client = admin(&server);
    let until = DateTime::from(SystemTime::now() + Duration::from_secs(3_600));
    let put_locked = || async {
        let put = client.put_object().bucket(BUCKET).key("k").body(body("x"));
        let put = put.object_lock_mode(ObjectLockMode::Compliance).object_lock_retain_until_date(until);
        put.send().await.unwrap().version_id().unwrap().to_owned()
    };
    let delete = |id: String| client.delete_object().bucket(BUCKET).key("k").version_id(id).send();
    let id = put_locked().await;
    assert_refused!(delete(id.clone()).await, 403, "AccessDenied");
    server.faults().misbehave([Misbehaviour::DeletesLockedVersions]);
    assert!(client.get_object_retention().bucket(BUCKET).key("k").send().await.is_ok());
    delete(id).await.unwrap();
    server.faults().misbehave([Misbehaviour::ForgetsLocks]);
    let id = put_locked().await;
    let retention = client.get_object_retention().bucket(BUCKET).key("k").send().await;
    assert_refused!(retention, 404, "NoSuchObjectLockConfiguration");
    delete(id).await.unwrap();
}

#[tokio::test]
async fn misbehaviour_keeps_aborted_uploads() {
    let server = start().await;
    let client = admin(&server);
    server.faults().misbehave([Misbehaviour::KeepsAbortedUploads]);
    let id = client.create_multipart_upload().bucket(BUCKET).key("k").send().await.unwrap();
    let id = id.upload_id().unwrap();
    client.abort_multipart_upload().bucket(BUCKET).key("k").upload_id(id).send().await.unwrap();
    assert_eq!(client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads().len(), 1);
}

#[tokio::test]
async fn misbehaviour_reports_a_wrong_date_and_nothing_else() {
    let server = start().await;
    let client = admin(&server);
    server.faults().misbehave([Misbehaviour::WrongDate(7_200)]);
    put(&client, "k", "x").await;
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    let age = DateTime::from(SystemTime::now()).secs() - head.last_modified().unwrap().secs();
    assert!((-1..=60).contains(&age), "{age}");
    let raw = client.get_object().bucket(BUCKET).key("nope").send().await.unwrap_err();
    let date = raw.raw_response().unwrap().headers().get("date").unwrap().to_owned();
    let date = DateTime::from_str(&date, aws_smithy_types::date_time::Format::HttpDate).unwrap();
    let ahead = date.secs() - DateTime::from(SystemTime::now()).secs();
    assert!((7_140..=7_260).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn it_serves_while_the_caller_is_blocked_and_stops_when_dropped() {
    let server = start().await;
    let address = server.address();
    // Blocks this runtime's only thread.
    let reply = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                use std::io::{Read, Write};
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
                let mut reply = String::new();
                stream.read_to_string(&mut reply).unwrap();
                reply
            })
            .join()
            .unwrap()
    });
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    drop(server);
    let closed = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
}
