//! A cluster whose set and whose WAL are encrypted, recovered by a server that fetches its WAL with the private key.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../../crates/postgres-ops/tests/restored/mod.rs"]
mod restored;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::error::Classified;
use backstay_backup_core::progress::Progress;
use backstay_postgres_ops::cluster_restore::{
    ClusterReceipt, ClusterRestoreError, Ending, Outcome, plan_cluster_restore,
};
use backstay_postgres_ops::recovery::RecoveryTarget;
use backstay_postgres_ops::wal::WalFile;
use backstay_postgres_ops::wal_archive::WalArchive;
use backstay_testkit::PostgresOptions;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use cluster::{Cluster, archive, stanza};
use restored::{Restored, request, wait_for};

/// Archives what a server leaves in its spool, for ever.
async fn keep_archiving(spool: PathBuf, archive: WalArchive) {
    loop {
        let mut paths: Vec<_> =
            fs::read_dir(&spool).into_iter().flatten().flatten().map(|it| it.path()).collect();
        paths.sort();
        for path in paths {
            let Ok(file) = path.file_name().unwrap().to_str().unwrap().parse::<WalFile>() else { continue };
            archive.push(file, Bytes::from(fs::read(&path).unwrap())).await.unwrap();
            fs::remove_file(&path).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A `restore_command` as the account of the server runs it, with a file for the private key.
fn restore_command(cluster: &Cluster, key: &Path) -> String {
    let scratch = cluster.postgres.scratch().path();
    let (program, config) = (scratch.join("restore-wal"), scratch.join("backstay.toml"));
    fs::copy(env!("CARGO_BIN_EXE_restore-wal"), &program).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_backstay-wal"), scratch.join("backstay-wal")).unwrap();
    fs::write(&config, "").unwrap();
    let repository = cluster.root.path().join("repository");
    fs::set_permissions(cluster.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if let Some(account) = cluster.postgres.account() {
        let owner = format!("{}:{}", account.uid(), account.gid());
        for path in [&*repository, key] {
            assert!(Command::new("chown").arg("-R").arg(&owner).arg(path).status().unwrap().success());
        }
    }
    let places = [&program, &config, &repository].map(|path| path.display());
    let [program, config, repository] = places;
    let key = key.display();
    format!(
        "{program} %f %p --config {config} --repository {repository} --identity-file {key} --no-prefetch --deadline 60s"
    )
}

async fn recover(
    cluster: &Cluster,
    place: &Restored<'_>,
    identities: &Identities,
    command: &str,
) -> Result<ClusterReceipt, ClusterRestoreError> {
    let catalog = Catalog::load(&cluster.repositories, &stanza()).await.unwrap();
    let (options, request) = (place.options(), request(RecoveryTarget::name("here").unwrap()));
    let planning = plan_cluster_restore(&cluster.repositories, &catalog, identities, &request, &options);
    let plan = Box::pin(planning).await?;
    let (settings, ending) = (plan.settings(command), Ending::Start(place.start_options()));
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    Box::pin(plan.apply(&cluster.repositories, identities, &settings, &ending, &progress, &cancel)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_cluster_is_recovered_with_the_key_and_not_without() {
    let identity = age::x25519::Identity::generate();
    let recipients = Recipients::parse([identity.to_public().to_string().as_str()]).unwrap();
    let mut cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.stop_archiver();
    let spool = cluster.postgres.data_directory().parent().unwrap().join("spool");
    let encrypting = archive(&cluster.postgres, &cluster.repositories).recipients(recipients.clone());
    let archiving = tokio::spawn(keep_archiving(spool, encrypting));
    let mut options = cluster.options();
    options.recipients = recipients;
    cluster.psql("CREATE TABLE done AS SELECT 1 AS n");
    cluster.back_up(&options).await.unwrap();
    cluster.psql("INSERT INTO done VALUES (2); SELECT pg_create_restore_point('here')");
    cluster.psql("INSERT INTO done VALUES (3)");
    let last = cluster.psql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    cluster.psql("SELECT pg_switch_wal()");
    wait_for(&cluster, &last).await;

    let text = identity.to_string().expose_secret().to_owned();
    let key = cluster.postgres.scratch().path().join("key");
    fs::write(&key, &text).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let command = restore_command(&cluster, &key);
    let place = Restored::beside(&cluster.postgres, "decrypted");
    let refused = recover(&cluster, &place, &Identities::none(), &command).await.unwrap_err();
    assert_eq!(refused.class(), backstay_backup_core::Class::Usage, "{refused}");
    assert!(!place.target.exists());
    let receipt = recover(&cluster, &place, &Identities::parse(&text).unwrap(), &command).await.unwrap();
    assert_eq!(receipt.outcome, Outcome::Exact, "{receipt:#?}");
    assert_eq!(place.psql("postgres", "SELECT max(n) FROM done"), "2");

    // The server itself needs the key too: with another one it stops, and does not promote.
    let wrong = Restored::beside(&cluster.postgres, "with-another-key");
    let other = age::x25519::Identity::generate().to_string().expose_secret().to_owned();
    fs::write(&key, other).unwrap();
    let soon = command.replace("--deadline 60s", "--deadline 2s");
    let failed = recover(&cluster, &wrong, &Identities::parse(&text).unwrap(), &soon).await.unwrap_err();
    assert!(failed.to_string().contains("FATAL"), "{failed}");
    assert!(!wrong.target.join("pg_wal/00000002.history").exists());
    archiving.abort();
}
