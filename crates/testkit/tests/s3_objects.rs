//! Objects through the real SDK: bytes, ranges, headers, listings, conditions, checksums.

#![allow(clippy::unwrap_used, missing_docs)]

mod s3_client;

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, Delete, ObjectIdentifier, ServerSideEncryption, StorageClass,
};
use backstay_testkit::s3::{S3Options, S3Server};
use s3_client::*;

#[tokio::test]
async fn bytes_come_back_from_memory_and_from_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let body = noise(9 * 1024 * 1024 + 17);
    for options in [S3Options::memory(), S3Options::directory(folder.path())] {
        let server = S3Server::start(with_roles(options).bucket(BUCKET)).await.unwrap();
        let client = admin(&server);
        for len in [0, 1, 65_536, 65_537, 1 << 20, body.len()] {
            put(&client, "some/key ü+&?", &body[..len]).await;
            assert!(read(&client, "some/key ü+&?").await == body[..len], "{len} bytes");
        }
        for (range, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=1048570-3145740", 1_048_570..3_145_741),
            ("bytes=9437000-", 9_437_000..body.len()),
            ("bytes=-5", body.len() - 5..body.len()),
            ("bytes=0-99999999", 0..body.len()),
        ] {
            let reply =
                client.get_object().bucket(BUCKET).key("some/key ü+&?").range(range).send().await.unwrap();
            let total = body.len();
            let expected_range = format!("bytes {}-{}/{total}", expected.start, expected.end - 1);
            assert_eq!(reply.content_range(), Some(expected_range.as_str()));
            assert_eq!(reply.checksum_crc32(), None, "a range has no checksum of the whole");
            assert!(reply.body.collect().await.unwrap().to_vec() == body[expected], "{range}");
        }
        let past =
            client.get_object().bucket(BUCKET).key("some/key ü+&?").range("bytes=99999999-").send().await;
        assert_refused!(past, 416, "InvalidRange");
        server.stop().await;
    }
}

#[tokio::test]
async fn missing_things_are_named() {
    let server = start().await;
    let client = admin(&server);
    assert_refused!(client.get_object().bucket(BUCKET).key("no").send().await, 404, "NoSuchKey");
    assert_refused!(client.head_object().bucket(BUCKET).key("no").send().await, 404, "NotFound");
    assert_refused!(client.get_object().bucket("nowhere").key("no").send().await, 404, "NoSuchBucket");
    assert_refused!(client.head_bucket().bucket("nowhere").send().await, 404, "NotFound");
    assert_refused!(client.list_objects_v2().bucket("nowhere").send().await, 404, "NoSuchBucket");
    let put = client.put_object().bucket("nowhere").key("k").body(ByteStream::from_static(b"x")).send().await;
    assert_refused!(put, 404, "NoSuchBucket");
    client.delete_object().bucket(BUCKET).key("no").send().await.unwrap();
}

#[tokio::test]
async fn headers_given_with_an_object_come_back() {
    let server = start().await;
    let client = admin(&server);
    client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(ByteStream::from_static(b"hello"))
        .content_type("text/plain")
        .content_encoding("gzip")
        .content_disposition("attachment")
        .content_language("de")
        .cache_control("no-store")
        .metadata("set-id", "2026")
        .metadata("kind", "wal")
        .storage_class(StorageClass::StandardIa)
        .server_side_encryption(ServerSideEncryption::AwsKms)
        .ssekms_key_id("arn:aws:kms:us-east-1:1:key/k")
        .tagging("team=a%20b&env=prod")
        .send()
        .await
        .unwrap();
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.content_length(), Some(5));
    assert_eq!(head.content_type(), Some("text/plain"));
    assert_eq!(head.content_encoding(), Some("gzip"));
    assert_eq!(head.content_disposition(), Some("attachment"));
    assert_eq!(head.content_language(), Some("de"));
    assert_eq!(head.cache_control(), Some("no-store"));
    assert_eq!(head.metadata().unwrap()["set-id"], "2026");
    assert_eq!(head.metadata().unwrap().len(), 2);
    assert_eq!(head.storage_class(), Some(&StorageClass::StandardIa));
    assert_eq!(head.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    assert_eq!(head.ssekms_key_id(), Some("arn:aws:kms:us-east-1:1:key/k"));
    assert_eq!(head.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    let tags = client.get_object_tagging().bucket(BUCKET).key("k").send().await.unwrap();
    let tags: Vec<_> = tags.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
    assert_eq!(tags, [("team", "a b"), ("env", "prod")]);

    let odd =
        client.put_object().bucket(BUCKET).key("k2").storage_class(StorageClass::from("COLD")).send().await;
    assert_refused!(odd, 400, "InvalidStorageClass");
    put(&client, "standard", "x").await;
    let head = client.head_object().bucket(BUCKET).key("standard").send().await.unwrap();
    assert_eq!((head.storage_class(), head.server_side_encryption()), (None, None));
}

#[tokio::test]
async fn archived_objects_cannot_be_read_directly() {
    let server = start().await;
    let client = admin(&server);
    let put = client.put_object().bucket(BUCKET).key("cold").body(ByteStream::from_static(b"x"));
    put.storage_class(StorageClass::DeepArchive).send().await.unwrap();
    assert_refused!(client.get_object().bucket(BUCKET).key("cold").send().await, 403, "InvalidObjectState");
}

#[tokio::test]
async fn listings_are_sorted_paged_and_grouped() {
    let server = start().await;
    let client = admin(&server);
    let mut keys: Vec<String> = (0..1_100).map(|n| format!("many/{n:05}")).collect();
    keys.extend(["a", "b/1", "b/2", "b/c/3", "b/\u{10ffff}x/4", "ü/umlaut", "z&<>"].map(str::to_owned));
    let uploads = keys.iter().map(|key| put(&client, key, "x"));
    futures::future::join_all(uploads).await;
    keys.sort();

    let mut pages = client.list_objects_v2().bucket(BUCKET).into_paginator().send();
    let (mut seen, mut sizes) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        sizes.push(page.contents().len());
        seen.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    assert_eq!(sizes, [1_000, 107]);
    assert_eq!(seen, keys);

    for page_size in [1, 2, 3, 1_000] {
        let request = client.list_objects_v2().bucket(BUCKET).delimiter("/").max_keys(page_size);
        let mut pages = request.into_paginator().send();
        let (mut objects, mut groups) = (Vec::new(), Vec::new());
        while let Some(page) = pages.next().await {
            let page = page.unwrap();
            assert!(page.contents().len() + page.common_prefixes().len() <= page_size as usize);
            objects.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
            groups.extend(page.common_prefixes().iter().map(|group| group.prefix().unwrap().to_owned()));
        }
        assert_eq!(objects, ["a", "z&<>"], "page size {page_size}");
        assert_eq!(groups, ["b/", "many/", "ü/"], "page size {page_size}");
    }
    let nested = client.list_objects_v2().bucket(BUCKET).prefix("b/").delimiter("/").send().await.unwrap();
    assert_eq!(nested.contents().iter().map(|o| o.key().unwrap()).collect::<Vec<_>>(), ["b/1", "b/2"]);
    assert_eq!(nested.common_prefixes().len(), 2);
    let later = client
        .list_objects_v2()
        .bucket(BUCKET)
        .prefix("many/")
        .start_after("many/01097")
        .send()
        .await
        .unwrap();
    assert_eq!(
        later.contents().iter().map(|o| o.key().unwrap()).collect::<Vec<_>>(),
        ["many/01098", "many/01099"]
    );

    let first = client.list_objects().bucket(BUCKET).delimiter("/").max_keys(2).send().await.unwrap();
    assert_eq!(first.next_marker(), Some("b/"));
    let second = client.list_objects().bucket(BUCKET).delimiter("/").marker("b/").send().await.unwrap();
    assert_eq!(second.common_prefixes().len(), 2);
    assert_eq!(second.contents().len(), 1);
}

#[tokio::test]
async fn several_objects_are_deleted_at_once() {
    let server = start().await;
    let client = admin(&server);
    for key in ["a", "b", "c"] {
        put(&client, key, "x").await;
    }
    let named = |key| ObjectIdentifier::builder().key(key).build().unwrap();
    let delete =
        Delete::builder().objects(named("a")).objects(named("b")).objects(named("nope")).build().unwrap();
    let reply = client.delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
    assert_eq!((reply.deleted().len(), reply.errors().len()), (3, 0));
    let left = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(left.contents().iter().map(|o| o.key().unwrap()).collect::<Vec<_>>(), ["c"]);
}

#[tokio::test]
async fn a_create_race_has_exactly_one_winner() {
    let server = start().await;
    let client = admin(&server);
    for round in 0..50 {
        let key = format!("race/{round}");
        let attempts = (0..16).map(|racer| {
            let (client, key) = (client.clone(), key.clone());
            tokio::spawn(async move {
                let body = ByteStream::from(vec![racer; 1_000]);
                let put = client.put_object().bucket(BUCKET).key(key).if_none_match("*").body(body);
                put.send().await.map(|_| racer)
            })
        });
        let outcomes = futures::future::join_all(attempts).await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().map(Result::unwrap).partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 15), "round {round}");
        for loser in lost {
            assert_refused!(loser, 412, "PreconditionFailed");
        }
        let winner = *won[0].as_ref().unwrap();
        assert_eq!(read(&client, &key).await, vec![winner; 1_000]);
    }
    assert!(server.access_log().iter().all(|record| !record.overwrote));
}

#[tokio::test]
async fn a_swap_race_has_exactly_one_winner() {
    let server = start().await;
    let client = admin(&server);
    put(&client, "lease", "0").await;
    for round in 0..20 {
        let head = client.head_object().bucket(BUCKET).key("lease").send().await.unwrap();
        let etag = head.e_tag().unwrap().to_owned();
        let attempts = (0..8).map(|racer| {
            let body = ByteStream::from(format!("{round}-{racer}").into_bytes());
            client.put_object().bucket(BUCKET).key("lease").if_match(&etag).body(body).send()
        });
        let outcomes = futures::future::join_all(attempts).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    }
}

#[tokio::test]
async fn conditions_are_honoured() {
    let server = start().await;
    let client = admin(&server);
    let write = || client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"new"));
    assert_refused!(write().if_match("\"abc\"").send().await, 404, "NoSuchKey");
    let etag = write().if_none_match("*").send().await.unwrap().e_tag().unwrap().to_owned();
    assert_refused!(write().if_none_match("*").send().await, 412, "PreconditionFailed");
    assert_refused!(write().if_match("\"abc\"").send().await, 412, "PreconditionFailed");
    write().if_match(&etag).send().await.unwrap();

    let get = || client.get_object().bucket(BUCKET).key("k");
    assert_refused!(get().if_match("\"abc\"").send().await, 412, "PreconditionFailed");
    get().if_match(&etag).send().await.unwrap();
    assert_eq!(refusal(get().if_none_match(&etag).send().await).0, 304);
    let delete = client.delete_object().bucket(BUCKET).key("k").if_match("\"abc\"").send().await;
    assert_refused!(delete, 412, "PreconditionFailed");
    assert_eq!(read(&client, "k").await, b"new");
}

fn algorithms() -> [ChecksumAlgorithm; 5] {
    use ChecksumAlgorithm::{Crc32, Crc32C, Crc64Nvme, Sha1, Sha256};
    [Crc32, Crc32C, Crc64Nvme, Sha1, Sha256]
}

async fn stored_checksum(client: &aws_sdk_s3::Client, key: &str) -> (ChecksumAlgorithm, String) {
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key(key)
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    let values = [
        head.checksum_crc32(),
        head.checksum_crc32_c(),
        head.checksum_crc64_nvme(),
        head.checksum_sha1(),
        head.checksum_sha256(),
    ];
    let found: BTreeSet<_> = algorithms()
        .iter()
        .zip(values)
        .filter(|(_, value)| value.is_some())
        .map(|(a, v)| (a.as_str().to_owned(), v.unwrap().to_owned()))
        .collect();
    assert_eq!(found.len(), 1, "exactly one checksum");
    let (algorithm, value) = found.into_iter().next().unwrap();
    (ChecksumAlgorithm::from(algorithm.as_str()), value)
}

#[tokio::test]
async fn checksums_are_kept_whether_they_come_as_header_or_trailer() {
    let server = start().await;
    let client = admin(&server);
    let body = noise(300_000);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&body).unwrap();
    for algorithm in algorithms() {
        let put = client.put_object().bucket(BUCKET).key("header").checksum_algorithm(algorithm.clone());
        put.body(ByteStream::from(body.clone())).send().await.unwrap();
        let streamed = ByteStream::from_path(file.path()).await.unwrap();
        let put = client.put_object().bucket(BUCKET).key("trailer").checksum_algorithm(algorithm.clone());
        put.body(streamed).send().await.unwrap();
        let (header, trailer) =
            (stored_checksum(&client, "header").await, stored_checksum(&client, "trailer").await);
        assert_eq!(header.0, algorithm);
        assert_eq!(header, trailer);
        let get = client.get_object().bucket(BUCKET).key("trailer").checksum_mode(ChecksumMode::Enabled);
        let reply = get.send().await.unwrap();
        assert_eq!(reply.content_encoding(), None, "no trace of the transfer coding");
        assert!(reply.body.collect().await.unwrap().to_vec() == body);
    }
    // Nobody declared one: S3 computes its own.
    let undeclared = plain(&server);
    put(&undeclared, "none", "123456789").await;
    assert_eq!(
        stored_checksum(&client, "none").await,
        (ChecksumAlgorithm::Crc64Nvme, "rosUhgp5mIg=".to_owned())
    );
}

#[tokio::test]
async fn a_wrong_checksum_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for options in [S3Options::memory(), S3Options::directory(folder.path())] {
        let server = S3Server::start(with_roles(options).bucket(BUCKET)).await.unwrap();
        let (client, plain) = (admin(&server), plain(&server));
        put(&client, "k", "old").await;
        for size in [3, 300_000] {
            let write = || plain.put_object().bucket(BUCKET).key("k").body(ByteStream::from(noise(size)));
            assert_refused!(write().checksum_crc32("AAAAAA==").send().await, 400, "BadDigest");
            assert_refused!(write().checksum_crc32_c("AAAAAA==").send().await, 400, "BadDigest");
            assert_refused!(write().checksum_crc64_nvme("AAAAAAAAAAA=").send().await, 400, "BadDigest");
            assert_refused!(
                write().checksum_sha1("AAAAAAAAAAAAAAAAAAAAAAAAAAA=").send().await,
                400,
                "BadDigest"
            );
            let sha = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
            assert_refused!(write().checksum_sha256(sha).send().await, 400, "BadDigest");
            assert_refused!(write().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await, 400, "BadDigest");
            assert_refused!(write().content_md5("AAAA").send().await, 400, "InvalidDigest");
            assert_refused!(write().checksum_crc32("AAAA").send().await, 400, "InvalidRequest");
        }
        assert_eq!(read(&client, "k").await, b"old");
        let right = plain.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"hello"));
        right.content_md5("XUFAKrxLKna5cZ2REBfFkg==").send().await.unwrap();
        assert_eq!(read(&client, "k").await, b"hello");
        server.stop().await;
    }
    // Refused bodies leave no files behind.
    assert_eq!(std::fs::read_dir(folder.path().join("data")).unwrap().count(), 1);
}

#[tokio::test]
async fn presigned_requests_work_with_a_plain_http_client() {
    let server = start().await;
    let client = plain(&server);
    let validity = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("signed")
        .if_none_match("*")
        .presigned(validity)
        .await
        .unwrap();
    let mut request =
        format!("PUT {} HTTP/1.1\r\nconnection: close\r\ncontent-length: 5\r\n", path_of(put.uri()));
    request.push_str(&format!("host: {}\r\n", server.address()));
    for (name, value) in put.headers().filter(|(name, _)| *name != "host") {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\nhello");
    let reply = talk(&server, &request).await;
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    assert_eq!(read(&client, "signed").await, b"hello");
    let reply = talk(&server, &request).await;
    assert!(reply.starts_with("HTTP/1.1 412 "), "{reply}");
}

#[tokio::test]
async fn unsigned_and_wrongly_signed_requests_are_refused() {
    let server = start().await;
    let reply = talk(&server, "GET /bucket/k HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    let get = |keys| client(&server, keys).get_object().bucket(BUCKET).key("k").send();
    assert_refused!(get((ADMIN.0, "guessed")).await, 403, "SignatureDoesNotMatch");
    assert_refused!(get(("nobody", "guessed")).await, 403, "InvalidAccessKeyId");
    let denied = server.access_log().iter().filter(|record| record.is_denied()).count();
    assert_eq!(denied, 3);
}

#[tokio::test]
async fn a_body_cut_short_leaves_nothing() {
    let server = start().await;
    let client = plain(&server);
    let validity = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let put = client.put_object().bucket(BUCKET).key("short").presigned(validity).await.unwrap();
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: {}\r\ncontent-length: 500000\r\n\r\n",
        path_of(put.uri()),
        server.address()
    );
    use tokio::io::AsyncWriteExt;
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&noise(400_000)).await.unwrap();
    drop(stream);
    let logged = async {
        while server.access_log().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), logged).await.unwrap();
    assert_refused!(client.get_object().bucket(BUCKET).key("short").send().await, 404, "NoSuchKey");
}

fn path_of(url: &str) -> &str {
    let after_scheme = url.split_once("//").unwrap().1;
    &after_scheme[after_scheme.find('/').unwrap()..]
}

async fn talk(server: &S3Server, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    String::from_utf8_lossy(&reply).into_owned()
}
