//! The sample databases load on every PostgreSQL version of this machine.
#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)]

use backstay_testkit::{PostgresInstall, PostgresOptions, SampleSize, TestPostgres, load_sample};

fn servers() -> impl Iterator<Item = TestPostgres> {
    let installs = PostgresInstall::all();
    assert!(!installs.is_empty(), "run scripts/setup.sh");
    installs.into_iter().map(|install| {
        println!("PostgreSQL {}", install.major());
        TestPostgres::start_blocking(&PostgresOptions::default().install(&install)).unwrap()
    })
}

#[test]
fn the_shop_has_the_asked_size_and_the_same_content_every_time() {
    let size = SampleSize::default().accounts(40).orders(300).documents(20).large_objects(3);
    let digest = "SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM shop.orders o";
    let mut digests = vec![];
    for server in servers() {
        load_sample(&server, "shop", size).unwrap();
        let counts = "SELECT count(*) FROM shop.accounts; SELECT count(*) FROM shop.orders;
            SELECT count(*) FROM shop.documents; SELECT count(*) FROM pg_largeobject_metadata;
            SELECT count(*) FROM pg_partition_tree('shop.orders') t WHERE isleaf
                AND (xpath('/row/c/text()', query_to_xml('SELECT count(*) AS c FROM ' || t.relid, false, true, '')))[1]::text::int > 0";
        assert_eq!(server.psql("shop", counts).unwrap(), "40\n300\n20\n3\n5");
        let intact = "SELECT count(*) FROM shop.attachments WHERE md5(lo_get(content)) = digest";
        assert_eq!(server.psql("shop", intact).unwrap(), "3");
        digests.push(server.psql("shop", digest).unwrap());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "versions differ: {digests:?}");
}
