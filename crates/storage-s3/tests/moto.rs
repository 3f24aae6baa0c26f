//! Against an independent implementation of the AWS APIs, installed by `scripts/setup-moto.sh`.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::store::{Attributes, Multipart as _, ObjectStore as _, PartNumber, StoreError};
use backstay_storage_s3::doctor::{DoctorOptions, Probe, Role, Status, diagnose_s3};
use backstay_storage_s3::{Checksums, S3Store};
use backstay_testkit::s3::Moto;
use bytes::Bytes;
use common::*;
use futures::TryStreamExt as _;

async fn moto() -> Moto {
    tokio::task::spawn_blocking(Moto::start).await.unwrap().unwrap_or_else(|missing| panic!("{missing}"))
}

#[tokio::test]
async fn the_store_works_on_an_independent_server() {
    let moto = moto().await;
    let store = |checksums| S3Store::open(options(moto.endpoint(), PLAIN, ADMIN).checksums(checksums));
    let missing = store(Checksums::default()).await.unwrap();
    assert!(matches!(missing.head(&key("a")).await, Err(StoreError::Missing { .. })));
    bucket(moto.endpoint()).await;
    for checksums in [Checksums::Crc64Nvme, Checksums::Crc32, Checksums::Compatible] {
        let store = store(checksums).await.unwrap();
        let name = format!("{checksums:?}/a+b=c");
        assert!(store.head(&key(&name)).await.unwrap_err().is_absent());
        create(&store, &name, noise(10_000)).await.unwrap();
        assert!(matches!(create(&store, &name, noise(1)).await, Err(StoreError::AlreadyExists { .. })));
        assert_eq!(read(&store, &name).await.unwrap(), noise(10_000));
        let tail = store.get(&key(&name), Some(9_000..20_000)).await.unwrap();
        assert_eq!(tail.range, 9_000..10_000);
        assert_eq!(store.get(&key(&name), Some(10_000..10_001)).await.unwrap().range, 10_000..10_000);

        let big = key(&format!("{checksums:?}/big"));
        let upload = store.start_upload(&big, &Attributes::default()).await.unwrap();
        let mut tags = Vec::new();
        for (number, body) in [(1, noise(5 << 20)), (2, Bytes::from_static(b"end"))] {
            let part = PartNumber { number, offset: u64::from(number - 1) * (5 << 20) };
            tags.push(store.put_part(&big, &upload, part, body).await.unwrap());
        }
        assert_eq!(store.list_uploads(&Default::default()).await.unwrap().len(), 1);
        store.complete_upload(&big, &upload, &tags).await.unwrap();
        // As a range, because this server computes a wrong CRC-64 of an object in parts.
        let whole = store.get(&big, Some(0..6 << 20)).await.unwrap();
        let bytes = whole.body.try_collect::<Vec<_>>().await.unwrap().concat();
        assert_eq!(bytes.len(), (5 << 20) + 3);
        assert!(bytes.ends_with(b"end"));
        assert_eq!(listed(&store, &format!("{checksums:?}")).await.len(), 2);
        store.delete(&big).await.unwrap();
        assert!(store.head(&big).await.unwrap_err().is_absent());
    }
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_with_this_server() {
    let moto = moto().await;
    bucket(moto.endpoint()).await;
    for (nonce, checksums, expected) in [
        (1, Checksums::Crc64Nvme, &[Probe::Multipart, Probe::WrongChecksum][..]),
        (2, Checksums::Compatible, &[Probe::WrongChecksum]),
    ] {
        let options = options(moto.endpoint(), PLAIN, ADMIN).checksums(checksums);
        let store = S3Store::open(options).await.unwrap();
        let doctor = DoctorOptions::new(Arc::new(SystemClock), nonce).role(Role::Maintainer);
        let diagnosis = diagnose_s3(&store, doctor.limit(Duration::from_secs(60))).await;
        let found: Vec<_> =
            diagnosis.findings.iter().filter(|f| f.status == Status::Unsafe).map(|f| f.probe).collect();
        assert_eq!(found, expected, "{diagnosis:#?}");
        assert!(diagnosis.findings.iter().all(|f| f.status != Status::Unknown), "{diagnosis:#?}");
        assert_eq!(diagnosis.leftovers, []);
    }
}

async fn bucket(endpoint: &str) {
    let credentials = aws_sdk_s3::config::Credentials::new(ADMIN.0, ADMIN.1, None, None, "test");
    let conf = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(aws_sdk_s3::config::Region::new("us-east-1"))
        .credentials_provider(credentials)
        .force_path_style(true)
        .build();
    aws_sdk_s3::Client::from_conf(conf).create_bucket().bucket(PLAIN).send().await.unwrap();
}

#[cfg(feature = "secrets-manager")]
mod secrets {
    use aws_sdk_secretsmanager::Client;
    use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials as Keys, Region};
    use aws_sdk_secretsmanager::primitives::Blob;
    use backstay_backup_core::secret::{Secret, SecretError, SecretRef, SecretSource as _};
    use backstay_storage_s3::Credentials;
    use backstay_storage_s3::secrets_manager::{SecretsManagerOptions, SecretsManagerSource};

    use super::*;

    fn reference(id: &str, key: Option<&str>) -> SecretRef {
        let (secrets_manager, key) = (id.to_owned(), key.map(str::to_owned));
        SecretRef::SecretsManager { secrets_manager, key, version: None }
    }

    async fn source(endpoint: &str) -> SecretsManagerSource {
        let credentials = Credentials::Static {
            access_key_id: "id".into(),
            secret_access_key: Secret::new("key".into()),
            session_token: None,
        };
        let options = SecretsManagerOptions::default()
            .endpoint(endpoint)
            .region("us-east-1")
            .credentials(credentials)
            .limit(Duration::from_secs(20));
        SecretsManagerSource::open(options).await.unwrap()
    }

    async fn client(endpoint: &str) -> Client {
        let conf = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url(endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(Keys::new("id", "key", None, None, "test"))
            .build();
        Client::from_conf(conf)
    }

    #[tokio::test]
    async fn secrets_are_resolved_by_name_arn_and_field() {
        let moto = moto().await;
        let client = client(moto.endpoint()).await;
        let json = r#"{"username":"backup","password":"hush hush","port":5432}"#;
        let created = client.create_secret().name("db").secret_string(json).send().await.unwrap();
        client.create_secret().name("plain").secret_string("line\n").send().await.unwrap();
        client.create_secret().name("bytes").secret_binary(Blob::new("bytes")).send().await.unwrap();
        client.create_secret().name("noise").secret_binary(Blob::new([0xFF, 0xFE])).send().await.unwrap();
        let source = source(moto.endpoint()).await;
        let arn = created.arn().unwrap();
        for (id, key, value) in [
            ("db", Some("password"), "hush hush"),
            ("db", Some("port"), "5432"),
            (arn, Some("username"), "backup"),
            ("db", None, json),
            ("plain", None, "line\n"),
            ("bytes", None, "bytes"),
        ] {
            assert_eq!(source.resolve(&reference(id, key)).await.unwrap().expose(), value);
        }
        client.put_secret_value().secret_id("plain").secret_string("rotated").send().await.unwrap();
        assert_eq!(source.resolve(&reference("plain", None)).await.unwrap().expose(), "rotated");

        let missing = source.resolve(&reference("none", None)).await.unwrap_err();
        assert!(matches!(missing, SecretError::Absent { .. }), "{missing:?}");
        assert!(words(&missing).contains("secret none is not there: "), "{}", words(&missing));
        for (id, key) in [("db", "passwort"), ("plain", "x"), ("noise", "x")] {
            let problem = source.resolve(&reference(id, Some(key))).await.unwrap_err();
            assert!(matches!(problem, SecretError::Shape { .. }), "{problem:?}");
            assert!(!words(&problem).contains("hush"));
        }
        let other = source.resolve(&SecretRef::Env { env: "X".into() }).await;
        assert!(matches!(other, Err(SecretError::Unsupported { .. })));
    }

    #[tokio::test]
    async fn a_version_is_found_without_the_value_and_fetched_after_a_rotation() {
        let moto = moto().await;
        let client = client(moto.endpoint()).await;
        let created = client.create_secret().name("db").secret_string("old").send().await.unwrap();
        let source = source(moto.endpoint()).await;
        let old = source.version(&reference("db", None)).await.unwrap();
        assert_eq!(Some(old.as_str()), created.version_id());
        client.put_secret_value().secret_id("db").secret_string("new").send().await.unwrap();
        let new = source.version(&reference("db", None)).await.unwrap();
        assert_ne!(old, new);
        let pinned = |version: &str| SecretRef::SecretsManager {
            secrets_manager: "db".to_owned(),
            key: None,
            version: Some(version.to_owned()),
        };
        for (version, value) in [(&old, "old"), (&new, "new")] {
            assert_eq!(source.version(&pinned(version)).await.unwrap(), *version);
            assert_eq!(source.resolve(&pinned(version)).await.unwrap().expose(), value);
        }
        let gone = pinned("00000000-0000-0000-0000-000000000000");
        for error in [source.version(&gone).await.unwrap_err(), source.resolve(&gone).await.unwrap_err()] {
            assert!(matches!(error, SecretError::Absent { .. }), "{error:?}");
        }
        let missing = source.version(&reference("none", None)).await.unwrap_err();
        assert!(matches!(missing, SecretError::Absent { .. }), "{missing:?}");
        let other = source.version(&SecretRef::Env { env: "X".into() }).await;
        assert!(matches!(other, Err(SecretError::Unsupported { .. })));
    }

    #[tokio::test]
    async fn an_unreachable_service_is_temporary() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let source = source(&format!("http://{address}")).await;
        let error = source.resolve(&reference("db", None)).await.unwrap_err();
        assert!(matches!(error, SecretError::Service { temporary: true, .. }), "{error:?}");
    }
}
