//! Gathers [`Evidence`]: from the tables of contents of a dump, and from a live database.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::future::try_join_all;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::archive::{ArchiveToc, CopyRows, Section, TocEntry};
use crate::error::Error;
use crate::facts::{DefinitionFacts, LargeObjectTotals, SequenceFacts, TableFacts};
use crate::ident::{quote_literal, quote_qualified};
use crate::inspect::query_error;
use crate::server::Server;

/// Definitions of a dump by kind. Pure.
///
/// Left out: data, large objects, and what speaks of the database as a whole, because its name differs after a
/// restore; settings of the database are compared on their own.
#[must_use]
pub(crate) fn definitions(toc: &ArchiveToc) -> BTreeMap<String, DefinitionFacts> {
    definitions_of(toc, |_| true)
}

/// The same of some of its entries. Pure.
pub(crate) fn definitions_of(
    toc: &ArchiveToc,
    wanted: impl Fn(&TocEntry) -> bool,
) -> BTreeMap<String, DefinitionFacts> {
    let mut sums: BTreeMap<String, (u64, u128)> = BTreeMap::new();
    for entry in toc.entries().iter().filter(|entry| is_definition(entry) && wanted(entry)) {
        let sum = sums.entry(entry.desc.to_str_lossy().into_owned()).or_default();
        sum.0 += 1;
        sum.1 = sum.1.wrapping_add(fingerprint(entry));
    }
    let facts = |(count, sum)| DefinitionFacts { count, digest: format!("{sum:032x}") };
    sums.into_iter().map(|(kind, sum)| (kind, facts(sum))).collect()
}

fn is_definition(entry: &TocEntry) -> bool {
    let desc = entry.desc.to_str_lossy();
    let header = ["ENCODING", "STDSTRINGS", "SEARCHPATH", "SEQUENCE SET", "BLOBS"].contains(&&*desc);
    let of_whole = |text: &str| text.starts_with("DATABASE") || text.starts_with("LARGE OBJECT");
    !(header
        || entry.section == Section::Data
        || desc.ends_with(" DATA")
        || desc.starts_with("BLOB")
        || creates_public(entry)
        || describes_public(entry)
        || of_whole(&desc)
        || of_whole(&entry.tag.to_str_lossy()))
}

/// `pg_dump` tells how to make the schema `public` only to whoever names it, so two dumps of one database differ.
pub(crate) fn creates_public(entry: &TocEntry) -> bool {
    entry.desc == "SCHEMA" && entry.tag == "public" && entry.defn.as_bytes().starts_with(b"CREATE")
}

/// The comment that every new database has on that schema; told and left out in the same way.
fn describes_public(entry: &TocEntry) -> bool {
    entry.desc == "COMMENT"
        && entry.defn.as_bytes().starts_with(b"COMMENT ON SCHEMA public IS 'standard public ")
}

fn fingerprint(entry: &TocEntry) -> u128 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let namespace = entry.namespace.as_ref().map_or(&b""[..], |text| text.as_bytes());
    for part in [namespace, entry.tag.as_bytes(), entry.owner.as_bytes(), entry.defn.as_bytes()] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.digest128()
}

/// Positions of sequences, as the dump will set them. Pure.
#[must_use]
pub(crate) fn sequences(toc: &ArchiveToc) -> Vec<SequenceFacts> {
    let entries = toc.entries().iter().filter(|entry| entry.desc == "SEQUENCE SET");
    entries.filter_map(sequence_position).collect()
}

/// Reads `SELECT pg_catalog.setval('…', 42, true);`.
fn sequence_position(entry: &TocEntry) -> Option<SequenceFacts> {
    let statement = entry.defn.to_str_lossy();
    let arguments = statement.rsplit_once("', ")?.1;
    let (value, called) = arguments.split_once(", ")?;
    Some(SequenceFacts {
        schema: entry.namespace.as_ref()?.to_str_lossy().into_owned(),
        name: entry.tag.to_str_lossy().into_owned(),
        last_value: value.parse().ok()?,
        is_called: called.starts_with("true"),
    })
}

/// Sets the output format that `pg_dump` uses, so that COPY texts of two servers can be compared.
const DUMP_FORMAT: &str =
    "set timezone = 'UTC'; set datestyle = iso; set intervalstyle = postgres; set extra_float_digits = 3;
    set synchronize_seqscans = off; set statement_timeout = 0; set row_security = off;
    set search_path = ''; set bytea_output = hex; set quote_all_identifiers = off";

/// Counts (and digests, where a digest is recorded) the rows of the same tables in a live database. `encoding` is
/// that of the dump's text.
///
/// # Errors
/// [`Error::Query`] or a connection error. A table that does not exist is left out of the answer.
pub(crate) async fn live_tables(
    server: &Server,
    recorded: &[TableFacts],
    encoding: &str,
    jobs: usize,
) -> Result<Vec<TableFacts>, Error> {
    let jobs = jobs.clamp(1, recorded.len().max(1));
    // Largest first, dealt round robin, so that the sessions end at about the same time.
    let mut order: Vec<&TableFacts> = recorded.iter().collect();
    order.sort_by_key(|table| std::cmp::Reverse(table.bytes));
    let hand = |number: usize| order.iter().copied().skip(number).step_by(jobs).collect();
    let hands: Vec<_> = (0..jobs).map(|number| count_hand(server, hand(number), encoding)).collect();
    let answers = try_join_all(hands).await?;
    Ok(answers.into_iter().flatten().collect())
}

async fn count_hand(
    server: &Server,
    tables: Vec<&TableFacts>,
    encoding: &str,
) -> Result<Vec<TableFacts>, Error> {
    let mut connection = server.connect().await?;
    connection.execute(DUMP_FORMAT).await.map_err(query_error(server, "prepare the comparison"))?;
    let mut found = Vec::with_capacity(tables.len());
    for table in tables {
        found.extend(live_table(&mut connection, server, table, encoding).await?);
    }
    let _ = connection.close().await;
    Ok(found)
}

async fn live_table(
    connection: &mut PgConnection,
    server: &Server,
    recorded: &TableFacts,
    encoding: &str,
) -> Result<Option<TableFacts>, Error> {
    let name = quote_qualified(&recorded.schema, &recorded.name);
    let outcome = match &recorded.digest {
        None => count_rows(connection, &name, recorded.partitioned).await,
        Some(_) => digest_rows(connection, &copy_source(&name, recorded), encoding).await,
    };
    match outcome {
        Ok((rows, digest)) => Ok(Some(TableFacts { rows, digest, ..recorded.clone() })),
        Err(error) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some("42P01") => {
            Ok(None)
        }
        Err(error) => Err(query_error(server, "count rows")(error)),
    }
}

async fn count_rows(
    connection: &mut PgConnection,
    name: &str,
    partitioned: bool,
) -> Result<(u64, Option<String>), sqlx::Error> {
    let only = if partitioned { "" } else { "only" };
    let row =
        connection.fetch_one(AssertSqlSafe(format!("select count(*) as rows from {only} {name}"))).await?;
    Ok((u64::try_from(row.get::<i64, _>("rows")).unwrap_or_default(), None))
}

/// What COPY reads; it does not read partitioned tables by name.
fn copy_source(name: &str, table: &TableFacts) -> String {
    let columns = table.columns.trim_start_matches('(').trim_end_matches(')');
    if table.partitioned {
        format!("(select {columns} from {name})")
    } else {
        format!("{name} {}", table.columns)
    }
}

async fn digest_rows(
    connection: &mut PgConnection,
    source: &str,
    encoding: &str,
) -> Result<(u64, Option<String>), sqlx::Error> {
    let encoding = quote_literal(encoding);
    let statement = format!("copy {source} to stdout with (encoding {encoding})");
    let mut text = connection.copy_out_raw(&statement).await?;
    let mut rows = CopyRows::digesting();
    while let Some(piece) = text.next().await {
        rows.push(&piece?);
    }
    let facts = rows.finish().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok((facts.rows, facts.digest.map(|digest| digest.to_string())))
}

/// Positions of the same sequences in a live database.
///
/// # Errors
/// [`Error::Query`].
pub(crate) async fn live_sequences(
    connection: &mut PgConnection,
    server: &Server,
    recorded: &[SequenceFacts],
) -> Result<Vec<SequenceFacts>, Error> {
    let mut found = Vec::with_capacity(recorded.len());
    for sequence in recorded {
        let name = quote_qualified(&sequence.schema, &sequence.name);
        let query = AssertSqlSafe(format!("select last_value, is_called from {name}"));
        match connection.fetch_one(query).await {
            Ok(row) => found.push(SequenceFacts {
                last_value: row.get("last_value"),
                is_called: row.get("is_called"),
                ..sequence.clone()
            }),
            Err(error) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some("42P01") => {}
            Err(error) => return Err(query_error(server, "read a sequence")(error)),
        }
    }
    Ok(found)
}

/// Large objects of a live database; `None` when the role may not read their length.
///
/// # Errors
/// [`Error::Query`].
pub(crate) async fn live_large_objects(
    connection: &mut PgConnection,
    server: &Server,
) -> Result<Option<LargeObjectTotals>, Error> {
    let query = "select (select count(*) from pg_largeobject_metadata) as count,
                        coalesce(sum(octet_length(data)), 0)::int8 as bytes from pg_largeobject";
    match connection.fetch_one(query).await {
        Ok(row) => Ok(Some(LargeObjectTotals {
            count: u64::try_from(row.get::<i64, _>("count")).unwrap_or_default(),
            bytes: u64::try_from(row.get::<i64, _>("bytes")).unwrap_or_default(),
        })),
        Err(error) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some("42501") => {
            Ok(None)
        }
        Err(error) => Err(query_error(server, "count large objects")(error)),
    }
}
