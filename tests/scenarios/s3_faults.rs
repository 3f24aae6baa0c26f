//! A real S3 server that fails in its own ways, during backups and restores of a database of several parts.

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::key::Prefix;
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::secret::Secret;
use backstay_backup_core::store::SharedStore;
use backstay_postgres_ops::DumpOptions;
use backstay_storage_s3::{Credentials, S3Options, S3Store, Timeouts};
use backstay_testkit::s3::{Credential, Effect, FaultRule, Faults, S3Options as ServerOptions, S3Server};

use crate::scene::{Scene, catalog, open, retrying, stanza, words};

pub(crate) const BUCKET: &str = "backups";
pub(crate) const ADMIN: (&str, &str) = ("admin", "admin-secret-4Gd");
pub(crate) const WRITER: (&str, &str) = ("writer", "writer-secret-8Pw");

/// Rows whose dump is three parts of the smallest size that S3 takes.
pub(crate) const THREE_PARTS: u32 = 180_000;

pub(crate) async fn s3_server() -> S3Server {
    let options = ServerOptions::memory()
        .bucket(BUCKET)
        .credential(Credential::admin(ADMIN.0, ADMIN.1))
        .credential(Credential::writer(WRITER.0, WRITER.1));
    S3Server::start(options).await.unwrap()
}

/// The bucket, seen by one of the server's clients; short limits, so that a test of a timeout is short too.
pub(crate) async fn store(server: &S3Server, folder: &str, who: (&str, &str)) -> SharedStore {
    let options = S3Options::new(BUCKET)
        .region("us-east-1")
        .endpoint(server.endpoint())
        .prefix(Prefix::parse(folder).unwrap())
        .credentials(Credentials::Static {
            access_key_id: who.0.to_owned(),
            secret_access_key: Secret::new(who.1.to_owned()),
            session_token: None,
        })
        .timeouts(Timeouts::default().reply(Duration::from_secs(5)).idle(Duration::from_secs(5)));
    Arc::new(S3Store::open(options).await.unwrap())
}

/// Nothing is compressed, so that the dump is as large as it looks.
pub(crate) fn in_parts() -> DumpOptions {
    let mut options = DumpOptions::new(stanza());
    options.codec = Codec::None;
    options.data_path = options.data_path.part_size(5 << 20);
    options
}

fn once(operation: &str, nth: u64, effect: Effect) -> Faults {
    Faults::default().rule(FaultRule::on(operation, effect).nth(nth))
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_get_through_what_passes() {
    let scene = Scene::start(THREE_PARTS).await;
    let server = s3_server().await;
    let storm = |probability| {
        Faults::default().seed(5).rule(FaultRule::any(Effect::SlowDown).probability(probability))
    };
    let cases = [
        ("storm", storm(0.4)),
        ("first requests", Faults::default().rule(FaultRule::any(Effect::ServiceUnavailable).first(6))),
        ("put without reply", once("PutObject", 1, Effect::LoseReply)),
        ("manifest without reply", {
            Faults::default()
                .rule(FaultRule::on("PutObject", Effect::LoseReply).key_contains("manifest").nth(1))
        }),
        ("completion without reply", once("CompleteMultipartUpload", 1, Effect::LoseReply)),
        ("error inside 200", once("CompleteMultipartUpload", 1, Effect::ErrorInside200)),
        ("start without reply", once("CreateMultipartUpload", 1, Effect::LoseReply)),
        ("part without reply", once("UploadPart", 2, Effect::LoseReply)),
        ("part cut", once("UploadPart", 1, Effect::CutUpload(100_000))),
        ("request dropped", once("UploadPart", 1, Effect::DropRequest)),
        ("internal error", once("HeadObject", 1, Effect::InternalError)),
        ("late", once("UploadPart", 1, Effect::Delay(Duration::from_millis(300)))),
    ];
    for (number, (name, faults)) in cases.into_iter().enumerate() {
        let folder = format!("case-{number}");
        open(store(&server, &folder, ADMIN).await).await.unwrap();
        server.clear_access_log();
        server.faults().set(faults);
        let repositories = open(retrying(store(&server, &folder, WRITER).await)).await.unwrap();
        let report = scene.backup(&repositories, &in_parts()).await;
        let report = report.unwrap_or_else(|error| panic!("{name}: {}", words(&error)));
        server.faults().set(Faults::default());
        let log = server.access_log();
        let parts = log.iter().filter(|record| record.operation == "UploadPart").count();
        assert!(parts >= 3, "{name}: {parts} parts");
        assert!(log.iter().all(|record| !record.overwrote && !record.is_denied()), "{name}");
        let met = log.iter().any(|record| record.reply_lost || record.status >= 500);
        assert!(met || name == "late" || name == "error inside 200", "{name}: never happened");

        let plain = open(store(&server, &folder, ADMIN).await).await.unwrap();
        let found = catalog(&plain).await;
        assert_eq!(found.sets.len(), 1, "{name}");
        assert!(found.sets[0].is_good(), "{name}");
        let receipt = scene.restore(&plain, &report.receipt.manifest, "again").await.unwrap();
        assert!(receipt.comparison.is_equal(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_that_cannot_get_through_leave_no_set() {
    let scene = Scene::start(THREE_PARTS).await;
    let server = s3_server().await;
    let lasting = |operation: &str, effect| Faults::default().rule(FaultRule::on(operation, effect));
    let cases = [
        (
            "storm without end",
            Faults::default().rule(FaultRule::any(Effect::SlowDown).from_nth(8)),
            Class::Temporary,
        ),
        ("no part arrives", lasting("UploadPart", Effect::DropRequest), Class::Temporary),
        ("never completed", lasting("CompleteMultipartUpload", Effect::InternalError), Class::Temporary),
        ("no more permission", lasting("UploadPart", Effect::AccessDenied), Class::Usage),
        (
            "no manifest",
            Faults::default().rule(FaultRule::on("PutObject", Effect::SlowDown).key_contains("manifest")),
            Class::Temporary,
        ),
    ];
    for (number, (name, faults, class)) in cases.into_iter().enumerate() {
        let folder = format!("case-{number}");
        let repositories = open(retrying(store(&server, &folder, ADMIN).await)).await.unwrap();
        server.faults().set(faults);
        let outcome = scene.backup(&repositories, &in_parts()).await;
        server.faults().set(Faults::default());
        let error = outcome.err().unwrap_or_else(|| panic!("{name}: succeeded"));
        assert_eq!(error.class(), class, "{name}: {}", words(&error));
        let found = catalog(&repositories).await;
        assert!(found.sets.is_empty(), "{name}: {:?}", found.sets);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_survive_broken_and_lying_replies_or_refuse() {
    let scene = Scene::start(THREE_PARTS).await;
    let server = s3_server().await;
    let repositories = open(retrying(store(&server, "here", ADMIN).await)).await.unwrap();
    let report = scene.backup(&repositories, &in_parts()).await.unwrap();
    let manifest = &report.receipt.manifest;
    let pause = Duration::from_millis(400);
    let reads = |effect, nth| once("GetObject", nth, effect);
    let passing = [
        ("cut at once", reads(Effect::CutReply(0), 1)),
        ("cut early", reads(Effect::CutReply(1_000), 1)),
        (
            "cut late",
            Faults::default().rule(FaultRule::on("GetObject", Effect::CutReply(3_000_000)).first(3)),
        ),
        ("stalled", reads(Effect::StallReply { after: 70_000, pause }, 2)),
        ("dropped", reads(Effect::DropRequest, 2)),
        ("storm", Faults::default().seed(3).rule(FaultRule::any(Effect::SlowDown).probability(0.4))),
    ];
    for (name, faults) in passing {
        server.faults().set(faults);
        let receipt = scene.restore(&repositories, manifest, "again").await;
        let receipt = receipt.unwrap_or_else(|error| panic!("{name}: {}", words(&error)));
        assert!(receipt.comparison.is_equal(), "{name}");
    }
    let lasting = |effect| Faults::default().rule(FaultRule::on("GetObject", effect).key_contains("/sets/"));
    for (name, faults, class) in [
        ("unreachable", lasting(Effect::DropRequest), Class::Temporary),
        ("wrong bytes", lasting(Effect::FlipReplyBit(9_000)), Class::Data),
    ] {
        server.faults().set(faults);
        let error = scene.restore(&repositories, manifest, "never").await.unwrap_err();
        assert_eq!(error.class(), class, "{name}: {}", words(&error));
        assert_eq!(scene.count_databases("never").await, "0", "{name}");
    }
}
