//! What is read from real archives of `pg_dump`, held against what the server says.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;

use backstay_postgres_ops::{
    ArchiveScanner, ArchiveToc, BlockFilter, Compression, CopyRows, DataPosition, DumpId, Format,
    LargeObjectDigester, Section, copy_blocks, quote_ident, quote_qualified, set_block_positions,
};
use backstay_testkit::PostgresInstall;
use support::{Server, copy_out, dump, row_facts, run, scan, succeed};

const SHOP: &str = include_str!("support/shop.sql");

#[test]
fn archives_of_the_distribution_are_understood() {
    archives_are_understood(&PostgresInstall::system().unwrap());
}

#[test]
fn archives_of_every_other_version_here_are_understood() {
    let system = PostgresInstall::system().unwrap().major();
    for install in PostgresInstall::all() {
        // Some copies come without programs of their own; another version's would be tested twice.
        if install.major() != system && install.has("pg_dump") {
            archives_are_understood(&install);
        }
    }
}

/// One server for all steps: starting one costs more than most of them.
fn archives_are_understood(install: &PostgresInstall) {
    let server = Server::start(install);
    server.create_database("shop");
    server.psql("shop", SHOP);
    let archive = dump(&server, "shop", &["-Z0"]);

    header_and_entries_are_those_of_the_dump(&server, &archive);
    rows_and_objects_are_those_of_the_server(&server, &archive);
    no_shorter_archive_is_whole(&archive);
    indexes_of_a_table_are_found(&archive);
    one_table_is_restored_from_a_pipe(&server, &archive);
    a_table_and_its_indexes_are_restored_into_an_empty_database(&server, &archive);
    positions_are_those_pg_dump_would_have_written(&server, &archive);
    other_ways_of_dumping_are_recognised(&server);
    names_in_another_encoding_are_kept(&server);
}

fn header_and_entries_are_those_of_the_dump(server: &Server, archive: &[u8]) {
    let toc = ArchiveToc::parse(archive).unwrap();
    let header = toc.header();
    assert_eq!((header.format, header.compression), (Format::Custom, Compression::None));
    assert_eq!((header.int_size, header.offset_size), (4, 8));
    let minor = match server.major() {
        ..=15 => 14,
        16 => 15,
        _ => 16,
    };
    assert_eq!((header.version.major, header.version.minor), (1, minor));
    assert_eq!(header.database, "shop");
    let orders = toc.find_table("public", "orders").unwrap();
    assert_eq!(orders.relkind, (minor >= 16).then_some('r'));
    assert_eq!(orders.access_method.as_ref().unwrap(), &"heap");
    assert_eq!(header.server_version.to_string(), server.psql("shop", "SHOW server_version").trim());
    assert_eq!(toc.encoding().as_deref(), Some("UTF8"));

    // Without the entries that every archive has and pg_restore does not list.
    let listed: HashSet<DumpId> = toc
        .entries()
        .iter()
        .filter(|entry| {
            ["ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE"].iter().all(|desc| entry.desc != *desc)
        })
        .map(|entry| entry.dump_id)
        .collect();
    let theirs = succeed(server.client("pg_restore").arg("--list"), archive);
    let theirs = String::from_utf8(theirs).unwrap();
    let theirs: Vec<_> = theirs.lines().filter(|line| !line.starts_with(';')).collect();
    assert_eq!(toc.restore_list(&listed).lines().collect::<Vec<_>>(), theirs);
}

fn rows_and_objects_are_those_of_the_server(server: &Server, archive: &[u8]) {
    let facts = scan(archive, archive.len());
    for piece in [1, 7, 4096, 65_536] {
        assert_eq!(scan(archive, piece), facts);
    }
    let mut tables = 0;
    for block in &facts.blocks {
        let Some((schema, name)) = facts.toc.table_name(block.dump_id) else { continue };
        let name = quote_qualified(schema.as_str().unwrap(), name.as_str().unwrap());
        let columns = facts.toc.find(block.dump_id).unwrap().copy_columns().unwrap();
        let columns = std::str::from_utf8(columns).unwrap();
        let rows = block.rows.unwrap();
        let counted = server.psql("shop", &format!("SELECT count(*) FROM ONLY {name}"));
        assert_eq!(rows.rows.to_string(), counted.trim(), "{name}");
        assert_eq!(rows, row_facts(&copy_out(server, "shop", &format!("COPY {name} {columns} TO STDOUT"))));
        tables += 1;
    }
    let expected = server.psql("shop", "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND oid >= 16384");
    assert_eq!(tables.to_string(), expected.trim());

    let objects = server.psql("shop", "SELECT oid, encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata");
    let (mut digester, mut bytes, mut count) = (LargeObjectDigester::default(), 0, 0);
    for (oid, content) in objects.lines().map(|line| line.split_once('|').unwrap()) {
        let content: Vec<u8> = (0..content.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&content[at..at + 2], 16).unwrap())
            .collect();
        digester.begin(oid.parse().unwrap());
        digester.push(&content);
        digester.end();
        bytes += content.len() as u64;
        count += 1;
    }
    assert_eq!((facts.objects.count, facts.objects.bytes), (count, bytes));
    assert_eq!(facts.objects.digest, Some(digester.digest()));
    assert_eq!(count, 3);
}

fn no_shorter_archive_is_whole(archive: &[u8]) {
    let mut scanner = ArchiveScanner::default();
    for (length, byte) in archive.iter().enumerate() {
        scanner.push(std::slice::from_ref(byte)).unwrap();
        // A scanner cannot be ended twice, so only some lengths: all ends of blocks and every 509th.
        if length + 1 < archive.len() && (length % 509 == 0 || !scanner.boundaries().is_empty()) {
            let mut shorter = ArchiveScanner::default();
            shorter.push(&archive[..=length]).unwrap();
            assert!(shorter.finish().unwrap_err().is_truncation(), "{length}");
        }
    }
    scanner.finish().unwrap();
}

fn indexes_of_a_table_are_found(archive: &[u8]) {
    let toc = ArchiveToc::parse(archive).unwrap();
    let table = toc.find_table("public", "orders").unwrap().dump_id;
    let names = |entries: Vec<&backstay_postgres_ops::TocEntry>| -> BTreeSet<String> {
        entries.iter().map(|entry| format!("{} {}", entry.desc, entry.tag)).collect()
    };
    let indexes: Vec<_> = toc.table_indexes(table).collect();
    assert!(indexes.iter().all(|entry| entry.section == Section::PostData));
    let expected = [
        "CHECK CONSTRAINT orders positive",
        "CONSTRAINT orders orders_pkey",
        "CONSTRAINT orders orders_unique",
        "INDEX orders_note",
    ];
    assert_eq!(names(indexes), expected.map(str::to_owned).into());
    let dependents = names(toc.dependents(table).collect());
    for expected in ["TABLE DATA orders", "TRIGGER orders guard", "VIEW all_orders", "ACL TABLE orders"] {
        assert!(dependents.contains(expected), "{expected}: {dependents:?}");
    }
    let closure = toc.closure([table]);
    let comment = toc.entries().iter().find(|entry| entry.tag == "INDEX orders_note").unwrap();
    let reference = toc.entries().iter().find(|entry| entry.desc == "FK CONSTRAINT").unwrap();
    assert!(closure.contains(&comment.dump_id) && closure.contains(&reference.dump_id));
}

/// Blocks of the wanted entries behind the start of the archive, as they go to `pg_restore`.
fn filtered(archive: &[u8], toc: &ArchiveToc, wanted: &[DumpId]) -> Vec<u8> {
    let start = usize::try_from(toc.length()).unwrap();
    let filter = BlockFilter::new(toc.header(), wanted.iter().copied());
    let mut out = Vec::new();
    copy_blocks(&archive[..start], filter, &mut &archive[start..], &mut out).unwrap();
    out
}

fn restore_listed(server: &Server, database: &str, list: &str, stream: &[u8]) {
    let path = server.path().join("list");
    fs::write(&path, list).unwrap();
    let mut restore = server.client("pg_restore");
    restore.args(["--exit-on-error", "--dbname", database, "--use-list"]).arg(&path);
    succeed(&mut restore, stream);
}

fn counts(server: &Server, database: &str, toc: &ArchiveToc) -> BTreeMap<DumpId, u64> {
    let tables = toc.data_entries().filter(|entry| entry.is_table_data()).map(|entry| {
        let name =
            quote_qualified(entry.namespace.as_ref().unwrap().as_str().unwrap(), entry.tag.as_str().unwrap());
        let count = server.psql(database, &format!("SELECT count(*) FROM ONLY {name}"));
        (entry.dump_id, count.trim().parse().unwrap())
    });
    tables.collect()
}

fn one_table_is_restored_from_a_pipe(server: &Server, archive: &[u8]) {
    let facts = scan(archive, 65_536);
    server.create_database("one");
    let mut restore = server.client("pg_restore");
    succeed(restore.args(["--exit-on-error", "--section=pre-data", "--dbname=one"]), archive);
    let mut expected: BTreeMap<DumpId, u64> =
        facts.blocks.iter().filter_map(|block| Some((block.dump_id, block.rows.map(|_| 0)?))).collect();
    for block in facts.blocks.iter().filter(|block| block.rows.is_some()) {
        let stream = filtered(archive, &facts.toc, &[block.dump_id]);
        restore_listed(server, "one", &facts.toc.restore_list(&HashSet::from([block.dump_id])), &stream);
        expected.insert(block.dump_id, block.rows.unwrap().rows);
        assert_eq!(counts(server, "one", &facts.toc), expected);
    }
    // Blocks that the stream does not have are missed by pg_restore itself.
    let first = facts.blocks[0].dump_id;
    let mut restore = server.client("pg_restore");
    let stream = &archive[..usize::try_from(facts.toc.length()).unwrap()];
    fs::write(server.path().join("list"), facts.toc.restore_list(&HashSet::from([first]))).unwrap();
    restore.args(["--exit-on-error", "--dbname=one", "--use-list"]).arg(server.path().join("list"));
    assert!(!run(&mut restore, stream).status.success());
}

fn a_table_and_its_indexes_are_restored_into_an_empty_database(server: &Server, archive: &[u8]) {
    server.create_database("alone");
    let facts = scan(archive, 65_536);
    let toc = &facts.toc;
    let table = toc.find_table("public", "orders").unwrap().dump_id;
    let rows = toc.find_table_data("public", "orders").unwrap().dump_id;
    let mut wanted: HashSet<_> = toc.table_indexes(table).map(|entry| entry.dump_id).collect();
    wanted.extend([table, rows]);
    restore_listed(server, "alone", &toc.restore_list(&wanted), &filtered(archive, toc, &[rows]));
    let restored = row_facts(&copy_out(server, "alone", "COPY public.orders (id, note, total) TO STDOUT"));
    assert_eq!(facts.find_block(rows).unwrap().rows, Some(restored));
    let indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'";
    assert_eq!(server.psql("alone", indexes).trim(), "3");
}

/// Header without the seven integers of the time, which differ between two dumps.
fn without_time(start: &[u8]) -> Vec<u8> {
    let names_algorithm = start[6] >= 15;
    let time = if names_algorithm { 12 } else { 16 };
    [&start[..time], &start[time + 7 * 5..]].concat()
}

fn positions_are_those_pg_dump_would_have_written(server: &Server, archive: &[u8]) {
    let path = server.path().join("seekable.dump");
    dump(server, "shop", &["-Z0", "--file", path.to_str().unwrap()]);
    let theirs = fs::read(&path).unwrap();
    let facts = scan(archive, 65_536);
    let length = usize::try_from(facts.toc.length()).unwrap();
    let mut start = archive[..length].to_vec();
    let blocks = facts.blocks.iter().map(|block| (block.dump_id, block.start));
    set_block_positions(&mut start, &facts.toc, blocks).unwrap();
    assert_eq!(without_time(&start), without_time(&theirs[..length]));
    assert_eq!(archive[length..], theirs[length..]);

    let located = scan(&theirs, 65_536);
    assert_eq!(located.blocks, facts.blocks);
    for block in &located.blocks {
        assert_eq!(located.toc.find(block.dump_id).unwrap().data, DataPosition::At(block.start));
    }

    server.create_database("parallel");
    fs::write(&path, [&start, &archive[length..]].concat()).unwrap();
    let mut restore = server.client("pg_restore");
    succeed(restore.args(["--exit-on-error", "--jobs=2", "--dbname=parallel"]).arg(&path), b"");
    assert_eq!(counts(server, "parallel", &facts.toc), counts(server, "shop", &facts.toc));
}

fn other_ways_of_dumping_are_recognised(server: &Server) {
    let mut ways = vec![("-Z6", Compression::Gzip)];
    // 16 knows them too, but not every build of it does.
    if server.major() >= 17 {
        ways.extend([("--compress=lz4", Compression::Lz4), ("--compress=zstd", Compression::Zstd)]);
    }
    for (option, compression) in ways {
        let compressed = scan(&dump(server, "shop", &[option]), 4096);
        assert_eq!(compressed.toc.header().compression, compression);
        assert!(compressed.blocks.iter().all(|block| block.rows.is_none()));
        assert_eq!((compressed.objects.count, compressed.objects.digest), (3, None));
    }

    if server.major() >= 18 {
        server.psql("shop", "ANALYZE");
        let facts = scan(&dump(server, "shop", &["-Z0", "--statistics"]), 4096);
        assert!(facts.toc.entries().iter().any(|entry| entry.desc == "STATISTICS DATA"));
        assert!(facts.blocks.iter().all(|block| block.rows.is_some() || block.objects.is_some()));
    }

    let by_root = scan(&dump(server, "shop", &["-Z0", "--load-via-partition-root"]), 4096);
    let partition = by_root.toc.find_table_data("public", "measured_1").unwrap();
    assert!(partition.copy_stmt.as_ref().unwrap().to_string().starts_with("COPY public.measured ("));
    assert_eq!(by_root.find_block(partition.dump_id).unwrap().rows.unwrap().rows, 10);

    let inserts = scan(&dump(server, "shop", &["-Z0", "--inserts"]), 4096);
    assert!(inserts.blocks.iter().all(|block| block.rows.is_none()));

    let schema = scan(&dump(server, "shop", &["-Z0", "--schema-only"]), 4096);
    assert!(schema.blocks.is_empty() && schema.toc.data_entries().next().is_none());

    let directory = server.path().join("directory");
    let mut command = server.client("pg_dump");
    succeed(command.args(["-Fd", "-Z0", "-j2", "shop", "--file"]).arg(&directory), b"");
    let toc = ArchiveToc::parse(&fs::read(directory.join("toc.dat")).unwrap()).unwrap();
    assert_eq!(toc.header().format, Format::Files);
    let custom = scan(&dump(server, "shop", &["-Z0"]), 4096);
    for entry in toc.data_entries().filter(|entry| entry.is_table_data()) {
        let DataPosition::File(name) = &entry.data else { panic!("{:?}", entry.data) };
        let mut rows = CopyRows::digesting();
        rows.push(&fs::read(directory.join(name.as_str().unwrap())).unwrap());
        let same = custom.find_block(entry.dump_id).unwrap();
        assert_eq!(same.rows, Some(rows.finish_block().unwrap()));
    }
}

fn names_in_another_encoding_are_kept(server: &Server) {
    server.psql("postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    server.psql("latin", "CREATE TABLE \"grün\" (a text); INSERT INTO \"grün\" VALUES ('ß')");
    let mut command = server.client("pg_dump");
    let archive = succeed(command.env_remove("PGCLIENTENCODING").args(["-Fc", "-Z0", "latin"]), b"");
    let facts = scan(&archive, 100);
    assert_eq!(facts.toc.encoding().as_deref(), Some("LATIN1"));
    let (_, name) = facts.toc.table_name(facts.blocks[0].dump_id).unwrap();
    assert_eq!((name.as_bytes(), name.as_str()), (&b"gr\xFCn"[..], None));
    assert_eq!(facts.blocks[0].rows, Some(row_facts(b"\xDF\n")));
    assert_eq!(server.psql("latin", &format!("SELECT a FROM {}", quote_ident("grün"))).trim(), "ß");
}
