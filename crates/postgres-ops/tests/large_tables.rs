//! A table of the size that streams, objects and units are made for. `BACKSTAY_SOAK=1` takes 1 GiB of it.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod scene;

use backstay_postgres_ops::RestoreOptions;
use scene::Scene;

/// Bytes of COPY text in a row of `big`, about.
const ROW: u64 = 128;
/// Most memory of this process, server and client programs not counted.
const MOST_MEMORY_KIB: u64 = 128 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_comes_back_equal_by_content() {
    let size: u64 = if std::env::var_os("BACKSTAY_SOAK").is_some() { 1 << 30 } else { 64 << 20 };
    let rows = size / ROW;
    let scene = Scene::start().await;
    scene.postgres.create_database("large").unwrap();
    // Half of a row compresses like text, half not at all; the second table makes a second stream worth while.
    let row = "n, md5(n::text) || md5((n * 7)::text), repeat(chr(97 + (n % 26)::int), 48)";
    let sql = format!(
        "create table big (n bigint primary key, digest text, filler text);
         create table other (n bigint, digest text, filler text);
         insert into big select {row} from generate_series(1::bigint, {rows}) n;
         insert into other select {row} from generate_series(1::bigint, {}) n;
         create index on big (digest)",
        rows / 4
    );
    scene.postgres.psql("large", &sql).unwrap();
    for jobs in [1, 2] {
        let report = scene.backup("large", &scene.options().jobs(jobs).digests(true)).await.unwrap();
        assert_eq!(report.facts.archives.len(), jobs);
        let big = report.facts.tables.iter().find(|table| table.name == "big").unwrap();
        assert!(big.rows == rows && big.bytes > size * 9 / 10, "{big:?}");
        let restore = RestoreOptions::default().target("again").jobs(jobs);
        let receipt = scene.restore(&report, &restore).await.unwrap();
        let comparison = &receipt.comparison;
        assert!(comparison.is_equal() && comparison.by_content, "{comparison:?}");
        assert_eq!((comparison.tables, comparison.rows), (2, rows + rows / 4));
        scene.postgres.psql("postgres", "drop database again").unwrap();
        eprintln!(
            "{} MiB, {jobs} streams: backup {:.1} s, restore {:.1} s {:?}, peak memory {} KiB",
            size >> 20,
            report.elapsed.as_secs_f64(),
            receipt.rto_seconds,
            receipt.phases,
            peak_memory()
        );
    }
    assert!(peak_memory() < MOST_MEMORY_KIB, "{} KiB", peak_memory());
}

/// Peak memory of this process in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
