//! Quoted names and patterns, held against a server, `pg_dump` and `pg_restore`.
#![allow(clippy::unwrap_used, missing_docs)]

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use backstay_postgres_ops::{
    ArchiveToc, dump_schema_pattern, dump_table_pattern, quote_ident, quote_literal, quote_qualified,
};
use backstay_testkit::PostgresInstall;
use support::{Server, dump, scan, succeed};

/// Names that break tools which build SQL or patterns by gluing.
const NASTY_NAMES: [&str; 12] = [
    "plain",
    "UPPER",
    "we\"ird",
    "\"",
    "two words",
    "line\nbreak; 7",
    "a$b^c",
    "star*?|(x)[y]{1}+",
    "dot.ted",
    "back\\slash\\",
    "-dash'quote",
    "Grüße 表 ñ",
];

#[test]
fn any_name_is_matched_exactly_and_alone() {
    let server = Server::start(&PostgresInstall::system().unwrap());
    server.create_database("names");
    create_nasty_tables(&server);
    literals_mean_what_they_say(&server);
    let everything = dump(&server, "names", &["-Z0"]);
    for name in NASTY_NAMES {
        a_table_pattern_dumps_one_table(&server, name);
        a_schema_pattern_dumps_one_schema(&server, name);
        pg_restore_takes_the_bare_name(&server, name, &everything);
    }
}

/// Every name as a schema with two tables: itself, and itself in capitals with a tail.
fn create_nasty_tables(server: &Server) {
    for name in NASTY_NAMES {
        let decoy = decoy(name);
        server.psql(
            "names",
            &format!(
                "CREATE SCHEMA {}; CREATE TABLE {} (a int); CREATE TABLE {} (a int); CREATE SCHEMA {};",
                quote_ident(name),
                quote_qualified(name, name),
                quote_qualified(name, &decoy),
                quote_ident(&decoy),
            ),
        );
    }
}

/// Differs from the name, but matches it as a sloppy pattern would.
fn decoy(name: &str) -> String {
    format!("{}x", name.to_uppercase())
}

fn tables(toc: &ArchiveToc) -> Vec<(String, String)> {
    let names = toc.entries().iter().filter_map(|entry| {
        let (schema, name) = toc.table_name(entry.dump_id).filter(|_| entry.is_table_data())?;
        Some((schema.to_string(), name.to_string()))
    });
    names.collect()
}

fn a_table_pattern_dumps_one_table(server: &Server, name: &str) {
    let option = format!("--table={}", dump_table_pattern(name, name));
    let facts = scan(&dump(server, "names", &["-Z0", &option]), 4096);
    assert_eq!(tables(&facts.toc), [(name.to_owned(), name.to_owned())]);
    let option = format!("--exclude-table={}", dump_table_pattern(name, name));
    let facts = scan(&dump(server, "names", &["-Z0", &option]), 4096);
    assert_eq!(facts.blocks.len(), 2 * NASTY_NAMES.len() - 1);
    assert!(facts.toc.find_table(name, name).is_none());
}

fn a_schema_pattern_dumps_one_schema(server: &Server, name: &str) {
    let option = format!("--schema={}", dump_schema_pattern(name));
    let facts = scan(&dump(server, "names", &["-Z0", "--strict-names", &option]), 4096);
    let mut found = tables(&facts.toc);
    found.sort();
    let mut expected = [name.to_owned(), decoy(name)].map(|table| (name.to_owned(), table));
    expected.sort();
    assert_eq!(found, expected);
}

fn pg_restore_takes_the_bare_name(server: &Server, name: &str, archive: &[u8]) {
    let mut command = server.client("pg_restore");
    command.args(["--file=-", &format!("--schema={name}"), &format!("--table={name}")]);
    let script = String::from_utf8(succeed(&mut command, archive)).unwrap();
    assert_eq!(script.matches("\nCREATE TABLE ").count(), 1, "{name:?}");
}

fn literals_mean_what_they_say(server: &Server) {
    for text in NASTY_NAMES.iter().copied().chain(["", "it''s", r"\n\\'", "\u{1F600}"]) {
        for setting in ["on", "off"] {
            let answer = server.psql(
                "names",
                &format!(
                    "SET escape_string_warning = off; SET standard_conforming_strings = {setting};
                     SELECT encode(convert_to({}, 'UTF8'), 'hex')",
                    quote_literal(text)
                ),
            );
            let expected: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(answer.trim(), expected, "{text:?}");
        }
    }
}
