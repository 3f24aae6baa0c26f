//! The seam's promises, kept over HTTP by a real server.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::time::Duration;

use backstay_backup_core::key::Prefix;
use backstay_backup_core::store::{
    Attributes, ETag, Multipart as _, ObjectStore as _, PartNumber, PutMode, StoreError, UploadId,
};
use backstay_storage_s3::{Checksums, Encryption, LockMode, PayloadSigning, S3Store, Timeouts};
use backstay_testkit::s3::{Effect, FaultRule, Faults};
use bytes::Bytes;
use common::*;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};

const MODES: [Checksums; 3] = [Checksums::Crc64Nvme, Checksums::Crc32, Checksums::Compatible];

#[tokio::test]
async fn bytes_come_back_in_every_checksum_mode() {
    let server = server().await;
    for checksums in MODES {
        let store = open(&server, checksums).await;
        for len in [0, 1, 100_000, 3_000_000] {
            let name = format!("{checksums:?}/{len}");
            let meta = create(&store, &name, noise(len)).await.unwrap();
            assert_eq!(meta.size, len as u64);
            assert_eq!(read(&store, &name).await.unwrap(), noise(len));
            let head = store.head(&key(&name)).await.unwrap();
            assert_eq!((head.size, &head.etag), (len as u64, &meta.etag));
            assert!(head.modified.duration_since(meta.modified).abs() < SignedDuration::from_secs(2));
        }
    }
}

#[tokio::test]
async fn a_second_create_is_refused_and_changes_nothing() {
    let server = server().await;
    for checksums in MODES {
        let store = open(&server, checksums).await;
        let name = format!("{checksums:?}");
        create(&store, &name, Bytes::from_static(b"first")).await.unwrap();
        let second = create(&store, &name, Bytes::from_static(b"second")).await;
        assert!(matches!(second, Err(StoreError::AlreadyExists { .. })), "{second:?}");
        assert_eq!(read(&store, &name).await.unwrap(), "first");
    }
    assert!(server.access_log().iter().all(|record| !record.overwrote));
}

#[tokio::test]
async fn only_the_current_tag_replaces() {
    let server = server().await;
    let store = open(&server, Checksums::default()).await;
    let first = create(&store, "leases/a", Bytes::from_static(b"1")).await.unwrap().etag.unwrap();
    let swap = async |name: &str, tag: &ETag, body: &'static [u8]| {
        let mode = PutMode::Replace(tag.clone());
        store.put(&key(name), Bytes::from_static(body), mode, &Attributes::default()).await
    };
    let second = swap("leases/a", &first, b"2").await.unwrap().etag.unwrap();
    assert_ne!(first, second);
    assert!(matches!(swap("leases/a", &first, b"3").await, Err(StoreError::Conflict { .. })));
    assert!(matches!(swap("leases/none", &first, b"3").await, Err(StoreError::Conflict { .. })));
    assert_eq!(read(&store, "leases/a").await.unwrap(), "2");
    assert_eq!(store.head(&key("leases/a")).await.unwrap().etag, Some(second));
}

#[tokio::test]
async fn ranges_are_cut_at_the_end_of_the_object() {
    let server = server().await;
    let body = noise(1000);
    for checksums in MODES {
        let store = open(&server, checksums).await;
        let name = key(&format!("{checksums:?}"));
        store.put(&name, body.clone(), PutMode::Create, &Attributes::default()).await.unwrap();
        for (asked, given) in [
            (0..1000, 0..1000),
            (0..1, 0..1),
            (10..20, 10..20),
            (990..5000, 990..1000),
            (990..u64::MAX, 990..1000),
            (1000..1001, 1000..1000),
            (7000..8000, 1000..1000),
            (5..5, 5..5),
        ] {
            let got = store.get(&name, Some(asked.clone())).await.unwrap();
            assert_eq!(got.range, given, "{asked:?}");
            assert_eq!(got.meta.size, 1000);
            let bytes = got.body.try_collect::<Vec<_>>().await.unwrap().concat();
            assert_eq!(bytes, body[given.start as usize..given.end as usize], "{asked:?}");
        }
        let empty = key(&format!("empty/{checksums:?}"));
        store.put(&empty, Bytes::new(), PutMode::Create, &Attributes::default()).await.unwrap();
        for range in [None, Some(0..10)] {
            let got = store.get(&empty, range).await.unwrap();
            assert_eq!(got.range, 0..0);
            assert!(got.body.try_collect::<Vec<_>>().await.unwrap().concat().is_empty());
        }
    }
}

#[tokio::test]
async fn absence_is_said_only_when_it_is_proven() {
    let server = server().await;
    let store = open(&server, Checksums::default()).await;
    let none = key("none");
    assert!(store.head(&none).await.unwrap_err().is_absent());
    assert!(store.get(&none, None).await.unwrap_err().is_absent());
    assert!(store.get(&none, Some(3..3)).await.unwrap_err().is_absent());
    store.delete(&none).await.unwrap();

    let elsewhere = open_as(&server, "no-such-bucket", ADMIN).await;
    for error in [
        elsewhere.head(&none).await.unwrap_err(),
        elsewhere.get(&none, None).await.unwrap_err(),
        elsewhere.delete(&none).await.unwrap_err(),
        elsewhere.list(&Prefix::root()).try_collect::<Vec<_>>().await.unwrap_err(),
        create(&elsewhere, "x", Bytes::new()).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Missing { .. }), "{error:?}");
    }
    for effect in [Effect::InternalError, Effect::SlowDown, Effect::DropRequest, Effect::LoseReply] {
        server.faults().set(Faults::default().rule(FaultRule::any(effect.clone())));
        assert!(store.head(&none).await.unwrap_err().is_temporary(), "{effect:?}");
        assert!(store.get(&none, None).await.unwrap_err().is_temporary(), "{effect:?}");
        let listing = store.list(&Prefix::root()).try_collect::<Vec<_>>().await;
        assert!(listing.unwrap_err().is_temporary(), "{effect:?}");
    }
    server.faults().set(Faults::default().rule(FaultRule::any(Effect::AccessDenied)));
    assert!(matches!(store.head(&none).await, Err(StoreError::Denied { .. })));
    assert!(matches!(store.get(&none, None).await, Err(StoreError::Denied { .. })));
}

#[tokio::test]
async fn listings_are_paged_sorted_and_show_only_our_keys() {
    let server = server().await;
    let store = open(&server, Checksums::Compatible).await;
    let names: Vec<String> = (0..1100).map(|n| format!("many/{n:04}+x=y")).collect();
    stream::iter(&names)
        .map(|name| create(&store, name, Bytes::from_static(b"x")))
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    create(&store, "many2/other", Bytes::new()).await.unwrap();
    // Keys of others in the same bucket: outside our folder, and names that are no keys of ours.
    let foreign =
        S3Store::open(options(&server.endpoint(), PLAIN, ADMIN).prefix(Prefix::root())).await.unwrap();
    create(&foreign, "some/folder2/x", Bytes::new()).await.unwrap();
    assert_eq!(listed(&store, "many").await, names);
    let all = listed(&store, "").await;
    assert_eq!(all.len(), names.len() + 1);
    assert!(all.iter().all(|name| name.starts_with("many")));
    let pages = server.access_log().iter().filter(|record| record.operation == "ListObjectsV2").count();
    assert_eq!(pages, 4, "two listings of two pages");
    assert!(listed(&store, "none").await.is_empty());
}

#[tokio::test]
async fn uploads_become_visible_whole_and_only_once() {
    let server = server().await;
    let first = noise(5 << 20);
    let second = noise(12345);
    for checksums in MODES {
        let store = open(&server, checksums).await;
        let name = key(&format!("up/{checksums:?}"));
        let upload = store.start_upload(&name, &Attributes::default()).await.unwrap();
        let one = PartNumber { number: 1, offset: 0 };
        let two = PartNumber { number: 2, offset: first.len() as u64 };
        let last = store.put_part(&name, &upload, two, second.clone()).await.unwrap();
        let early = store.put_part(&name, &upload, one, first.clone()).await.unwrap();
        let again = store.put_part(&name, &upload, one, first.clone()).await.unwrap();
        assert_eq!(early, again);
        assert!(store.head(&name).await.unwrap_err().is_absent());
        let pending = store.list_uploads(&Prefix::parse("up").unwrap()).await.unwrap();
        assert_eq!(pending.len(), 1);
        assert_eq!((&pending[0].key, &pending[0].upload), (&name, &upload));
        let meta = store.complete_upload(&name, &upload, &[early, last]).await.unwrap();
        assert_eq!(meta.size, (first.len() + second.len()) as u64);
        assert_eq!(store.head(&name).await.unwrap().size, meta.size);
        assert_eq!(read(&store, name.as_str()).await.unwrap(), [first.clone(), second.clone()].concat());
        assert!(store.list_uploads(&Prefix::root()).await.unwrap().is_empty());

        let late = store.start_upload(&name, &Attributes::default()).await.unwrap();
        let part = store.put_part(&name, &late, one, Bytes::from_static(b"late")).await.unwrap();
        let refused = store.complete_upload(&name, &late, &[part]).await;
        assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })), "{refused:?}");
        store.abort_upload(&name, &late).await.unwrap();
        store.abort_upload(&name, &late).await.unwrap();
        assert_eq!(store.head(&name).await.unwrap().size, meta.size);
    }
    assert!(server.access_log().iter().all(|record| !record.overwrote));
}

#[tokio::test]
async fn an_upload_that_does_not_exist_cannot_be_completed() {
    let server = server().await;
    let store = open(&server, Checksums::default()).await;
    let name = key("up");
    let upload = store.start_upload(&name, &Attributes::default()).await.unwrap();
    let part = store
        .put_part(&name, &upload, PartNumber { number: 1, offset: 0 }, Bytes::from_static(b"x"))
        .await
        .unwrap();
    store.abort_upload(&name, &upload).await.unwrap();
    let refused = store.complete_upload(&name, &upload, &[part]).await;
    assert!(matches!(refused, Err(StoreError::Failed { .. })), "{refused:?}");
    store.abort_upload(&name, &UploadId("never-was".into())).await.unwrap();
    assert!(store.head(&name).await.unwrap_err().is_absent());
}

#[tokio::test]
async fn an_error_inside_a_good_reply_is_an_error() {
    let server = server().await;
    let store = open(&server, Checksums::default()).await;
    let name = key("up");
    let upload = store.start_upload(&name, &Attributes::default()).await.unwrap();
    let part = PartNumber { number: 1, offset: 0 };
    let part = store.put_part(&name, &upload, part, Bytes::from_static(b"x")).await.unwrap();
    let rule = FaultRule::on("CompleteMultipartUpload", Effect::ErrorInside200).nth(1);
    server.faults().set(Faults::default().rule(rule));
    let error = store.complete_upload(&name, &upload, std::slice::from_ref(&part)).await.unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    store.complete_upload(&name, &upload, &[part]).await.unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_a_whole_object_is_noticed() {
    let server = server().await;
    let store = open(&server, Checksums::default()).await;
    create(&store, "a", noise(50_000)).await.unwrap();
    server.faults().set(Faults::default().rule(FaultRule::on("GetObject", Effect::FlipReplyBit(777)).nth(1)));
    let error = read(&store, "a").await.unwrap_err();
    assert!(matches!(error, StoreError::Checksum { .. }), "{error:?}");
    assert_eq!(read(&store, "a").await.unwrap(), noise(50_000));
}

#[tokio::test]
async fn a_cut_body_is_a_temporary_error_after_the_bytes_that_came() {
    let server = server().await;
    for checksums in [Checksums::Crc64Nvme, Checksums::Compatible] {
        let store = open(&server, checksums).await;
        let name = format!("cut/{checksums:?}");
        create(&store, &name, noise(500_000)).await.unwrap();
        server.faults().set(Faults::default().rule(FaultRule::on("GetObject", Effect::CutReply(300_000))));
        for range in [None, Some(0..500_000)] {
            let mut body = store.get(&key(&name), range).await.unwrap().body;
            let mut got = Vec::new();
            let error = loop {
                match body.try_next().await {
                    Ok(Some(chunk)) => got.extend_from_slice(&chunk),
                    Ok(None) => panic!("a cut body ended well after {} bytes", got.len()),
                    Err(error) => break error,
                }
            };
            assert!(error.is_temporary(), "{error:?}");
            assert_eq!(got, noise(500_000)[..got.len()]);
        }
        server.faults().clear();
    }
}

#[tokio::test]
async fn a_silent_store_is_given_up_in_time() {
    let server = server().await;
    let limits = Timeouts::default().reply(Duration::from_millis(300));
    let store = S3Store::open(options(&server.endpoint(), PLAIN, ADMIN).timeouts(limits)).await.unwrap();
    server.faults().set(Faults::default().latency(Duration::from_secs(20)));
    let start = std::time::Instant::now();
    let error = store.head(&key("a")).await.unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(words(&error).contains("no answer within 0.3 s"), "{}", words(&error));
}

#[tokio::test]
async fn silence_in_a_body_is_given_up_but_a_reader_may_pause() {
    let server = server().await;
    let idle = Duration::from_millis(400);
    let limits = Timeouts::default().idle(idle);
    let store = S3Store::open(options(&server.endpoint(), PLAIN, ADMIN).timeouts(limits)).await.unwrap();
    // More than all buffers on the way hold, so that the pause reaches the connection.
    let body = noise(16 << 20);
    create(&store, "a", body.clone()).await.unwrap();
    let mut stream = store.get(&key("a"), None).await.unwrap().body;
    let first = stream.try_next().await.unwrap().unwrap();
    tokio::time::sleep(3 * idle).await;
    let rest: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert!([vec![first], rest].concat().concat() == body);

    let stall = Effect::StallReply { after: 100_000, pause: Duration::from_secs(30) };
    server.faults().set(Faults::default().rule(FaultRule::on("GetObject", stall)));
    let start = std::time::Instant::now();
    let error = read(&store, "a").await.unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    assert!(words(&error).contains("nothing arrived for 0.4 s"), "{}", words(&error));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_unreachable_store_is_named_without_secrets() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let store = S3Store::open(options(&format!("http://{address}"), PLAIN, ADMIN)).await.unwrap();
    let error = create(&store, "a", Bytes::from_static(b"x")).await.unwrap_err();
    let text = words(&error);
    assert!(error.is_temporary() && text.contains("refused"), "{text}");
    assert!(!text.contains(ADMIN.1), "{text}");
}

#[tokio::test]
async fn wrong_credentials_are_a_denial_without_secrets() {
    let server = server().await;
    for who in [("nobody", "guess-123456"), (ADMIN.0, "guess-123456")] {
        let store = open_as(&server, PLAIN, who).await;
        for error in [
            create(&store, "a", Bytes::from_static(b"x")).await.unwrap_err(),
            store.head(&key("a")).await.unwrap_err(),
            store.list(&Prefix::root()).try_collect::<Vec<_>>().await.unwrap_err(),
        ] {
            let text = words(&error);
            assert!(matches!(error, StoreError::Denied { .. }), "{text}");
            assert!(!text.contains("guess") && !text.contains("Signature="), "{text}");
        }
    }
}

#[tokio::test]
async fn a_machine_with_a_wrong_clock_is_told_so() {
    let server = server().await;
    let store = open(&server, Checksums::default()).await;
    server.faults().set(Faults::default().clock_skew_seconds(365 * 86_400));
    for _ in 0..2 {
        let error = create(&store, "a", Bytes::from_static(b"x")).await.unwrap_err();
        let text = words(&error);
        assert!(matches!(error, StoreError::Clock { .. }), "{text}");
        let now = Timestamp::now();
        let next = now.saturating_add(SignedDuration::from_hours(365 * 24)).unwrap();
        let days = [now, next].map(|time| time.strftime("%Y-%m-%dT%H").to_string());
        assert!(text.contains("the clock of this machine is wrong: it says"), "{text}");
        assert!(days.iter().all(|day| text.contains(day)), "{text} {days:?}");
    }
}

#[tokio::test]
async fn objects_carry_class_encryption_tags_and_lock() {
    let server = server().await;
    let until = Timestamp::now().saturating_add(SignedDuration::from_hours(1)).unwrap();
    for checksums in [Checksums::Crc64Nvme, Checksums::Compatible] {
        let options = options(&server.endpoint(), LOCKED, ADMIN)
            .checksums(checksums)
            .storage_class("STANDARD_IA")
            .encryption(Encryption::Aes256)
            .tag("team", "a & b")
            .lock(LockMode::Compliance);
        let store = S3Store::open(options).await.unwrap();
        let attributes = Attributes::default().retain_until(Some(until)).content_type("application/json");
        let one = key(&format!("one/{checksums:?}"));
        store.put(&one, Bytes::from_static(b"{}"), PutMode::Create, &attributes).await.unwrap();
        let parts = key(&format!("parts/{checksums:?}"));
        let upload = store.start_upload(&parts, &attributes).await.unwrap();
        let part = PartNumber { number: 1, offset: 0 };
        let part = store.put_part(&parts, &upload, part, Bytes::from_static(b"{}")).await.unwrap();
        store.complete_upload(&parts, &upload, &[part]).await.unwrap();

        let client = sdk(&server.endpoint());
        for name in [one, parts] {
            let name = format!("some/folder/{name}");
            let head = client.head_object().bucket(LOCKED).key(&name).send().await.unwrap();
            assert_eq!(head.content_type(), Some("application/json"));
            assert_eq!(head.storage_class().map(|class| class.as_str()), Some("STANDARD_IA"));
            assert_eq!(head.server_side_encryption().map(|sse| sse.as_str()), Some("AES256"));
            assert_eq!(head.object_lock_mode().map(|mode| mode.as_str()), Some("COMPLIANCE"));
            let locked = head.object_lock_retain_until_date().unwrap().secs();
            assert!((0..=1).contains(&(locked - until.as_second())), "{locked} {until}");
            let tags = client.get_object_tagging().bucket(LOCKED).key(&name).send().await.unwrap();
            let tags: Vec<_> = tags.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
            assert_eq!(tags, [("team", "a & b")]);
            let version = head.version_id().unwrap();
            let delete = client.delete_object().bucket(LOCKED).key(&name).version_id(version).send().await;
            assert!(delete.is_err(), "a locked version was deleted");
        }
    }
}

#[tokio::test]
async fn without_conditional_writes_a_create_asks_first_and_says_so() {
    let server = server().await;
    let options = options(&server.endpoint(), PLAIN, ADMIN).conditional_writes(false);
    let store = S3Store::open(options).await.unwrap();
    assert!(!store.capabilities().create_only && !store.capabilities().compare_and_swap);
    let tag = create(&store, "a", Bytes::from_static(b"first")).await.unwrap().etag.unwrap();
    let again = create(&store, "a", Bytes::from_static(b"second")).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })));
    let swap = PutMode::Replace(tag.clone());
    store.put(&key("a"), Bytes::from_static(b"2"), swap.clone(), &Attributes::default()).await.unwrap();
    let again = store.put(&key("a"), Bytes::from_static(b"3"), swap, &Attributes::default()).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })));
    assert_eq!(read(&store, "a").await.unwrap(), "2");
}

#[tokio::test]
async fn a_service_without_conditional_writes_is_named_with_the_remedy() {
    let server = server().await;
    let store = open(&server, Checksums::default()).await;
    let effect = Effect::Error { status: 501, code: "NotImplemented".into() };
    server.faults().set(Faults::default().rule(FaultRule::on("PutObject", effect)));
    let error = create(&store, "a", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }));
    assert!(words(&error).contains("check-storage"), "{}", words(&error));
}

#[tokio::test]
async fn signed_and_unsigned_bodies_are_both_taken() {
    let server = server().await;
    for (number, signing) in [PayloadSigning::Always, PayloadSigning::Never].into_iter().enumerate() {
        for checksums in MODES {
            let options =
                options(&server.endpoint(), PLAIN, ADMIN).checksums(checksums).payload_signing(signing);
            let store = S3Store::open(options).await.unwrap();
            let name = format!("{number}/{checksums:?}");
            create(&store, &name, noise(10_000)).await.unwrap();
            assert_eq!(read(&store, &name).await.unwrap(), noise(10_000));
        }
    }
}

fn sdk(endpoint: &str) -> aws_sdk_s3::Client {
    let credentials = aws_sdk_s3::config::Credentials::new(ADMIN.0, ADMIN.1, None, None, "test");
    let conf = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(aws_sdk_s3::config::Region::new("us-east-1"))
        .credentials_provider(credentials)
        .force_path_style(true)
        .build();
    aws_sdk_s3::Client::from_conf(conf)
}
