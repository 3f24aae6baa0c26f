//! Recovery along timelines: after promotions, after a botched recovery, from a standby's backup.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod restored;

use std::collections::BTreeMap;

use backstay_backup_core::progress::Progress;
use backstay_postgres_ops::Server;
use backstay_postgres_ops::cluster_restore::{ClusterReceipt, ClusterRequest, Outcome, RecoverySettings};
use backstay_postgres_ops::physical::backup_cluster;
use backstay_postgres_ops::recovery::{RecoveryTarget, TimelineChoice};
use backstay_postgres_ops::wal::Timeline;
use backstay_testkit::PostgresOptions;
use cluster::Cluster;
use restored::{Restored, archive_all, copy_command, copy_wal, request};
use tokio_util::sync::CancellationToken;

/// Archives as the source does: into the same archive, as after a failover.
const INTO_THE_SAME: &str = "cp %p ../spool/.%f && mv ../spool/.%f ../spool/%f";

async fn promoted(cluster: &Cluster, place: &Restored<'_>, target: RecoveryTarget) -> ClusterReceipt {
    let plan = place.plan(cluster, &request(target)).await.unwrap();
    let mut settings = plan.settings(&copy_command(cluster));
    settings.archive_command = Some(INTO_THE_SAME.to_owned());
    let receipt = place.apply(cluster, &plan, &settings).await.unwrap();
    assert_eq!(receipt.outcome, Outcome::Exact, "{receipt:#?}");
    receipt
}

/// Inserts, archives, and waits for it.
async fn go_on(cluster: &Cluster, place: &Restored<'_>, number: u32) {
    place.psql("postgres", &format!("INSERT INTO done VALUES ({number})"));
    let name = place.psql("postgres", "SELECT pg_walfile_name(pg_switch_wal())");
    place.psql("postgres", "INSERT INTO done VALUES (-1); SELECT pg_switch_wal()");
    restored::wait_for(cluster, &name).await;
    copy_wal(cluster).await;
}

async fn begun() -> Cluster {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.psql("CREATE TABLE done (n int); INSERT INTO done VALUES (1)");
    cluster.back_up(&cluster.options()).await.unwrap();
    cluster.psql("INSERT INTO done VALUES (2); SELECT pg_create_restore_point('two')");
    cluster.psql("INSERT INTO done VALUES (3)");
    archive_all(&cluster).await;
    cluster
}

const ALL: &str = "SELECT string_agg(n::text, ' ' ORDER BY n) FROM done WHERE n > 0";

#[tokio::test(flavor = "multi_thread")]
async fn recovery_follows_two_switches_of_the_timeline() {
    let cluster = begun().await;
    let first = Restored::beside(&cluster.postgres, "first");
    let receipt = promoted(&cluster, &first, RecoveryTarget::Latest).await;
    assert_eq!(receipt.reached.unwrap().new_timeline.number(), 2);
    go_on(&cluster, &first, 4).await;
    first.stop("immediate");
    let second = Restored::beside(&cluster.postgres, "second");
    promoted(&cluster, &second, RecoveryTarget::Latest).await;
    go_on(&cluster, &second, 5).await;
    second.stop("immediate");

    let third = Restored::beside(&cluster.postgres, "third");
    let plan = third.plan(&cluster, &request(RecoveryTarget::Latest)).await.unwrap();
    let path: Vec<_> = plan.recovery.path.iter().map(|stretch| stretch.timeline.number()).collect();
    assert_eq!(path, [1, 2, 3]);
    let receipt = third.apply(&cluster, &plan, &plan.settings(&copy_command(&cluster))).await.unwrap();
    assert_eq!(receipt.outcome, Outcome::Exact, "{receipt:#?}");
    assert_eq!(receipt.reached.unwrap().new_timeline.number(), 4);
    assert_eq!(third.psql("postgres", ALL), "1 2 3 4 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_botched_recovery_the_right_one_still_works() {
    let cluster = begun().await;
    let botched = Restored::beside(&cluster.postgres, "botched");
    promoted(&cluster, &botched, RecoveryTarget::name("two").unwrap()).await;
    go_on(&cluster, &botched, 99).await;
    botched.stop("fast");
    // The old timeline went on.
    cluster.psql("INSERT INTO done VALUES (4)");
    archive_all(&cluster).await;

    let latest = Restored::beside(&cluster.postgres, "latest");
    latest.recover(&cluster, &request(RecoveryTarget::Latest)).await.unwrap();
    assert_eq!(latest.psql("postgres", ALL), "1 2 99");
    let first = TimelineChoice::Number(Timeline::FIRST);
    let along_the_first = ClusterRequest::new(RecoveryTarget::Latest, first);
    let right = Restored::beside(&cluster.postgres, "right");
    let receipt = right.recover(&cluster, &along_the_first).await.unwrap();
    assert_eq!(receipt.outcome, Outcome::Exact, "{receipt:#?}");
    assert_eq!(right.psql("postgres", ALL), "1 2 3 4");
    // And the directory of the botched one, which ran on, is made into the right one by what differs.
    let plan = {
        let options = botched.options().delta(true);
        botched.plan_with(&cluster, &along_the_first, &options).await.unwrap()
    };
    let receipt = botched.apply(&cluster, &plan, &plan.settings(&copy_command(&cluster))).await.unwrap();
    assert!(
        receipt.outcome == Outcome::Exact && receipt.reused_bytes > receipt.written_bytes,
        "{receipt:#?}"
    );
    assert_eq!(botched.psql("postgres", ALL), "1 2 3 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_made_and_its_own_backup_recovers() {
    let cluster = begun().await;
    let standby = Restored::beside(&cluster.postgres, "standby");
    let plan = standby.plan(&cluster, &request(RecoveryTarget::Latest)).await.unwrap();
    let mut settings = RecoverySettings::standby(&copy_command(&cluster));
    let (port, password) = (cluster.postgres.port(), cluster.postgres.password());
    settings.primary = Some(format!("host=127.0.0.1 port={port} user=postgres password={password}"));
    let receipt = standby.apply(&cluster, &plan, &settings).await.unwrap();
    assert_eq!(receipt.outcome, Outcome::Following, "{receipt:#?}");
    cluster.psql("INSERT INTO done VALUES (4)");
    until(|| standby.psql("postgres", ALL) == "1 2 3 4");
    assert_eq!(standby.psql("postgres", "SELECT pg_is_in_recovery()"), "t");

    let url = format!("postgres://postgres:{password}@127.0.0.1:{}/postgres", standby.port.port());
    let server = Server::parse(&url, &BTreeMap::new()).unwrap();
    let (progress, cancel, options) = (Progress::new(), CancellationToken::new(), cluster.options());
    let backing_up = Box::pin(backup_cluster(&server, &cluster.repositories, &options, &progress, &cancel));
    // On a quiet primary nothing would ever fill the segment that the backup ended in.
    let switching = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            cluster.psql("SELECT pg_switch_wal(); CREATE TABLE IF NOT EXISTS more AS SELECT 1; CHECKPOINT");
        }
    };
    let report = tokio::select! {
        report = backing_up => report.unwrap(),
        () = switching => unreachable!(),
    };
    assert!(report.facts.from_standby);
    standby.stop("fast");
    cluster.psql("INSERT INTO done VALUES (5)");
    archive_all(&cluster).await;
    let place = Restored::beside(&cluster.postgres, "from-standby");
    let wanted = request(RecoveryTarget::Latest).set(report.receipt.manifest.set.clone());
    let receipt = place.recover(&cluster, &wanted).await.unwrap();
    assert_eq!(receipt.outcome, Outcome::Exact, "{receipt:#?}");
    assert_eq!(place.psql("postgres", ALL), "1 2 3 4 5");
}

#[track_caller]
fn until(mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < std::time::Duration::from_secs(300), "timed out");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
