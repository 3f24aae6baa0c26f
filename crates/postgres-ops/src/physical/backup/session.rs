//! The session that keeps a server in backup mode.
//!
//! PostgreSQL ends a backup whose session ends, so a backup that was killed leaves the server as it was: there is
//! nothing to clean up, and nothing that could be forgotten. The other side of it: a session that is lost takes the backup with
//! it, so it is watched, and kept from being closed by whoever closes idle connections.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{Executor as _, Row as _};

use super::error::BackupError;
use super::label::BackupLabel;
use crate::error::Error;
use crate::inspect::query_error;
use crate::server::Server;
use crate::wal::{Lsn, Timeline};

/// How often the session is used while files are copied.
const PULSE: Duration = Duration::from_secs(10);

/// The settings that could end a session in the middle of a backup; and one that ends a backend soon that waits for a
/// checkpoint while its client is gone.
const SETTINGS: &str = "set statement_timeout = 0; set lock_timeout = 0; set idle_session_timeout = 0;
     set client_connection_check_interval = '2s'";

/// The server's clock in microseconds since 1970.
const NOW: &str = "(extract(epoch from clock_timestamp()) * 1000000)::int8";

/// A server in backup mode. Dropped, the backup is given up and the server goes on.
#[derive(Debug)]
pub(super) struct BackupSession {
    connection: PgConnection,
    server: Server,
    major: u32,
    start: Lsn,
    started: Timestamp,
}

/// How a backup ended on the server.
#[derive(Clone, Debug)]
pub(super) struct Stopped {
    /// Where recovery begins to read, and when that was.
    pub(super) start: Lsn,
    pub(super) started: Timestamp,
    pub(super) stop: Lsn,
    /// On which timeline; that of the label unless a standby followed another meanwhile.
    pub(super) timeline: Timeline,
    pub(super) time: Timestamp,
    /// The moment whose state the files hold: on a standby the last commit that it had replayed.
    pub(super) state_of: Timestamp,
    pub(super) label: BackupLabel,
}

impl BackupSession {
    /// Puts the server into backup mode. With `fast` its checkpoint is done as fast as it can be.
    pub(super) async fn start(
        mut connection: PgConnection,
        server: &Server,
        major: u32,
        label: &str,
        fast: bool,
    ) -> Result<Self, Error> {
        connection.execute(SETTINGS).await.map_err(query_error(server, "prepare the session"))?;
        let call = if major >= 15 { "pg_backup_start($1, $2)" } else { "pg_start_backup($1, $2, false)" };
        let query = format!("select {NOW} as time, {call}::text as lsn");
        let started =
            sqlx::query(sqlx::AssertSqlSafe(query)).bind(label).bind(fast).fetch_one(&mut connection).await;
        let row = started.map_err(|source| refused(server, major, "start a backup", source))?;
        let start: String = row.get("lsn");
        let start = start.parse().map_err(|_| BackupError::Answer { what: "position", text: start })?;
        let started = time(row.get("time"))?;
        Ok(Self { connection, server: server.clone(), major, start, started })
    }

    /// Keeps the session alive for as long as it is polled; returns why the backup is over.
    pub(super) async fn watch(&mut self) -> Error {
        loop {
            tokio::time::sleep(PULSE).await;
            if let Err(source) = sqlx::query("select 1").execute(&mut self.connection).await {
                return BackupError::Session { source }.into();
            }
        }
    }

    /// Ends the backup on the server, and gives the session back.
    pub(super) async fn stop(mut self) -> Result<(Stopped, PgConnection), Error> {
        let call = if self.major >= 15 { "pg_backup_stop(false)" } else { "pg_stop_backup(false, false)" };
        let query = format!(
            "select s.lsn::text as lsn, s.labelfile as label, {NOW} as time,
                    (select min_recovery_end_timeline from pg_control_recovery())::int8 as timeline,
                    case when pg_is_in_recovery()
                         then (extract(epoch from pg_last_xact_replay_timestamp()) * 1000000)::int8 end as replayed
             from {call} s"
        );
        let stopped = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_one(&mut self.connection).await;
        let row = stopped.map_err(|source| refused(&self.server, self.major, "stop a backup", source))?;
        let (lsn, label): (String, String) = (row.get("lsn"), row.get("label"));
        let stop = lsn.parse().map_err(|_| BackupError::Answer { what: "position", text: lsn })?;
        let label = BackupLabel::parse(label).map_err(|text| BackupError::Answer { what: "label", text })?;
        let followed = row
            .get::<Option<i64>, _>("timeline")
            .and_then(|number| Timeline::new(u32::try_from(number).ok()?));
        let timeline = followed.filter(|timeline| *timeline > label.timeline).unwrap_or(label.timeline);
        let ended = time(row.get("time"))?;
        let replayed = row.get::<Option<i64>, _>("replayed").map(time).transpose()?;
        // A standby is behind its primary, and its clock says nothing about how far.
        let state_of = replayed.map_or(ended, |replayed| replayed.min(ended));
        let (start, started) = (self.start, self.started);
        Ok((Stopped { start, started, stop, timeline, time: ended, state_of, label }, self.connection))
    }
}

fn time(micros: i64) -> Result<Timestamp, BackupError> {
    let answer = |_| BackupError::Answer { what: "time", text: micros.to_string() };
    Timestamp::from_microsecond(micros).map_err(answer)
}

fn refused(server: &Server, major: u32, what: &'static str, source: sqlx::Error) -> Error {
    let code = source.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    match (code.as_str(), &source) {
        ("42501", _) => {
            let functions = if major >= 15 {
                "pg_backup_start(text, boolean), pg_backup_stop(boolean)"
            } else {
                "pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)"
            };
            let grant = format!("GRANT EXECUTE ON FUNCTION {functions} TO {}", server.user);
            BackupError::Denied { what, grant, source }.into()
        }
        // The only state of a standby that both calls refuse to go on from.
        ("55000", sqlx::Error::Database(error)) if error.message().contains("promoted") => {
            BackupError::Promoted { source }.into()
        }
        // No answer at all, or that of a backend that was told to end.
        ("", _) | ("57P01" | "57P02" | "57P03" | "57P05", _) => BackupError::Session { source }.into(),
        _ => query_error(server, what)(source),
    }
}
