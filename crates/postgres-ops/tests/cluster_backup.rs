//! Backups of whole clusters: what is in them, opened with stock tools and recovered.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;

use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use backstay_postgres_ops::physical::IndexLine;
use backstay_testkit::{PostgresInstall, PostgresOptions, TestPostgres};

use cluster::{Cluster, Load, recover, unpack, verify};

#[tokio::test(flavor = "multi_thread")]
async fn stock_tools_open_a_set_and_postgres_accepts_it() {
    for major in [14, 15, 17, 18] {
        let install = PostgresInstall::find(major).unwrap();
        let cluster = Cluster::start(PostgresOptions::default().install(&install)).await;
        cluster
            .psql("create table t as select g as id, md5(g::text) as word from generate_series(1, 50000) g");
        // Not UTF-8, as the names of files may be.
        let odd = std::ffi::OsStr::from_bytes(b"odd \xff \"name\"");
        std::fs::write(cluster.postgres.data_directory().join(odd), "x").unwrap();
        let report = cluster.back_up(&cluster.options()).await.unwrap();
        assert_eq!(report.facts.server_version_num / 10_000, major);
        assert!(report.facts.start_lsn < report.facts.stop_lsn && report.facts.corrupt_page_count == 0);
        let target = cluster.target("unpacked");
        unpack(&cluster.set_folder(&report.receipt.manifest), &target);
        verify(&install, &target).unwrap();
        assert_eq!(std::fs::read(target.join(odd)).unwrap(), b"x");
        let version = std::fs::read(target.join("PG_VERSION")).unwrap();
        std::fs::write(target.join("PG_VERSION"), "99\n").unwrap();
        assert!(verify(&install, &target).unwrap_err().contains("checksum mismatch"));
        std::fs::write(target.join("PG_VERSION"), version).unwrap();
        let again = recover(&cluster, &report, &target).await;
        assert_eq!(again.psql("postgres", "select count(*), sum(id) from t").unwrap(), "50000|1250025000");
    }
}

/// PostgreSQL's own checks of tables and indexes.
fn amcheck(postgres: &TestPostgres) {
    let mut command = postgres.client("pg_amcheck").unwrap();
    let output = command.args(["--all", "--install-missing", "--heapallindexed"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_under_load_is_backed_up_whole_and_its_pages_are_not_called_damaged() {
    let cluster = Cluster::start(PostgresOptions::default().setting("shared_buffers", "4MB")).await;
    Load::prepare(&cluster);
    let load = Load::start(&cluster, 3);
    let mut options = cluster.options();
    // Slow enough for thousands of pages to be written meanwhile.
    options.rate = Some(25 << 20);
    let mut reports = Vec::new();
    for _ in 0..2 {
        reports.push(cluster.back_up(&options).await.unwrap());
    }
    load.stop(&cluster);
    for (number, report) in reports.iter().enumerate() {
        assert_eq!(report.facts.corrupt_page_count, 0, "{:?}", report.facts.corrupt_pages);
        let target = cluster.target(&format!("again-{number}"));
        unpack(&cluster.set_folder(&report.receipt.manifest), &target);
        verify(cluster.postgres.install(), &target).unwrap();
        let mut again = recover(&cluster, report, &target).await;
        assert_eq!(again.psql("postgres", "select count(*) from busy").unwrap(), "40000");
        assert_ne!(again.psql("postgres", "select sum(n) from busy").unwrap(), "0");
        amcheck(&again);
        again.stop(backstay_testkit::StopMode::Fast).unwrap();
        let mut checks = Command::new(cluster.postgres.install().program("pg_checksums").unwrap());
        assert!(checks.args(["--check", "--pgdata"]).arg(&target).output().unwrap().status.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tablespaces_are_part_of_the_set() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    for number in 1..=3 {
        let account = cluster.postgres.account();
        let folder = cluster.postgres.scratch().subdirectory(&format!("space {number}"), account).unwrap();
        // Of somebody else who uses the same folder.
        std::fs::write(folder.join("stranger"), "x").unwrap();
        cluster.psql(&format!("create tablespace space{number} location '{}'", folder.display()));
        cluster.psql(&format!(
            "create table t{number} tablespace space{number} as select generate_series(1, 5000) g"
        ));
    }
    let report = cluster.back_up(&cluster.options()).await.unwrap();
    let names: Vec<_> = report.facts.tablespaces.iter().map(|space| space.name.as_str()).collect();
    assert_eq!(names, ["space1", "space2", "space3"]);
    assert!(
        report
            .facts
            .tablespaces
            .iter()
            .all(|space| space.bytes > 100_000 && space.location.contains("space "))
    );
    let target = cluster.target("unpacked");
    unpack(&cluster.set_folder(&report.receipt.manifest), &target);
    verify(cluster.postgres.install(), &target).unwrap();
    let again = recover(&cluster, &report, &target).await;
    for number in 1..=3 {
        let sum = format!("select sum(g) from t{number}");
        assert_eq!(again.psql("postgres", &sum).unwrap(), "12502500");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unlogged_and_temporary_tables_are_left_out() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.psql(
        "create table kept as select generate_series(1, 1000) g; \
         create unlogged table fleeting as select generate_series(1, 200000) g; checkpoint",
    );
    let fleeting = cluster.psql("select pg_relation_filepath('fleeting')");
    let mut session = cluster.postgres.client("psql").unwrap();
    let sql = "create temporary table passing as select generate_series(1, 200000) g; select pg_sleep(600)";
    let mut session = session.args(["-X", "-d", "postgres", "-c", sql]).spawn().unwrap();
    let folder = cluster.postgres.data_directory().join("base/5");
    let is_temporary = |name: &str| name.starts_with('t') && name.contains('_');
    let names = |folder: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !names(&folder).iter().any(|name| is_temporary(name)) {
        assert!(std::time::Instant::now() < deadline, "no temporary table");
    }
    let report = cluster.back_up(&cluster.options()).await.unwrap();
    session.kill().unwrap();
    session.wait().unwrap();
    let target = cluster.target("unpacked");
    unpack(&cluster.set_folder(&report.receipt.manifest), &target);
    assert!(!names(&target.join("base/5")).iter().any(|name| is_temporary(name)));
    assert!(!target.join(&fleeting).exists() && target.join(format!("{fleeting}_init")).exists());
    let again = recover(&cluster, &report, &target).await;
    let counts = "select (select count(*) from kept), (select count(*) from fleeting)";
    assert_eq!(again.psql("postgres", counts).unwrap(), "1000|0");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_relations_are_packed_and_every_file_is_in_the_index() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.psql(
        "do $$ begin for i in 1..10000 loop execute format('create table %I (id int)', 't' || i); \
         if i % 10 = 0 then execute format('insert into %I values (1)', 't' || i); end if; \
         if i % 1000 = 0 then commit; end if; end loop; end $$",
    );
    let report = cluster.back_up(&cluster.options()).await.unwrap();
    assert!(report.facts.files > 10_000, "{}", report.facts.files);
    assert!(report.receipt.manifest.objects.len() < 10, "they are packed");
    let folder = cluster.set_folder(&report.receipt.manifest);
    let target = cluster.target("unpacked");
    unpack(&folder, &target);
    verify(cluster.postgres.install(), &target).unwrap();
    let index = Command::new("zstd").arg("-dc").arg(folder.join("index.zst")).output().unwrap().stdout;
    let (mut files, mut end) = (0, None);
    for line in String::from_utf8(index).unwrap().lines() {
        assert!(end.is_none(), "the end is last");
        match serde_json::from_str(line).unwrap() {
            IndexLine::File(file) => {
                files += 1;
                let content = std::fs::read(target.join(file.path.as_path())).unwrap();
                let blocks: Vec<_> =
                    content.chunks(1 << 20).map(backstay_postgres_ops::physical::BlockDigest::of).collect();
                assert_eq!((content.len() as u64, blocks), (file.size, file.blocks), "{}", file.path);
            }
            IndexLine::Directory(directory) => assert!(target.join(directory.path.as_path()).is_dir()),
            IndexLine::Pack(pack) => {
                let stored = std::fs::metadata(folder.join(&pack.object)).unwrap().len();
                assert_eq!(pack.stored.iter().map(|frame| u64::from(*frame)).sum::<u64>(), stored);
                assert_eq!(pack.stored.len() as u64, pack.plain.div_ceil(pack.frame));
            }
            IndexLine::End(counts) => end = Some(counts),
        }
    }
    let end = end.unwrap();
    let packs = report.receipt.manifest.objects.len() - 2;
    assert_eq!((end.files, end.packs as usize), (files, packs));
    assert_eq!(files, report.facts.files);
}
