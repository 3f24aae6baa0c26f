//! Page checksums and `pg_control` as real servers write them, and damage in a live data directory.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use backstay_postgres_ops::physical::ControlFile;
use backstay_postgres_ops::physical::page::{PageState, judge_page};
use backstay_postgres_ops::physical::rules::RelationFile;
use backstay_testkit::{PostgresInstall, PostgresOptions, StopMode, TestPostgres};

use cluster::Cluster;

/// Tables and indexes of every kind, with all forks.
const KINDS: &str = "create extension if not exists pg_trgm;
    create table kinds as select g as id, md5(g::text) as word, point(g, g) as place, array[g, g + 1] as numbers,
        repeat(md5(g::text), 200) as long from generate_series(1, 3000) g;
    alter table kinds alter long set storage external;
    create index on kinds using btree (id); create index on kinds using hash (word);
    create index on kinds using gist (place); create index on kinds using spgist (place);
    create index on kinds using gin (numbers); create index on kinds using brin (id);
    create sequence numbers; select nextval('numbers');
    update kinds set word = word || 'x' where id % 3 = 0; delete from kinds where id % 7 = 0; vacuum analyze kinds;";

/// Judges all pages below a stopped data directory: how many are right, never used, wrong.
fn judge(folder: &Path, counts: &mut [usize; 3]) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let file = RelationFile::parse(entry.file_name().as_encoded_bytes());
        if path.is_dir() {
            judge(&path, counts);
        } else if let Some(file) = file {
            for (number, page) in std::fs::read(&path).unwrap().chunks_exact(8192).enumerate() {
                let state = judge_page(page, file.segment * 131_072 + u32::try_from(number).unwrap());
                counts[match state {
                    PageState::Right => 0,
                    PageState::Empty => 1,
                    PageState::Wrong => 2,
                }] += 1;
            }
        }
    }
}

fn judged(data: &Path) -> [usize; 3] {
    let mut counts = [0; 3];
    judge(&data.join("base"), &mut counts);
    judge(&data.join("global"), &mut counts);
    counts
}

fn checksums(install: &PostgresInstall, how: &str, data: &Path, server: &TestPostgres) -> String {
    let mut command = Command::new("setpriv");
    if let Some(account) = server.account() {
        let (user, group) = (account.uid(), account.gid());
        command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
    }
    command.arg(install.program("pg_checksums").unwrap()).args([how, "--pgdata"]).arg(data).current_dir("/");
    let output = command.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_agree_with_the_server_on_pages_of_every_kind() {
    for major in [15, 17, 18] {
        let install = PostgresInstall::find(major).unwrap();
        let options = PostgresOptions::default().install(&install);
        let mut server = TestPostgres::start(options).await.unwrap();
        server.psql("postgres", KINDS).unwrap();
        server.stop(StopMode::Fast).unwrap();
        let [right, _, wrong] = judged(server.data_directory());
        assert!(right > 2500 && wrong == 0, "{major}: {right} right, {wrong} wrong");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we_find_what_pg_checksums_finds() {
    let install = PostgresInstall::system().unwrap();
    let mut server = TestPostgres::start(PostgresOptions::default().data_checksums(false)).await.unwrap();
    server.psql("postgres", KINDS).unwrap();
    let path = server.psql("postgres", "select pg_relation_filepath('kinds')").unwrap();
    server.stop(StopMode::Fast).unwrap();
    let data = server.data_directory().to_owned();
    assert!(judged(&data)[2] > 1000, "without checksums they are all wrong");
    let said = checksums(&install, "--enable", &data, &server);
    assert!(said.contains("Checksums enabled"), "{said}");
    assert_eq!(judged(&data)[2], 0);
    let file = std::fs::File::options().write(true).read(true).open(data.join(path)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5 * 8192 + 4000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 5 * 8192 + 4000).unwrap();
    let said = checksums(&install, "--check", &data, &server);
    assert!(said.contains("block 5"), "{said}");
    assert_eq!(judged(&data)[2], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_files_read_as_pg_controldata_reads_them() {
    for major in [15, 16, 17, 18] {
        let install = PostgresInstall::find(major).unwrap();
        let options = PostgresOptions::default().install(&install).initdb_arg("--wal-segsize=1");
        let server = TestPostgres::start(options).await.unwrap();
        let mut command = Command::new(install.program("pg_controldata").unwrap());
        // Read twice around ours: between two checkpoints nothing changes.
        let output = command.env("LC_ALL", "C").arg(server.data_directory()).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let value = |name: &str| {
            let line = told
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("{name}: {told}"));
            line.trim_start_matches(':').trim().to_owned()
        };
        let bytes = std::fs::read(server.data_directory().join("global/pg_control")).unwrap();
        let ours = ControlFile::parse(&bytes).unwrap();
        assert_eq!(ours.system.to_string(), value("Database system identifier"));
        assert_eq!(ours.control_version.to_string(), value("pg_control version number"));
        assert_eq!(ours.catalog_version.to_string(), value("Catalog version number"));
        assert_eq!(ours.redo.to_string(), value("Latest checkpoint's REDO location"));
        assert_eq!(ours.timeline.number().to_string(), value("Latest checkpoint's TimeLineID"));
        assert_eq!(ours.minimum_recovery_end.to_string(), value("Minimum recovery ending location"));
        assert_eq!(ours.block_size.to_string(), value("Database block size"));
        assert_eq!(ours.relation_segment.to_string(), value("Blocks per segment of large relation"));
        assert_eq!(ours.wal_segment_size.bytes().to_string(), value("Bytes per WAL segment"));
        assert_eq!(ours.checksum_version.to_string(), value("Data page checksum version"));
        assert_eq!(value("Database cluster state"), "in production");
        assert_eq!(format!("{:?}", ours.state), "InProduction");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_is_found_and_located_and_the_set_is_not_good() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster
        .psql("create table t as select g as id, repeat('x', 500) as filler from generate_series(1, 5000) g");
    cluster.psql("create table healthy as select generate_series(1, 5000) g; checkpoint");
    let path = cluster.psql("select pg_relation_filepath('t')");
    let data = cluster.postgres.data_directory();
    let file = std::fs::File::options().write(true).open(data.join(&path)).unwrap();
    for block in [3, 17, 200] {
        file.write_all_at(b"damage", block * 8192 + 5000).unwrap();
    }
    let misplaced = std::fs::read(data.join(&path)).unwrap()[40 * 8192..41 * 8192].to_vec();
    file.write_all_at(&misplaced, 41 * 8192).unwrap();
    // A position that the log never reached protects nothing.
    file.write_all_at(&[0xFF; 8], 60 * 8192).unwrap();
    let report = cluster.back_up(&cluster.options()).await.unwrap();
    let found: Vec<_> =
        report.facts.corrupt_pages.iter().map(|page| (page.file.to_string(), page.block)).collect();
    assert_eq!(found, [3, 17, 41, 60, 200].map(|block| (path.clone(), block)));
    assert_eq!(report.facts.corrupt_page_count, 5);
    assert!(!report.receipt.manifest.complete);
    let mut options = cluster.options();
    options.allow_corrupt = true;
    let report = cluster.back_up(&options).await.unwrap();
    assert!(report.receipt.manifest.complete && report.facts.corrupt_page_count == 5);
    options.check_pages = false;
    let report = cluster.back_up(&options).await.unwrap();
    assert_eq!(report.facts.corrupt_page_count, 0);
}
