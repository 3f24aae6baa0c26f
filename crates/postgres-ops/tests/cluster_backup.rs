//! Backups of whole clusters: what is in them, opened with stock tools.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;

use backstay_testkit::{PostgresInstall, PostgresOptions};

use cluster::{Cluster, unpack, verify};

#[tokio::test(flavor = "multi_thread")]
async fn stock_tools_open_a_set_and_postgres_accepts_it() {
    for major in [15, 17, 18] {
        let install = PostgresInstall::find(major).unwrap();
        let cluster = Cluster::start(PostgresOptions::default().install(&install)).await;
        cluster
            .psql("create table t as select g as id, md5(g::text) as word from generate_series(1, 50000) g");
        let report = cluster.back_up(&cluster.options()).await.unwrap();
        assert_eq!(report.facts.server_version_num / 10_000, major);
        assert!(report.facts.start_lsn < report.facts.stop_lsn && report.facts.corrupt_page_count == 0);
        let target = cluster.root.path().join("unpacked");
        unpack(&cluster.set_folder(&report.receipt.manifest), &target);
        verify(&install, &target).unwrap();
        let damaged = target.join("PG_VERSION");
        std::fs::write(damaged, "99\n").unwrap();
        assert!(verify(&install, &target).unwrap_err().contains("checksum mismatch"));
    }
}
