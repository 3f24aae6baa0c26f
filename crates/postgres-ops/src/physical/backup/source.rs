//! What must be known of a server before it is backed up, and whether it can be.

use std::path::{Path, PathBuf};

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::BackupOptions;
use super::error::BackupError;
use crate::error::Error;
use crate::inspect::{self, ServerFacts, query_error};
use crate::physical::Tablespace;
use crate::physical::control::{CONTROL_FILE, ControlError, ControlFile};
use crate::server::Server;

/// How often `pg_control` is read until its checksum is right, and how long after one another.
const CONTROL_TRIES: u32 = 10;
const CONTROL_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// How far the start of the server as it tells it may be from that in its `postmaster.pid`, in seconds.
const START_SLACK: i64 = 60;

/// A server that can be backed up.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) facts: ServerFacts,
    pub(super) control: ControlFile,
    pub(super) data_directory: PathBuf,
    /// Without their bytes.
    pub(super) tablespaces: Vec<Tablespace>,
    /// What deserves a word before hours are spent.
    pub(super) warnings: Vec<String>,
}

impl Source {
    pub(super) async fn inspect(
        connection: &mut PgConnection,
        server: &Server,
        options: &BackupOptions,
    ) -> Result<Self, Error> {
        let facts = inspect::server_facts(connection, server).await?;
        let settings = settings(connection, server).await?;
        let mut warnings = Vec::new();
        if !facts.in_recovery {
            settings.check_archiving()?;
            warnings.extend(archiver_trouble(connection, server).await?);
        }
        let data_directory = match (&options.data_directory, settings.data_directory) {
            (Some(given), _) => given.clone(),
            (None, Some(told)) => PathBuf::from(told),
            (None, None) => {
                return Err(BackupError::NotReady {
                    problem: "the role may not see where the data directory is".to_owned(),
                    remedy: format!("GRANT pg_read_all_settings TO {}; or --data-directory", server.user),
                }
                .into());
            }
        };
        let (directory, started, port) = (data_directory.clone(), settings.started, settings.port);
        let system = facts.system_identifier.clone();
        let looking = tokio::task::spawn_blocking(move || look(&directory, &system, started, port));
        let control = looking.await.map_err(|error| crate::client::lost_thread("the reader", &error))??;
        let tablespaces = tablespaces(connection, server).await?;
        Ok(Self { facts, control, data_directory, tablespaces, warnings })
    }
}

struct Settings {
    data_directory: Option<String>,
    wal_level: String,
    archive_mode: String,
    has_archiver: bool,
    port: i64,
    started: i64,
}

async fn settings(connection: &mut PgConnection, server: &Server) -> Result<Settings, Error> {
    let row = sqlx::query(
        "select (select setting from pg_settings where name = 'data_directory') as data_directory,
                current_setting('wal_level') as wal_level, current_setting('archive_mode') as archive_mode,
                coalesce(current_setting('archive_command', true), '') not in ('', '(disabled)')
                    or coalesce(current_setting('archive_library', true), '') <> '' as has_archiver,
                current_setting('port')::int8 as port,
                extract(epoch from pg_postmaster_start_time())::int8 as started",
    )
    .fetch_one(connection)
    .await
    .map_err(query_error(server, "read the server's settings"))?;
    Ok(Settings {
        data_directory: row.get("data_directory"),
        wal_level: row.get("wal_level"),
        archive_mode: row.get("archive_mode"),
        has_archiver: row.get("has_archiver"),
        port: row.get("port"),
        started: row.get("started"),
    })
}

impl Settings {
    /// A base backup without the WAL of its own time is worth nothing.
    fn check_archiving(&self) -> Result<(), BackupError> {
        let not_ready = |problem: &str, remedy: &str| {
            Err(BackupError::NotReady { problem: problem.to_owned(), remedy: remedy.to_owned() })
        };
        if self.wal_level == "minimal" {
            return not_ready(
                "wal_level is minimal, which is not enough to recover from",
                "set wal_level = replica and restart the server",
            );
        }
        if self.archive_mode == "off" {
            return not_ready(
                "archive_mode is off: the WAL that a base backup needs would never be archived",
                "set archive_mode = on and archive_command = 'archive-wal %p', and restart the server",
            );
        }
        if !self.has_archiver {
            return not_ready(
                "archive_command is empty: the WAL that a base backup needs would never be archived",
                "set archive_command = 'archive-wal %p' and reload the server",
            );
        }
        Ok(())
    }
}

/// What the archiver last failed at, when it has not succeeded since.
pub(super) async fn archiver_trouble(
    connection: &mut PgConnection,
    server: &Server,
) -> Result<Option<String>, Error> {
    let row = sqlx::query(
        "select last_failed_wal::text as wal, last_failed_time::timestamptz(0)::text as time, failed_count as count
         from pg_stat_archiver
         where last_failed_time is not null and last_failed_time > coalesce(last_archived_time, '-infinity')",
    )
    .fetch_optional(connection)
    .await
    .map_err(query_error(server, "read the archiver's statistics"))?;
    Ok(row.map(|row| {
        let (wal, time): (String, String) = (row.get("wal"), row.get("time"));
        format!(
            "the server's archiver fails, last at {wal} on {time}, {} times in all",
            row.get::<i64, _>("count")
        )
    }))
}

async fn tablespaces(connection: &mut PgConnection, server: &Server) -> Result<Vec<Tablespace>, Error> {
    let rows = sqlx::query(
        "select oid::int8 as oid, spcname::text as name, pg_tablespace_location(oid) as location
         from pg_tablespace where pg_tablespace_location(oid) <> '' order by oid",
    )
    .fetch_all(connection)
    .await
    .map_err(query_error(server, "read the tablespaces"))?;
    let tablespace = |row: &PgRow| Tablespace {
        oid: u32::try_from(row.get::<i64, _>("oid")).unwrap_or_default(),
        name: row.get("name"),
        location: row.get("location"),
        bytes: 0,
    };
    Ok(rows.iter().map(tablespace).collect())
}

/// Whether the directory is that of the running server: its identity, and the process that uses it.
fn look(directory: &Path, system: &str, started: i64, port: i64) -> Result<ControlFile, BackupError> {
    let (_, control) = read_control(directory)?;
    let wrong = |problem: String| BackupError::WrongDirectory { directory: directory.to_owned(), problem };
    if !system.is_empty() && control.system.to_string() != system {
        return Err(wrong(format!("it is of cluster {}, the server of {system}", control.system)));
    }
    // A clone of the cluster has the same identity, but not the same process.
    let path = directory.join("postmaster.pid");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(wrong("no server runs in it".to_owned()));
        }
        Err(source) => return Err(BackupError::Read { path, source }),
    };
    let line = |number: usize| text.lines().nth(number).and_then(|line| line.trim().parse::<i64>().ok());
    let is_other = line(3).is_some_and(|found| found != port)
        || line(2).is_some_and(|found| found.abs_diff(started) > START_SLACK.unsigned_abs());
    if is_other {
        return Err(wrong("another server runs in it".to_owned()));
    }
    Ok(control)
}

/// Reads `pg_control`, again and again while the server writes it. Blocks.
///
/// The content is cut to the length that the file has on every server.
pub(super) fn read_control(directory: &Path) -> Result<(Vec<u8>, ControlFile), BackupError> {
    let path = directory.join(CONTROL_FILE);
    let mut tries = 0;
    loop {
        let bytes =
            std::fs::read(&path).map_err(|source| BackupError::Read { path: path.clone(), source })?;
        tries += 1;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((bytes, control)),
            Err(ControlError::Checksum) if tries < CONTROL_TRIES => std::thread::sleep(CONTROL_PAUSE),
            Err(source) => return Err(BackupError::Control { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(bit: u8) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        let fields = [(8, 1300), (16, 6), (48, 1), (216, 8192_u32), (220, 131_072), (228, 16 << 20)];
        for (at, value) in fields {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&crc.to_le_bytes());
        bytes[0] ^= bit;
        bytes
    }

    #[test]
    fn a_control_file_that_is_being_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONTROL_FILE);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, control(1)).unwrap();
        let torn = read_control(folder.path()).unwrap_err();
        assert!(matches!(torn, BackupError::Control { source: ControlError::Checksum, .. }), "{torn:?}");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(CONTROL_PAUSE * 3);
                std::fs::write(&path, control(0)).unwrap();
            });
            assert_eq!(read_control(folder.path()).unwrap().0, control(0));
        });
    }
}
