//! Finds what would stop a restore half-way, before anything is written.

use std::collections::BTreeSet;
use std::time::Duration;

use backstay_backup_core::manifest::Manifest;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use super::RestoreOptions;
use crate::archive::TocEntry;
use crate::error::Error;
use crate::inspect::query_error;
use crate::server::Server;

/// Sessions that are just ending get this many looks …
const LOOKS: u32 = 20;
/// … with this pause between them; PostgreSQL itself is as patient before it renames a database.
const PAUSE: Duration = Duration::from_millis(100);
/// Most names in one message.
const MOST_NAMED: usize = 3;

/// Kinds of entries that make a relation.
const RELATIONS: [&str; 5] = ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"];

/// A part of a set never takes the place of a whole database.
///
/// # Errors
/// [`Error::Unsuitable`].
pub(super) fn refuse_a_part_for_the_whole(
    manifest: &Manifest,
    options: &RestoreOptions,
    database: &str,
) -> Result<(), Error> {
    if options.is_whole() || !options.replace {
        return Ok(());
    }
    Err(Error::Unsuitable {
        set: manifest.set.to_string(),
        problem: format!("would replace database {database} by a part of it"),
        remedy: Some(
            "without --replace the tables go into the database as it is; with --target-database into one of their own",
        ),
    })
}

/// A database that somebody uses cannot be renamed.
///
/// # Errors
/// [`Error::Target`], [`Error::Query`].
pub(super) async fn refuse_users(
    admin: &mut PgConnection,
    server: &Server,
    database: &str,
) -> Result<(), Error> {
    let mut sessions = 0;
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let row = sqlx::query(
            "select count(*)::int8 as n from pg_stat_activity
             where datname = $1 and application_name is distinct from $2
                   and backend_type is distinct from 'autovacuum worker'",
        )
        .bind(database)
        .bind(&server.session_name)
        .fetch_one(&mut *admin)
        .await
        .map_err(query_error(server, "look for sessions in the target"))?;
        sessions = row.get::<i64, _>("n");
        if sessions == 0 {
            return Ok(());
        }
    }
    let noun = if sessions == 1 { "session" } else { "sessions" };
    Err(Error::Target {
        database: database.to_owned(),
        problem: format!("is in use by {sessions} {noun}"),
        remedy: "end them, or let --disconnect end them when the restored database takes its place",
    })
}

/// Objects that lie in a tablespace need it on the target.
///
/// # Errors
/// [`Error::Unsuitable`], [`Error::Query`].
pub(super) async fn refuse_missing_tablespaces(
    admin: &mut PgConnection,
    server: &Server,
    manifest: &Manifest,
    wanted: &[&TocEntry],
) -> Result<(), Error> {
    let needed: BTreeSet<String> = wanted
        .iter()
        .filter_map(|entry| entry.tablespace.as_ref())
        .map(|name| name.to_str_lossy().into_owned())
        .filter(|name| !name.is_empty())
        .collect();
    if needed.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query("select spcname::text as name from pg_tablespace")
        .fetch_all(admin)
        .await
        .map_err(query_error(server, "list tablespaces"))?;
    let present: BTreeSet<String> = rows.iter().map(|row| row.get("name")).collect();
    let missing: Vec<String> = needed.difference(&present).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let noun = if missing.len() == 1 { "tablespace" } else { "tablespaces" };
    let problem = format!("needs {noun} {}, which {} does not have", named(missing), server.address());
    let remedy = Some("create it there, or put everything into the default tablespace with --no-tablespaces");
    Err(Error::Unsuitable { set: manifest.set.to_string(), problem, remedy })
}

/// What is restored into a living database must not be there.
///
/// # Errors
/// [`Error::Target`], [`Error::Query`], or a connection error.
pub(super) async fn refuse_existing(target: &Server, wanted: &[&TocEntry]) -> Result<(), Error> {
    let (mut schemas, mut names) = (Vec::new(), Vec::new());
    for entry in wanted.iter().filter(|entry| RELATIONS.iter().any(|kind| entry.desc == *kind)) {
        let Some(schema) = &entry.namespace else { continue };
        schemas.push(schema.to_str_lossy().into_owned());
        names.push(entry.tag.to_str_lossy().into_owned());
    }
    let whole =
        wanted.iter().filter(|entry| entry.desc == "SCHEMA" && entry.defn.as_bytes().starts_with(b"CREATE"));
    let whole: Vec<String> = whole.map(|entry| entry.tag.to_str_lossy().into_owned()).collect();
    let mut connection = target.connect().await?;
    let rows = sqlx::query(
        "select 'schema ' || nspname as name, 0 as kind from pg_namespace where nspname = any($3)
         union all
         select 'table ' || n.nspname || '.' || c.relname, 1
         from unnest($1::text[], $2::text[]) wanted(schema, name)
              join pg_namespace n on n.nspname = wanted.schema
              join pg_class c on c.relnamespace = n.oid and c.relname = wanted.name
         order by kind, name",
    )
    .bind(&schemas)
    .bind(&names)
    .bind(&whole)
    .fetch_all(&mut connection)
    .await
    .map_err(query_error(target, "look for what is there already"))?;
    let _ = connection.close().await;
    if rows.is_empty() {
        return Ok(());
    }
    let there = named(rows.iter().map(|row| row.get("name")).collect());
    Err(Error::Target {
        database: target.database.clone(),
        problem: format!("has {there} already"),
        remedy: "rename or drop it first, or restore into a database of its own with --target-database",
    })
}

/// The first names, and how many more there are.
fn named(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    names.truncate(MOST_NAMED);
    let first = names.join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect();
        assert_eq!(named(names(2)), "0, 1");
        assert_eq!(named(names(5)), "0, 1, 2 and 2 more");
    }
}
