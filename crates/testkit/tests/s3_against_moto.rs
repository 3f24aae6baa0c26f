//! Compares our answers with those of an independent server, operation by operation.
//!
//! Only what that server gets right is compared. It accepts wrong checksums and wrong secrets, shortens retention, gives
//! multipart objects a CRC64NVME of four bytes and composite checksums without the number of parts, says nothing when a
//! delete marker is deleted, does not know that a delete marker cannot be read by its id (405), and answers `ListParts`,
//! `GetBucketVersioning` and `GetObjectRetention` in a form the SDK cannot read.

#![allow(clippy::unwrap_used, missing_docs)]

mod s3_client;

use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    BucketVersioningStatus, ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, Delete,
    ObjectIdentifier, ObjectLockMode, ServerSideEncryption, StorageClass, VersioningConfiguration,
};
use backstay_testkit::s3::{S3Options, S3Server, moto_server};
use s3_client::*;

/// Kills the server it holds.
struct Moto {
    child: Child,
    endpoint: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    /// Starts it on a free port, which it reports on stderr.
    fn start(program: &Path) -> Self {
        let mut child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let endpoint = lines.by_ref().find_map(|line| {
            let at = line.find("http://127.0.0.1:")?;
            Some(line[at..].split_whitespace().next()?.trim_end_matches('/').to_owned())
        });
        // It logs every request; an unread pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, endpoint: endpoint.expect("moto_server names its port") }
    }
}

/// What a server answered, in a form that can be compared.
#[derive(Default)]
struct Transcript(Vec<String>);

impl Transcript {
    fn note(&mut self, what: &str, answer: impl Debug) {
        self.0.push(format!("{what}: {answer:?}"));
    }

    /// Notes the picked facts of a reply, or status and code of the refusal.
    fn call<T, E, F: Debug>(
        &mut self,
        what: &str,
        result: Result<T, SdkError<E>>,
        facts: impl FnOnce(&T) -> F,
    ) where
        T: Debug,
        E: ProvideErrorMetadata + Debug,
    {
        match result {
            Ok(reply) => self.note(what, facts(&reply)),
            refused => self.note(what, refusal(refused)),
        }
    }
}

#[tokio::test]
async fn an_independent_server_answers_the_same() {
    let program = moto_server().unwrap_or_else(|missing| panic!("{missing}"));
    let moto = tokio::task::spawn_blocking(move || Moto::start(&program)).await.unwrap();
    let ours = S3Server::start(with_roles(S3Options::memory())).await.unwrap();
    let theirs = Client::from_conf(config(&moto.endpoint, ADMIN).build());
    let (expected, actual) = (script(&theirs).await, script(&admin(&ours)).await);
    let different: Vec<_> =
        expected.0.iter().zip(&actual.0).filter(|(theirs, ours)| theirs != ours).collect();
    assert!(different.is_empty(), "answers differ (theirs, ours):\n{different:#?}");
    assert_eq!(expected.0.len(), actual.0.len());
    assert!(expected.0.len() > 50, "only {} answers were compared", expected.0.len());
}

async fn script(client: &Client) -> Transcript {
    let mut transcript = Transcript::default();
    buckets(client, &mut transcript).await;
    objects(client, &mut transcript).await;
    checksums(client, &mut transcript).await;
    conditions(client, &mut transcript).await;
    listings(client, &mut transcript).await;
    multipart(client, &mut transcript).await;
    versions(client, &mut transcript).await;
    locks(client, &mut transcript).await;
    transcript
}

async fn buckets(client: &Client, transcript: &mut Transcript) {
    transcript.call("head no bucket", client.head_bucket().bucket(BUCKET).send().await, |_| ());
    transcript.call("create bucket", client.create_bucket().bucket(BUCKET).send().await, |_| ());
    transcript.call("head bucket", client.head_bucket().bucket(BUCKET).send().await, |_| ());
    transcript.call("list buckets", client.list_buckets().send().await, |reply| {
        reply.buckets().iter().map(|bucket| bucket.name().map(str::to_owned)).collect::<Vec<_>>()
    });
    let location = client.get_bucket_location().bucket(BUCKET).send().await;
    transcript.call("location", location, |_| ());
    let none = client.get_object_lock_configuration().bucket(BUCKET).send().await;
    transcript.call("no lock configuration", none, |_| ());
}

async fn objects(client: &Client, transcript: &mut Transcript) {
    let put = client.put_object().bucket(BUCKET).key("dir/k ü+").body(ByteStream::from(noise(100_000)));
    let put = put
        .content_type("text/plain")
        .cache_control("no-store")
        .content_encoding("gzip")
        .metadata("set", "1")
        .storage_class(StorageClass::StandardIa)
        .server_side_encryption(ServerSideEncryption::Aes256)
        .tagging("a=1&b=2%203")
        .send()
        .await;
    transcript.call("put", put, |reply| {
        (reply.e_tag().map(str::to_owned), reply.server_side_encryption().cloned())
    });
    let head = client.head_object().bucket(BUCKET).key("dir/k ü+").send().await;
    transcript.call("head", head, |reply| {
        (
            (
                reply.content_length(),
                reply.e_tag().map(str::to_owned),
                reply.content_type().map(str::to_owned),
            ),
            (reply.cache_control().map(str::to_owned), reply.content_encoding().map(str::to_owned)),
            (
                reply.metadata().cloned(),
                reply.storage_class().cloned(),
                reply.server_side_encryption().cloned(),
            ),
        )
    });
    let tags = client.get_object_tagging().bucket(BUCKET).key("dir/k ü+").send().await;
    transcript.call("tags", tags, |reply| reply.tag_set().to_vec());
    for range in ["bytes=0-9", "bytes=99990-", "bytes=-7", "bytes=5-999999", "bytes=100000-"] {
        match client.get_object().bucket(BUCKET).key("dir/k ü+").range(range).send().await {
            Ok(reply) => {
                let facts = (reply.content_range().map(str::to_owned), reply.content_length());
                transcript.note(range, (facts, reply.body.collect().await.unwrap().to_vec()));
            }
            refused => transcript.note(range, refusal(refused)),
        }
    }
    transcript.call("get missing", client.get_object().bucket(BUCKET).key("no").send().await, |_| ());
    transcript.call("head missing", client.head_object().bucket(BUCKET).key("no").send().await, |_| ());
    transcript.call("get nowhere", client.get_object().bucket("nowhere-1").key("no").send().await, |_| ());
    transcript.call("delete missing", client.delete_object().bucket(BUCKET).key("no").send().await, |_| ());
    let named = |key| ObjectIdentifier::builder().key(key).build().unwrap();
    let delete = Delete::builder().objects(named("dir/k ü+")).build().unwrap();
    let deleted = client.delete_objects().bucket(BUCKET).delete(delete).send().await;
    transcript.call("delete many", deleted, |reply| {
        (
            reply.deleted().iter().map(|one| one.key().map(str::to_owned)).collect::<Vec<_>>(),
            reply.errors().len(),
        )
    });
}

async fn checksums(client: &Client, transcript: &mut Transcript) {
    use ChecksumAlgorithm::{Crc32, Crc32C, Crc64Nvme, Sha1, Sha256};
    for algorithm in [Crc32, Crc32C, Crc64Nvme, Sha1, Sha256] {
        let put = client.put_object().bucket(BUCKET).key("sum").checksum_algorithm(algorithm.clone());
        put.body(ByteStream::from(noise(1_000))).send().await.unwrap();
        let head =
            client.head_object().bucket(BUCKET).key("sum").checksum_mode(ChecksumMode::Enabled).send().await;
        transcript.call(algorithm.as_str(), head, |reply| {
            [
                reply.checksum_crc32().map(str::to_owned),
                reply.checksum_crc32_c().map(str::to_owned),
                reply.checksum_crc64_nvme().map(str::to_owned),
                reply.checksum_sha1().map(str::to_owned),
                reply.checksum_sha256().map(str::to_owned),
            ]
        });
    }
    client.delete_object().bucket(BUCKET).key("sum").send().await.unwrap();
}

async fn conditions(client: &Client, transcript: &mut Transcript) {
    let write = || client.put_object().bucket(BUCKET).key("cond").body(ByteStream::from_static(b"x"));
    let etag = |reply: &aws_sdk_s3::operation::put_object::PutObjectOutput| reply.e_tag().map(str::to_owned);
    transcript.call("create", write().if_none_match("*").send().await, etag);
    transcript.call("create again", write().if_none_match("*").send().await, etag);
    transcript.call("swap wrong", write().if_match("\"abc\"").send().await, etag);
    let right = "\"9dd4e461268c8034f5c8564e155c67a6\"";
    transcript.call("swap right", write().if_match(right).send().await, etag);
    let read = || client.get_object().bucket(BUCKET).key("cond");
    transcript.call("read wrong", read().if_match("\"abc\"").send().await, |_| ());
    transcript.call("read right", read().if_match(right).send().await, |_| ());
    let unchanged = read().if_none_match(right).send().await;
    transcript.note("read unchanged", refusal(unchanged).0);
    client.delete_object().bucket(BUCKET).key("cond").send().await.unwrap();
}

async fn listings(client: &Client, transcript: &mut Transcript) {
    let keys = ["a", "b/1", "b/2", "b/c/3", "c/4", "z&<>", "ü"];
    for key in keys {
        put(client, key, key).await;
    }
    for (prefix, delimiter, page_size) in [
        ("", "", 1_000),
        ("", "/", 1_000),
        ("b/", "/", 1_000),
        ("b/", "", 1_000),
        ("", "", 3),
        ("no", "/", 1_000),
    ] {
        let (mut token, mut pages) = (None, 0);
        loop {
            let list = client.list_objects_v2().bucket(BUCKET).prefix(prefix).max_keys(page_size);
            let list = list.set_delimiter((!delimiter.is_empty()).then(|| delimiter.to_owned()));
            let page = list.set_continuation_token(token.take()).send().await.unwrap();
            let objects: Vec<_> = page
                .contents()
                .iter()
                .map(|o| (o.key().map(str::to_owned), o.size(), o.e_tag().map(str::to_owned)))
                .collect();
            let groups: Vec<_> =
                page.common_prefixes().iter().map(|group| group.prefix().map(str::to_owned)).collect();
            transcript
                .note(&format!("list {prefix} {delimiter} {page_size}"), (objects, groups, page.key_count()));
            token = page.next_continuation_token().map(str::to_owned);
            pages += 1;
            if token.is_none() {
                break;
            }
        }
        transcript.note("pages", pages);
    }
    let later = client.list_objects_v2().bucket(BUCKET).start_after("b/2").send().await;
    transcript.call("start after", later, |reply| {
        reply.contents().iter().map(|object| object.key().map(str::to_owned)).collect::<Vec<_>>()
    });
    for key in keys {
        client.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
    }
}

async fn multipart(client: &Client, transcript: &mut Transcript) {
    let create = client.create_multipart_upload().bucket(BUCKET).key("big").metadata("a", "b");
    let create = create.checksum_algorithm(ChecksumAlgorithm::Sha256).storage_class(StorageClass::StandardIa);
    let id = create.send().await.unwrap().upload_id().unwrap().to_owned();
    let listed = client.list_multipart_uploads().bucket(BUCKET).send().await;
    transcript.call("list uploads", listed, |reply| {
        reply.uploads().iter().map(|upload| upload.key().map(str::to_owned)).collect::<Vec<_>>()
    });
    let mut parts = Vec::new();
    for (number, body) in [(1, noise(5 << 20)), (2, noise(10)), (3, noise(20))] {
        let part = client.upload_part().bucket(BUCKET).key("big").upload_id(&id).part_number(number);
        let part =
            part.checksum_algorithm(ChecksumAlgorithm::Sha256).body(ByteStream::from(body)).send().await;
        let part = part.unwrap();
        transcript.note("part", (part.e_tag(), part.checksum_sha256()));
        let done = CompletedPart::builder().part_number(number).e_tag(part.e_tag().unwrap());
        parts.push(done.set_checksum_sha256(part.checksum_sha256().map(str::to_owned)).build());
    }
    let complete = |parts: &[CompletedPart]| {
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build();
        client.complete_multipart_upload().bucket(BUCKET).key("big").upload_id(&id).multipart_upload(list)
    };
    transcript.call("too small", complete(&parts).send().await, |_| ());
    let bent = CompletedPart::builder().part_number(1).e_tag("\"abc\"").build();
    transcript.call("wrong etag", complete(&[bent]).send().await, |_| ());
    parts.remove(1);
    put(client, "big", "in the way").await;
    transcript.call("create only", complete(&parts).if_none_match("*").send().await, |_| ());
    client.delete_object().bucket(BUCKET).key("big").send().await.unwrap();
    transcript.call("complete", complete(&parts).if_none_match("*").send().await, |reply| {
        reply.e_tag().map(str::to_owned)
    });
    let head =
        client.head_object().bucket(BUCKET).key("big").checksum_mode(ChecksumMode::Enabled).send().await;
    transcript.call("head", head, |reply| {
        (
            (
                reply.content_length(),
                reply.e_tag().map(str::to_owned),
                reply.checksum_sha256().map(|sum| sum.trim_end_matches("-2").to_owned()),
            ),
            (reply.storage_class().cloned(), reply.metadata().cloned()),
        )
    });
    let end = client.get_object().bucket(BUCKET).key("big").range("bytes=-25").send().await.unwrap();
    transcript.note("end", end.body.collect().await.unwrap().to_vec());
    let other = client.create_multipart_upload().bucket(BUCKET).key("other").send().await.unwrap();
    let abort =
        client.abort_multipart_upload().bucket(BUCKET).key("other").upload_id(other.upload_id().unwrap());
    transcript.call("abort", abort.clone().send().await, |_| ());
    transcript.call("abort again", abort.send().await, |_| ());
    let left = client.list_multipart_uploads().bucket(BUCKET).send().await;
    transcript.call("uploads left", left, |reply| reply.uploads().len());
}

async fn versions(client: &Client, transcript: &mut Transcript) {
    let enable = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    client.put_bucket_versioning().bucket(BUCKET).versioning_configuration(enable).send().await.unwrap();
    let mut ids = Vec::new();
    for text in ["one", "two"] {
        let put =
            client.put_object().bucket(BUCKET).key("v").body(ByteStream::from(text.as_bytes().to_vec()));
        ids.push(put.send().await.unwrap().version_id().unwrap().to_owned());
    }
    let hidden = client.delete_object().bucket(BUCKET).key("v").send().await.unwrap();
    transcript.note("marker", hidden.delete_marker());
    transcript.call("hidden", client.get_object().bucket(BUCKET).key("v").send().await, |_| ());
    let old = client.get_object().bucket(BUCKET).key("v").version_id(&ids[0]).send().await.unwrap();
    transcript.note("old", old.body.collect().await.unwrap().to_vec());
    let listed = client.list_object_versions().bucket(BUCKET).prefix("v").send().await;
    transcript.call("versions", listed, |reply| {
        let versions = reply.versions().iter();
        let positions =
            versions.map(|version| ids.iter().position(|id| Some(id.as_str()) == version.version_id()));
        (positions.collect::<Vec<_>>(), reply.delete_markers().len())
    });
    for id in [hidden.version_id().unwrap(), &ids[1]] {
        let gone = client.delete_object().bucket(BUCKET).key("v").version_id(id).send().await;
        transcript.call("delete version", gone, |_| ());
    }
    transcript.note("back", read(client, "v").await);
}

async fn locks(client: &Client, transcript: &mut Transcript) {
    let create = client.create_bucket().bucket("locked").object_lock_enabled_for_bucket(true).send().await;
    transcript.call("create with lock", create, |_| ());
    let until = DateTime::from_secs(DateTime::from(SystemTime::now() + Duration::from_secs(3_600)).secs());
    for mode in [ObjectLockMode::Compliance, ObjectLockMode::Governance] {
        let put = client.put_object().bucket("locked").key("k").body(ByteStream::from_static(b"x"));
        let put =
            put.object_lock_mode(mode.clone()).object_lock_retain_until_date(until).send().await.unwrap();
        let id = put.version_id().unwrap();
        let head = client.head_object().bucket("locked").key("k").send().await;
        transcript.call("head", head, |reply| {
            let date = reply.object_lock_retain_until_date().map(|date| date.secs() == until.secs());
            (reply.object_lock_mode().cloned(), date)
        });
        let delete = client.delete_object().bucket("locked").key("k").version_id(id);
        transcript.call("delete locked", delete.clone().send().await, |_| ());
        transcript.call("bypass", delete.bypass_governance_retention(true).send().await, |_| ());
    }
}
