//! Versions, delete markers, retention and legal holds, and what a reopened directory still knows.

#![allow(clippy::unwrap_used, missing_docs)]

mod s3_client;

use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled,
    ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention,
    ObjectLockRetentionMode, ObjectLockRule, VersioningConfiguration,
};
use backstay_testkit::s3::{BucketOptions, Error, Faults, S3Options, S3Server};
use s3_client::*;

fn in_hours(hours: u64) -> DateTime {
    DateTime::from(SystemTime::now() + Duration::from_secs(hours * 3_600))
}

async fn put_locked(client: &Client, key: &str, mode: ObjectLockMode, until: DateTime) -> String {
    let put = client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"precious"));
    let put = put.object_lock_mode(mode).object_lock_retain_until_date(until).send().await.unwrap();
    put.version_id().unwrap().to_owned()
}

fn retention(mode: ObjectLockRetentionMode, until: DateTime) -> ObjectLockRetention {
    ObjectLockRetention::builder().mode(mode).retain_until_date(until).build()
}

#[tokio::test]
async fn old_versions_stay_readable_and_deletes_leave_a_marker() {
    let server = start_with(BucketOptions::new(BUCKET).versioning()).await;
    let client = admin(&server);
    let mut ids = Vec::new();
    for text in ["one", "two"] {
        let put =
            client.put_object().bucket(BUCKET).key("k").body(ByteStream::from(text.as_bytes().to_vec()));
        ids.push(put.send().await.unwrap().version_id().unwrap().to_owned());
    }
    let deleted = client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(deleted.delete_marker(), Some(true));
    let marker = deleted.version_id().unwrap();
    assert_refused!(client.get_object().bucket(BUCKET).key("k").send().await, 404, "NoSuchKey");
    let by_id = client.get_object().bucket(BUCKET).key("k").version_id(marker).send().await;
    assert_refused!(by_id, 405, "MethodNotAllowed");
    let old = client.get_object().bucket(BUCKET).key("k").version_id(&ids[0]).send().await.unwrap();
    assert_eq!(old.version_id(), Some(ids[0].as_str()));
    assert_eq!(old.body.collect().await.unwrap().to_vec(), b"one");
    assert!(client.list_objects_v2().bucket(BUCKET).send().await.unwrap().contents().is_empty());

    let listed = client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    let versions: Vec<_> = listed.versions().iter().map(|version| version.version_id().unwrap()).collect();
    assert_eq!(versions, [ids[1].as_str(), ids[0].as_str()], "newest first");
    assert_eq!(listed.delete_markers().len(), 1);
    assert_eq!(listed.delete_markers()[0].is_latest(), Some(true));

    // A create is a create again once the key is deleted, and removing the marker brings the old object back.
    let create = client.put_object().bucket(BUCKET).key("k").if_none_match("*").send().await.unwrap();
    client
        .delete_object()
        .bucket(BUCKET)
        .key("k")
        .version_id(create.version_id().unwrap())
        .send()
        .await
        .unwrap();
    client.delete_object().bucket(BUCKET).key("k").version_id(marker).send().await.unwrap();
    assert_eq!(read(&client, "k").await, b"two");
    let unknown = client.get_object().bucket(BUCKET).key("k").version_id("nope").send().await;
    assert_refused!(unknown, 404, "NoSuchVersion");
}

#[tokio::test]
async fn version_listings_are_paged() {
    let server = start_with(BucketOptions::new(BUCKET).versioning()).await;
    let client = admin(&server);
    for round in 0..3 {
        for key in ["a", "dir/b", "dir/c", "d"] {
            put(&client, key, format!("{key}{round}")).await;
        }
    }
    for page_size in [1, 2, 5, 1_000] {
        let (mut seen, mut key, mut id) = (Vec::new(), None, None);
        loop {
            let page = client.list_object_versions().bucket(BUCKET).max_keys(page_size);
            let page = page.set_key_marker(key.take()).set_version_id_marker(id.take()).send().await.unwrap();
            seen.extend(page.versions().iter().map(|version| version.key().unwrap().to_owned()));
            if page.is_truncated() != Some(true) {
                break;
            }
            key = page.next_key_marker().map(str::to_owned);
            id = page.next_version_id_marker().map(str::to_owned);
        }
        let expected = ["a", "a", "a", "d", "d", "d", "dir/b", "dir/b", "dir/b", "dir/c", "dir/c", "dir/c"];
        assert_eq!(seen, expected, "page size {page_size}");
    }
    let grouped = client.list_object_versions().bucket(BUCKET).delimiter("/").send().await.unwrap();
    assert_eq!((grouped.versions().len(), grouped.common_prefixes().len()), (6, 1));
}

#[tokio::test]
async fn versioning_is_switched_on_and_suspended() {
    let server = start().await;
    let client = admin(&server);
    put(&client, "k", "before").await;
    let status =
        || async { client.get_bucket_versioning().bucket(BUCKET).send().await.unwrap().status().cloned() };
    assert_eq!(status().await, None);
    for state in [BucketVersioningStatus::Enabled, BucketVersioningStatus::Suspended] {
        let configuration = VersioningConfiguration::builder().status(state.clone()).build();
        let set = client.put_bucket_versioning().bucket(BUCKET).versioning_configuration(configuration);
        set.send().await.unwrap();
        assert_eq!(status().await, Some(state.clone()));
        put(&client, "k", state.as_str()).await;
    }
    put(&client, "k", "again").await;
    let listed = client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    let ids: Vec<_> = listed.versions().iter().map(|version| version.version_id().unwrap()).collect();
    assert_eq!(ids.len(), 2, "the null version was replaced: {ids:?}");
    assert_eq!(ids[0], "null");
}

#[tokio::test]
async fn compliance_cannot_be_deleted_or_shortened_by_anyone() {
    let server = start_with(BucketOptions::new(BUCKET).object_lock()).await;
    let client = admin(&server);
    let until = in_hours(2);
    let id = put_locked(&client, "k", ObjectLockMode::Compliance, until).await;
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Compliance));
    assert_eq!(head.object_lock_retain_until_date().unwrap().secs(), until.secs());
    let delete = || client.delete_object().bucket(BUCKET).key("k").version_id(&id);
    assert_refused!(delete().send().await, 403, "AccessDenied");
    assert_refused!(delete().bypass_governance_retention(true).send().await, 403, "AccessDenied");

    let change = |mode, until| {
        let change = client.put_object_retention().bucket(BUCKET).key("k").retention(retention(mode, until));
        change.bypass_governance_retention(true).send()
    };
    assert_refused!(change(ObjectLockRetentionMode::Compliance, in_hours(1)).await, 403, "AccessDenied");
    assert_refused!(change(ObjectLockRetentionMode::Governance, in_hours(3)).await, 403, "AccessDenied");
    change(ObjectLockRetentionMode::Compliance, in_hours(3)).await.unwrap();
    let kept = client.get_object_retention().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(kept.retention().unwrap().retain_until_date().unwrap().secs() > until.secs());

    // A delete without a version id only hides it.
    client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    let old = client.get_object().bucket(BUCKET).key("k").version_id(&id).send().await.unwrap();
    assert_eq!(old.body.collect().await.unwrap().to_vec(), b"precious");
    // Once the retention is over, the version can go.
    server.faults().set(Faults::default().clock_skew_seconds(4 * 3_600));
    assert_refused!(delete().send().await, 403, "RequestTimeTooSkewed");
}

#[tokio::test]
async fn governance_yields_to_an_administrator_who_says_so() {
    let server = start_with(BucketOptions::new(BUCKET).object_lock()).await;
    let client = admin(&server);
    let id = put_locked(&client, "k", ObjectLockMode::Governance, in_hours(2)).await;
    let delete = |client: &Client| client.delete_object().bucket(BUCKET).key("k").version_id(&id);
    assert_refused!(delete(&client).send().await, 403, "AccessDenied");
    let writer = s3_client::client(&server, WRITER);
    assert_refused!(delete(&writer).bypass_governance_retention(true).send().await, 403, "AccessDenied");
    let shorten = |client: &Client, bypass| {
        let retention = retention(ObjectLockRetentionMode::Governance, in_hours(1));
        let change = client.put_object_retention().bucket(BUCKET).key("k").retention(retention);
        change.bypass_governance_retention(bypass).send()
    };
    assert_refused!(shorten(&client, false).await, 403, "AccessDenied");
    assert_refused!(shorten(&writer, true).await, 403, "AccessDenied");
    shorten(&client, true).await.unwrap();
    delete(&client).bypass_governance_retention(true).send().await.unwrap();
}

#[tokio::test]
async fn a_legal_hold_holds_until_it_is_lifted() {
    let server = start_with(BucketOptions::new(BUCKET).object_lock()).await;
    let client = admin(&server);
    let put = client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"x"));
    let put = put.object_lock_legal_hold_status(ObjectLockLegalHoldStatus::On).send().await.unwrap();
    let id = put.version_id().unwrap().to_owned();
    let delete = || client.delete_object().bucket(BUCKET).key("k").version_id(&id);
    let hold = client.get_object_legal_hold().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(hold.legal_hold().unwrap().status(), Some(&ObjectLockLegalHoldStatus::On));
    assert_refused!(delete().bypass_governance_retention(true).send().await, 403, "AccessDenied");
    let lifted = ObjectLockLegalHold::builder().status(ObjectLockLegalHoldStatus::Off).build();
    client.put_object_legal_hold().bucket(BUCKET).key("k").legal_hold(lifted).send().await.unwrap();
    delete().send().await.unwrap();
}

#[tokio::test]
async fn locks_are_only_taken_where_they_can_be_kept() {
    let server = start_with(BucketOptions::new(BUCKET).object_lock()).await;
    let (client, plain) = (admin(&server), plain(&server));
    client.create_bucket().bucket("unlocked").send().await.unwrap();
    let write = |client: &Client, bucket: &str, until| {
        let put = client.put_object().bucket(bucket).key("k").body(ByteStream::from_static(b"x"));
        put.object_lock_mode(ObjectLockMode::Compliance).object_lock_retain_until_date(until).send()
    };
    assert_refused!(write(&client, "unlocked", in_hours(1)).await, 400, "InvalidRequest");
    assert_refused!(write(&plain, BUCKET, in_hours(1)).await, 400, "InvalidRequest");
    assert_refused!(write(&client, BUCKET, DateTime::from_secs(1_000)).await, 400, "InvalidArgument");
    let half =
        client.put_object().bucket(BUCKET).key("k").object_lock_mode(ObjectLockMode::Compliance).send().await;
    assert_refused!(half, 400, "InvalidArgument");
    let none = client.get_object_lock_configuration().bucket("unlocked").send().await;
    assert_refused!(none, 404, "ObjectLockConfigurationNotFoundError");
    let suspend = VersioningConfiguration::builder().status(BucketVersioningStatus::Suspended).build();
    let suspend =
        client.put_bucket_versioning().bucket(BUCKET).versioning_configuration(suspend).send().await;
    assert_refused!(suspend, 409, "InvalidBucketState");
    put(&client, "free", "x").await;
    let free = client.get_object_retention().bucket(BUCKET).key("free").send().await;
    assert_refused!(free, 404, "NoSuchObjectLockConfiguration");
}

#[tokio::test]
async fn the_rule_of_a_bucket_and_of_an_upload_reach_the_object() {
    let server = start_with(BucketOptions::new(BUCKET).object_lock()).await;
    let client = admin(&server);
    let create = client.create_multipart_upload().bucket(BUCKET).key("parts");
    let create =
        create.object_lock_mode(ObjectLockMode::Governance).object_lock_retain_until_date(in_hours(5));
    let id = create.send().await.unwrap().upload_id().unwrap().to_owned();
    let part = client.upload_part().bucket(BUCKET).key("parts").upload_id(&id).part_number(1);
    let part = part.body(ByteStream::from_static(b"x")).send().await.unwrap();
    let part =
        aws_sdk_s3::types::CompletedPart::builder().part_number(1).e_tag(part.e_tag().unwrap()).build();
    let parts = aws_sdk_s3::types::CompletedMultipartUpload::builder().parts(part).build();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key("parts").upload_id(id);
    complete.multipart_upload(parts).send().await.unwrap();
    let kept = client.get_object_retention().bucket(BUCKET).key("parts").send().await.unwrap();
    assert_eq!(kept.retention().unwrap().mode(), Some(&ObjectLockRetentionMode::Governance));

    let default = DefaultRetention::builder().mode(ObjectLockRetentionMode::Compliance).days(3).build();
    let rule = ObjectLockRule::builder().default_retention(default).build();
    let configuration =
        ObjectLockConfiguration::builder().object_lock_enabled(ObjectLockEnabled::Enabled).rule(rule).build();
    let set = client
        .put_object_lock_configuration()
        .bucket(BUCKET)
        .object_lock_configuration(configuration.clone());
    set.send().await.unwrap();
    let read_back = client.get_object_lock_configuration().bucket(BUCKET).send().await.unwrap();
    assert_eq!(read_back.object_lock_configuration(), Some(&configuration));
    put(&client, "default", "x").await;
    let kept = client.get_object_retention().bucket(BUCKET).key("default").send().await.unwrap();
    let days = (kept.retention().unwrap().retain_until_date().unwrap().secs() - in_hours(0).secs()) as f64
        / 86_400.0;
    assert!((2.9..3.1).contains(&days), "{days}");
}

#[tokio::test]
async fn a_reopened_directory_knows_everything() {
    let folder = tempfile::tempdir().unwrap();
    let options = || with_roles(S3Options::directory(folder.path()));
    let server = S3Server::start(options().bucket(BucketOptions::new(BUCKET).object_lock())).await.unwrap();
    let client = admin(&server);
    let id = put_locked(&client, "locked", ObjectLockMode::Compliance, in_hours(1)).await;
    let body = noise(3_000_000);
    put(&client, "k", "old").await;
    let write = client.put_object().bucket(BUCKET).key("k").body(ByteStream::from(body.clone()));
    let etag = write.metadata("a", "b").tagging("t=1").send().await.unwrap().e_tag().unwrap().to_owned();
    let upload = client.create_multipart_upload().bucket(BUCKET).key("parts").send().await.unwrap();
    let upload_id = upload.upload_id().unwrap().to_owned();
    let part = client.upload_part().bucket(BUCKET).key("parts").upload_id(&upload_id).part_number(1);
    let part = part.body(ByteStream::from_static(b"part")).send().await.unwrap();
    put(&client, "gone", "x").await;
    client.delete_object().bucket(BUCKET).key("gone").send().await.unwrap();
    let versions = |client: Client| async move {
        let listed = client.list_object_versions().bucket(BUCKET).send().await.unwrap();
        let describe = |v: &aws_sdk_s3::types::ObjectVersion| {
            (v.key().unwrap().to_owned(), v.version_id().unwrap().to_owned(), v.e_tag().unwrap().to_owned())
        };
        (listed.versions().iter().map(describe).collect::<Vec<_>>(), listed.delete_markers().len())
    };
    let before = versions(client).await;
    assert!(matches!(S3Server::start(options()).await, Err(Error::InUse { .. })));
    server.stop().await;
    // What an earlier server was killed over: half a line, half an object.
    let journal = folder.path().join("journal.jsonl");
    let mut text = std::fs::read(&journal).unwrap();
    text.extend_from_slice(b"[{\"VersionRemoved\":{\"buck");
    std::fs::write(&journal, text).unwrap();
    std::fs::write(folder.path().join("data/litter"), b"x").unwrap();

    let server = S3Server::start(options()).await.unwrap();
    let client = admin(&server);
    assert_eq!(versions(client.clone()).await, before);
    let get = client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!((get.e_tag(), get.tag_count()), (Some(etag.as_str()), Some(1)));
    assert_eq!(get.metadata().unwrap()["a"], "b");
    assert!(get.body.collect().await.unwrap().to_vec() == body);
    let locked = client.delete_object().bucket(BUCKET).key("locked").version_id(id).send().await;
    assert_refused!(locked, 403, "AccessDenied");
    let part =
        aws_sdk_s3::types::CompletedPart::builder().part_number(1).e_tag(part.e_tag().unwrap()).build();
    let parts = aws_sdk_s3::types::CompletedMultipartUpload::builder().parts(part).build();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key("parts").upload_id(upload_id);
    complete.multipart_upload(parts).send().await.unwrap();
    assert_eq!(read(&client, "parts").await, b"part");
    assert!(!folder.path().join("data/litter").exists());
    server.stop().await;

    std::fs::remove_file(
        std::fs::read_dir(folder.path().join("data")).unwrap().next().unwrap().unwrap().path(),
    )
    .unwrap();
    let damaged = S3Server::start(options()).await;
    assert!(matches!(damaged, Err(Error::MissingData { .. })), "{damaged:?}");
}
