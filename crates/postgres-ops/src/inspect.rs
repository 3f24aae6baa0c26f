//! Reads what must be known of a server and a database before and during a dump.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor, Row};

use crate::error::{ConnectError, Error};
use crate::facts::{DatabaseFacts, DatabaseSetting};
use crate::server::Server;
use crate::tools::OLDEST_SERVER;

/// Facts of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerFacts {
    /// `server_version_num`, as in 150018.
    pub version_num: u32,
    /// `server_version`, in the server's words.
    pub version: String,
    /// System identifier, empty when the role may not see it.
    pub system_identifier: String,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Whether the role is a superuser.
    pub superuser: bool,
}

impl ServerFacts {
    /// Major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }
}

/// Wraps a driver error with what was being done.
pub(crate) fn query_error(server: &Server, op: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    let database = server.database.clone();
    move |source| Error::Query { op, database, source }
}

/// Reads the server's facts.
///
/// # Errors
/// [`Error::Query`], and [`ConnectError::TooOld`] below PostgreSQL 14.
pub(crate) async fn server_facts(
    connection: &mut PgConnection,
    server: &Server,
) -> Result<ServerFacts, Error> {
    let row = sqlx::query(
        "select current_setting('server_version_num')::int4 as num, current_setting('server_version') as version,
                pg_is_in_recovery() as recovering,
                coalesce((select rolsuper from pg_roles where rolname = current_user), false) as superuser",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(query_error(server, "read the server version"))?;
    let version_num = u32::try_from(row.get::<i32, _>("num")).unwrap_or_default();
    if version_num / 10_000 < OLDEST_SERVER {
        return Err(ConnectError::TooOld { found: version_num / 10_000 }.into());
    }
    // The only fact a restricted role may be denied; a set is worth having without it.
    let identifier = sqlx::query("select system_identifier::text as id from pg_control_system()")
        .fetch_one(&mut *connection)
        .await
        .map(|row| row.get::<String, _>("id"))
        .unwrap_or_default();
    Ok(ServerFacts {
        version_num,
        version: row.get("version"),
        system_identifier: identifier,
        in_recovery: row.get("recovering"),
        superuser: row.get("superuser"),
    })
}

/// Names of the databases that accept connections, templates left out.
///
/// # Errors
/// [`Error::Query`].
pub async fn list_databases(connection: &mut PgConnection, server: &Server) -> Result<Vec<String>, Error> {
    let rows = sqlx::query(
        "select datname::text as name from pg_database where datallowconn and not datistemplate order by 1",
    )
    .fetch_all(connection)
    .await
    .map_err(query_error(server, "list databases"))?;
    Ok(rows.iter().map(|row| row.get("name")).collect())
}

/// Reads the properties of the database that the connection is in.
///
/// # Errors
/// [`Error::Query`].
pub(crate) async fn database_facts(
    connection: &mut PgConnection,
    server: &Server,
    major: u32,
) -> Result<DatabaseFacts, Error> {
    let row = connection
        .fetch_one(sqlx::AssertSqlSafe(database_query(major)))
        .await
        .map_err(query_error(server, "read the database's properties"))?;
    let mut facts = DatabaseFacts {
        name: row.get("name"),
        owner: row.get("owner"),
        encoding: row.get("encoding"),
        collate: row.get("collate"),
        ctype: row.get("ctype"),
        locale_provider: row.get("provider"),
        locale: row.get("locale"),
        collation_version: row.get("collation_version"),
        connection_limit: row.get("connection_limit"),
        comment: row.get("comment"),
        privileges: row.get("privileges"),
        size: u64::try_from(row.get::<i64, _>("size")).unwrap_or_default(),
        ..DatabaseFacts::default()
    };
    facts.settings = settings(connection, server).await?;
    facts.extensions = extensions(connection, server).await?;
    Ok(facts)
}

/// Privileges on a database `d`: none for the defaults; `=/owner` stands for a list from which everybody was struck.
pub(crate) const PRIVILEGES: &str =
    "case when d.datacl is null then '{}' else coalesce((select array_agg(a::text order by a::text) from unnest(d.datacl) a),
     array['=/' || quote_ident(pg_get_userbyid(d.datdba))]) end";

fn database_query(major: u32) -> String {
    // PostgreSQL 15 introduced providers per database, 17 renamed the locale column.
    let (provider, locale, version) = match major {
        ..=14 => ("'c'", "null::text", "null::text"),
        15..=16 => ("d.datlocprovider::text", "d.daticulocale", "d.datcollversion"),
        _ => ("d.datlocprovider::text", "d.datlocale", "d.datcollversion"),
    };
    format!(
        "select d.datname::text as name, pg_get_userbyid(d.datdba)::text as owner,
                pg_encoding_to_char(d.encoding)::text as encoding, d.datcollate::text as collate,
                d.datctype::text as ctype, {provider} as provider, {locale} as locale,
                {version} as collation_version, d.datconnlimit as connection_limit,
                shobj_description(d.oid, 'pg_database') as comment,
                {PRIVILEGES} as privileges,
                pg_database_size(d.oid)::int8 as size
         from pg_database d where d.datname = current_database()"
    )
}

async fn settings(connection: &mut PgConnection, server: &Server) -> Result<Vec<DatabaseSetting>, Error> {
    let rows = sqlx::query(
        "select coalesce(r.rolname::text, '') as role, split_part(c, '=', 1) as name,
                substr(c, strpos(c, '=') + 1) as value
         from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
              left join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) c
         where d.datname = current_database() order by 1, 2",
    )
    .fetch_all(connection)
    .await
    .map_err(query_error(server, "read the database's settings"))?;
    let setting = |row: &PgRow| DatabaseSetting {
        role: row.get("role"),
        name: row.get("name"),
        value: row.get("value"),
    };
    Ok(rows.iter().map(setting).collect())
}

async fn extensions(
    connection: &mut PgConnection,
    server: &Server,
) -> Result<BTreeMap<String, String>, Error> {
    let rows = sqlx::query("select extname::text as name, extversion as version from pg_extension")
        .fetch_all(connection)
        .await
        .map_err(query_error(server, "list extensions"))?;
    Ok(rows.iter().map(|row| (row.get("name"), row.get("version"))).collect())
}

/// Names of the schemas.
///
/// # Errors
/// [`Error::Query`].
pub(crate) async fn schemas(connection: &mut PgConnection, server: &Server) -> Result<Vec<String>, Error> {
    let rows = sqlx::query("select nspname::text as name from pg_namespace")
        .fetch_all(connection)
        .await
        .map_err(query_error(server, "list schemas"))?;
    Ok(rows.iter().map(|row| row.get("name")).collect())
}

/// A transaction whose view of the database other sessions can share.
#[derive(Debug)]
pub struct Snapshot {
    connection: PgConnection,
    /// Name for `pg_dump --snapshot`.
    pub name: String,
    /// When it was taken, by the server's clock.
    pub taken: Timestamp,
}

impl Snapshot {
    /// Takes a snapshot and keeps it until [`Snapshot::release`]; dropping it ends the session.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub async fn take(mut connection: PgConnection, server: &Server) -> Result<Self, Error> {
        let begin = "begin isolation level repeatable read, read only; set local statement_timeout = 0;
                     set local idle_in_transaction_session_timeout = 0";
        // A backend that waits for a lock looks whether its client is still there. Not every platform can.
        let _ = connection.execute("set client_connection_check_interval = 1000").await;
        connection.execute(begin).await.map_err(query_error(server, "begin the snapshot"))?;
        let row = sqlx::query(
            "select pg_export_snapshot() as name, (extract(epoch from now()) * 1000000)::int8 as taken",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(query_error(server, "export a snapshot"))?;
        let taken = Timestamp::from_microsecond(row.get("taken")).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(Self { connection, name: row.get("name"), taken })
    }

    /// The session, for queries of the same moment.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Limits how long each query of the session waits for locks; zero waits for ever.
    pub(crate) async fn limit_lock_waits(&mut self, limit: Duration, server: &Server) -> Result<(), Error> {
        let statement = format!("set local lock_timeout = {}", limit.as_millis().min(i32::MAX as u128));
        let set = self.connection.execute(sqlx::AssertSqlSafe(statement)).await;
        set.map(drop).map_err(query_error(server, "limit lock waits"))
    }

    /// Ends the transaction, which a failed query would have left unusable; the session stays.
    pub(crate) async fn roll_back(&mut self) {
        if let Err(error) = self.connection.execute("rollback").await {
            tracing::debug!(%error, "the snapshot's transaction did not end cleanly");
        }
    }

    /// Ends the session. Needed only for a clean farewell.
    pub async fn release(self) {
        use sqlx::Connection;
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "the snapshot session did not close cleanly");
        }
    }
}
