//! Multipart uploads through the real SDK.

#![allow(clippy::unwrap_used, missing_docs)]

mod s3_client;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::upload_part::UploadPartOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, StorageClass,
};
use backstay_testkit::s3::{MIN_PART_SIZE, S3Options, S3Server};
use s3_client::*;

const KEY: &str = "big";
const SMALL: u64 = 1_000;

async fn start_small() -> S3Server {
    S3Server::start(with_roles(S3Options::memory().min_part_size(SMALL)).bucket(BUCKET)).await.unwrap()
}

async fn begin(client: &Client, algorithm: Option<ChecksumAlgorithm>, kind: Option<ChecksumType>) -> String {
    let create = client.create_multipart_upload().bucket(BUCKET).key(KEY).set_checksum_algorithm(algorithm);
    create.set_checksum_type(kind).send().await.unwrap().upload_id().unwrap().to_owned()
}

async fn upload(
    client: &Client,
    id: &str,
    number: i32,
    body: Vec<u8>,
    algorithm: Option<ChecksumAlgorithm>,
) -> CompletedPart {
    let part = client.upload_part().bucket(BUCKET).key(KEY).upload_id(id).part_number(number);
    let part = part.set_checksum_algorithm(algorithm).body(ByteStream::from(body)).send().await.unwrap();
    completed(number, &part)
}

fn completed(number: i32, part: &UploadPartOutput) -> CompletedPart {
    CompletedPart::builder()
        .part_number(number)
        .set_e_tag(part.e_tag().map(str::to_owned))
        .set_checksum_crc32(part.checksum_crc32().map(str::to_owned))
        .set_checksum_crc32_c(part.checksum_crc32_c().map(str::to_owned))
        .set_checksum_crc64_nvme(part.checksum_crc64_nvme().map(str::to_owned))
        .set_checksum_sha1(part.checksum_sha1().map(str::to_owned))
        .set_checksum_sha256(part.checksum_sha256().map(str::to_owned))
        .build()
}

fn list(parts: &[CompletedPart]) -> CompletedMultipartUpload {
    CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build()
}

#[tokio::test]
async fn parts_become_one_object_with_real_part_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let part_size = usize::try_from(MIN_PART_SIZE).unwrap();
    let body = noise(2 * part_size + 100);
    for options in [S3Options::memory(), S3Options::directory(folder.path())] {
        let server = S3Server::start(with_roles(options).bucket(BUCKET)).await.unwrap();
        let client = admin(&server);
        let create = client.create_multipart_upload().bucket(BUCKET).key(KEY).metadata("a", "b");
        let create =
            create.storage_class(StorageClass::StandardIa).checksum_algorithm(ChecksumAlgorithm::Crc32);
        let id = create.send().await.unwrap().upload_id().unwrap().to_owned();
        let mut parts = Vec::new();
        for (position, piece) in body.chunks(part_size).enumerate() {
            let number = i32::try_from(position).unwrap() + 1;
            parts.push(upload(&client, &id, number, piece.to_vec(), Some(ChecksumAlgorithm::Crc32)).await);
        }
        assert_refused!(client.get_object().bucket(BUCKET).key(KEY).send().await, 404, "NoSuchKey");
        let complete = client.complete_multipart_upload().bucket(BUCKET).key(KEY).upload_id(&id);
        let done = complete.multipart_upload(list(&parts)).send().await.unwrap();
        assert!(done.e_tag().unwrap().ends_with("-3\""));
        assert!(read(&client, KEY).await == body);
        let head = client
            .head_object()
            .bucket(BUCKET)
            .key(KEY)
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .unwrap();
        assert_eq!(head.checksum_type(), Some(&ChecksumType::Composite));
        assert!(head.checksum_crc32().unwrap().ends_with("-3"));
        assert_eq!(head.storage_class(), Some(&StorageClass::StandardIa));
        assert_eq!(head.metadata().unwrap()["a"], "b");
        let range = format!("bytes={}-{}", part_size - 3, part_size + 3);
        let across = client.get_object().bucket(BUCKET).key(KEY).range(range).send().await.unwrap();
        assert!(across.body.collect().await.unwrap().to_vec() == body[part_size - 3..part_size + 4]);
        let second = client.get_object().bucket(BUCKET).key(KEY).part_number(2).send().await.unwrap();
        assert_eq!(second.parts_count(), Some(3));
        assert!(second.body.collect().await.unwrap().to_vec() == body[part_size..2 * part_size]);
        server.stop().await;
    }
}

#[tokio::test]
async fn checksums_of_the_whole_follow_the_declared_kind() {
    use ChecksumAlgorithm::{Crc32, Crc32C, Crc64Nvme, Sha1, Sha256};
    let server = start_small().await;
    let client = admin(&server);
    let body = noise(2_500);
    let full = Some(ChecksumType::FullObject);
    let cases = [
        (Some(Crc32), None, ChecksumType::Composite),
        (Some(Crc32C), None, ChecksumType::Composite),
        (Some(Sha1), None, ChecksumType::Composite),
        (Some(Sha256), None, ChecksumType::Composite),
        (Some(Crc64Nvme), None, ChecksumType::FullObject),
        (Some(Crc32), full.clone(), ChecksumType::FullObject),
        (Some(Crc32C), full.clone(), ChecksumType::FullObject),
        (None, None, ChecksumType::FullObject),
    ];
    for (algorithm, kind, expected) in cases {
        let id = begin(&client, algorithm.clone(), kind).await;
        let mut parts = Vec::new();
        for (position, piece) in body.chunks(1_000).enumerate() {
            let number = i32::try_from(position).unwrap() + 1;
            parts.push(upload(&client, &id, number, piece.to_vec(), algorithm.clone()).await);
        }
        let complete = client.complete_multipart_upload().bucket(BUCKET).key(KEY).upload_id(&id);
        complete.multipart_upload(list(&parts)).send().await.unwrap();
        let head = client
            .head_object()
            .bucket(BUCKET)
            .key(KEY)
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .unwrap();
        assert_eq!(head.checksum_type(), Some(&expected), "{algorithm:?}");
        if expected == ChecksumType::FullObject {
            // The same bytes in one request have the same checksum.
            let algorithm = algorithm.unwrap_or(Crc64Nvme);
            let put = client.put_object().bucket(BUCKET).key("single").checksum_algorithm(algorithm);
            let put = put.body(ByteStream::from(body.clone())).send().await.unwrap();
            assert_eq!(head.checksum_crc32(), put.checksum_crc32());
            assert_eq!(head.checksum_crc32_c(), put.checksum_crc32_c());
            assert_eq!(head.checksum_crc64_nvme(), put.checksum_crc64_nvme());
        }
        assert!(read(&client, KEY).await == body);
    }
    let odd = client.create_multipart_upload().bucket(BUCKET).key(KEY).checksum_algorithm(Sha256);
    let odd = odd.checksum_type(ChecksumType::FullObject).send().await;
    assert_refused!(odd, 400, "InvalidRequest");
}

#[tokio::test]
async fn wrong_completions_are_refused_and_the_upload_stays() {
    let server = start_small().await;
    let client = admin(&server);
    let crc = Some(ChecksumAlgorithm::Crc32);
    let id = begin(&client, crc.clone(), Some(ChecksumType::FullObject)).await;
    let first = upload(&client, &id, 1, noise(1_000), crc.clone()).await;
    let small = upload(&client, &id, 2, noise(999), crc.clone()).await;
    let last = upload(&client, &id, 3, noise(10), crc.clone()).await;
    let complete = || client.complete_multipart_upload().bucket(BUCKET).key(KEY).upload_id(&id);
    let send = |parts: &[CompletedPart]| complete().multipart_upload(list(parts)).send();

    assert_refused!(send(&[first.clone(), small.clone(), last.clone()]).await, 400, "EntityTooSmall");
    assert_refused!(send(&[last.clone(), first.clone()]).await, 400, "InvalidPartOrder");
    assert_refused!(send(&[first.clone(), first.clone()]).await, 400, "InvalidPartOrder");
    let ghost = CompletedPart::builder().part_number(7).e_tag(first.e_tag().unwrap()).build();
    assert_refused!(send(&[first.clone(), ghost]).await, 400, "InvalidPart");
    let changed = CompletedPart::builder().part_number(1).e_tag(last.e_tag().unwrap()).build();
    assert_refused!(send(&[changed, last.clone()]).await, 400, "InvalidPart");
    let bent = CompletedPart::builder()
        .part_number(1)
        .e_tag(first.e_tag().unwrap())
        .checksum_crc32("AAAAAA==")
        .build();
    assert_refused!(send(&[bent, last.clone()]).await, 400, "InvalidPart");
    assert_refused!(complete().send().await, 400, "MalformedXML");
    let good = || list(&[first.clone(), last.clone()]);
    let size = complete().multipart_upload(good()).mpu_object_size(5).send().await;
    assert_refused!(size, 400, "InvalidRequest");
    let whole = complete().multipart_upload(good()).checksum_crc32("AAAAAA==").send().await;
    assert_refused!(whole, 400, "BadDigest");
    let kind = complete().multipart_upload(good()).checksum_type(ChecksumType::Composite).send().await;
    assert_refused!(kind, 400, "InvalidRequest");
    assert_refused!(client.get_object().bucket(BUCKET).key(KEY).send().await, 404, "NoSuchKey");

    let mut expected = noise(1_000);
    expected.extend(noise(10));
    complete().multipart_upload(good()).mpu_object_size(1_010).send().await.unwrap();
    assert!(read(&client, KEY).await == expected);
    assert_refused!(complete().multipart_upload(good()).send().await, 404, "NoSuchUpload");
}

#[tokio::test]
async fn parts_must_bring_the_declared_checksum() {
    let server = start_small().await;
    let (client, plain) = (admin(&server), plain(&server));
    let id = begin(&client, Some(ChecksumAlgorithm::Sha256), None).await;
    let part = |client: &Client| {
        let part = client.upload_part().bucket(BUCKET).key(KEY).upload_id(&id).part_number(1);
        part.body(ByteStream::from_static(b"x"))
    };
    assert_refused!(part(&plain).send().await, 400, "InvalidRequest");
    assert_refused!(
        part(&client).checksum_algorithm(ChecksumAlgorithm::Crc32).send().await,
        400,
        "InvalidRequest"
    );
    let wrong = part(&plain).checksum_sha256("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").send().await;
    assert_refused!(wrong, 400, "BadDigest");
    let right = part(&client).checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
    let bare = CompletedPart::builder().part_number(1).e_tag(right.e_tag().unwrap()).build();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key(KEY).upload_id(&id);
    assert_refused!(complete.multipart_upload(list(&[bare])).send().await, 400, "InvalidRequest");
    let odd = client.upload_part().bucket(BUCKET).key(KEY).upload_id(&id).part_number(10_001).send().await;
    assert_refused!(odd, 400, "InvalidArgument");
    let gone = client.upload_part().bucket(BUCKET).key(KEY).upload_id("nope").part_number(1).send().await;
    assert_refused!(gone, 404, "NoSuchUpload");
}

#[tokio::test]
async fn completion_can_be_create_only() {
    let server = start_small().await;
    let client = admin(&server);
    let mut attempts = Vec::new();
    for racer in 0..8 {
        let id = begin(&client, None, None).await;
        let part = upload(&client, &id, 1, vec![racer; 100], None).await;
        let complete = client.complete_multipart_upload().bucket(BUCKET).key(KEY).upload_id(id);
        attempts.push(complete.multipart_upload(list(&[part])).if_none_match("*").send());
    }
    let outcomes = futures::future::join_all(attempts).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for loser in lost {
        assert_refused!(loser, 412, "PreconditionFailed");
    }
    assert!(server.access_log().iter().all(|record| !record.overwrote));

    let id = begin(&client, None, None).await;
    let part = upload(&client, &id, 1, noise(100), None).await;
    let complete = || {
        let complete = client.complete_multipart_upload().bucket(BUCKET).key(KEY).upload_id(&id);
        complete.multipart_upload(list(std::slice::from_ref(&part)))
    };
    assert_refused!(complete().if_match("\"abc\"").send().await, 412, "PreconditionFailed");
    let etag = won[0].as_ref().unwrap().e_tag().unwrap().to_owned();
    complete().if_match(etag).send().await.unwrap();
    assert_eq!(server.access_log().iter().filter(|record| record.overwrote).count(), 1);
}

#[tokio::test]
async fn uploads_and_parts_are_listed_until_aborted() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        S3Server::start(with_roles(S3Options::directory(folder.path())).bucket(BUCKET)).await.unwrap();
    let client = admin(&server);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(begin(&client, Some(ChecksumAlgorithm::Crc32), None).await);
    }
    for number in [3, 1, 2] {
        upload(&client, &ids[0], number, noise(10), Some(ChecksumAlgorithm::Crc32)).await;
    }
    upload(&client, &ids[0], 2, noise(20), Some(ChecksumAlgorithm::Crc32)).await;
    let parts = client.list_parts().bucket(BUCKET).key(KEY).upload_id(&ids[0]);
    let all = parts.clone().send().await.unwrap();
    let seen: Vec<_> =
        all.parts().iter().map(|part| (part.part_number().unwrap(), part.size().unwrap())).collect();
    assert_eq!(seen, [(1, 10), (2, 20), (3, 10)]);
    assert!(all.parts().iter().all(|part| part.checksum_crc32().is_some() && part.e_tag().is_some()));
    let first = parts.clone().max_parts(2).send().await.unwrap();
    assert_eq!((first.is_truncated(), first.next_part_number_marker()), (Some(true), Some("2")));
    let rest = parts.part_number_marker("2").send().await.unwrap();
    assert_eq!((rest.parts().len(), rest.is_truncated()), (1, Some(false)));

    let listed = client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    let found: Vec<_> =
        listed.uploads().iter().map(|upload| upload.upload_id().unwrap().to_owned()).collect();
    assert_eq!(found, ids);
    let page = client.list_multipart_uploads().bucket(BUCKET).max_uploads(2).send().await.unwrap();
    let (key, id) = (page.next_key_marker().unwrap(), page.next_upload_id_marker().unwrap());
    let next = client
        .list_multipart_uploads()
        .bucket(BUCKET)
        .key_marker(key)
        .upload_id_marker(id)
        .send()
        .await
        .unwrap();
    assert_eq!(next.uploads().len(), 1);
    let other = client.list_multipart_uploads().bucket(BUCKET).prefix("other").send().await.unwrap();
    assert!(other.uploads().is_empty());

    for id in &ids {
        client.abort_multipart_upload().bucket(BUCKET).key(KEY).upload_id(id).send().await.unwrap();
    }
    let again = client.abort_multipart_upload().bucket(BUCKET).key(KEY).upload_id(&ids[0]).send().await;
    assert_refused!(again, 404, "NoSuchUpload");
    assert!(client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads().is_empty());
    assert_eq!(std::fs::read_dir(folder.path().join("data")).unwrap().count(), 0);
}
