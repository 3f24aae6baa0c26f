//! The configuration files of a restored cluster: what is added, and what of the source's would stop it here.
//!
//! Distributions such as Debian keep `postgresql.conf` and `pg_hba.conf` outside of the data directory, so a backup of the
//! cluster does not have them. A server cannot start without; minimal ones are made, with the settings in which a
//! recovering server must not be below its source.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::ClusterRestoreError;
use super::needs::ServerNeeds;
use super::roots::Roots;
use super::settings::{RecoverySettings, auto_conf, find_setting, without_setting};
use crate::physical::ClusterPath;

const MAIN: &str = "postgresql.conf";
const AUTO: &str = "postgresql.auto.conf";
const ACCESS: &str = "pg_hba.conf";
/// Only the account of the server itself.
const MINIMAL_ACCESS: &str =
    "# Made by a restore: the source keeps its own outside of the data directory.\nlocal all all peer\n";

/// Where files are changed.
pub(super) struct Change<'a> {
    pub(super) roots: &'a Roots,
    pub(super) data: &'a Path,
    pub(super) major: u32,
    pub(super) needs: &'a ServerNeeds,
}

impl Change<'_> {
    /// Writes all of them; gives notes on what differs from the source.
    pub(super) fn make(
        &self,
        recovery: &RecoverySettings,
        manifest: Option<&[u8]>,
    ) -> Result<Vec<String>, ClusterRestoreError> {
        let mut notes = Vec::new();
        if let Some(manifest) = manifest {
            self.write("backup_manifest", manifest)?;
        }
        let main = match self.read(MAIN)? {
            Some(main) => self.check_main(main, &mut notes)?,
            None => {
                notes.push(format!(
                    "the set has no {MAIN}: a minimal one was written; put the source's own in its place"
                ));
                let main = self.minimal();
                self.write(MAIN, main.as_bytes())?;
                main
            }
        };
        if self.read(ACCESS)?.is_none() {
            notes.push(format!(
                "the set has no {ACCESS}: only the server's own account can connect until the source's is in its place"
            ));
            self.write(ACCESS, MINIMAL_ACCESS.as_bytes())?;
        }
        let auto = self.read(AUTO)?.unwrap_or_default();
        let further = self.missing_files(&main, &auto, &mut notes);
        if find_setting(&main, "synchronous_standby_names")
            .or(find_setting(&auto, "synchronous_standby_names"))
            .is_some_and(|names| !names.is_empty())
        {
            notes.push(
                "synchronous_standby_names is empty now: commits would wait for standbys of the source"
                    .to_owned(),
            );
        }
        let auto = auto_conf(&auto, recovery, &further, self.major);
        self.write(AUTO, auto.as_bytes())?;
        self.write(recovery.signal(), b"")?;
        Ok(notes)
    }

    /// Another `data_directory` would make the server open the source's files instead of these.
    fn check_main(&self, main: String, notes: &mut Vec<String>) -> Result<String, ClusterRestoreError> {
        let elsewhere = find_setting(&main, "data_directory").filter(|it| Path::new(it) != self.data);
        let Some(elsewhere) = elsewhere else { return Ok(main) };
        notes.push(format!("{MAIN} named the data directory {elsewhere}; that line is a comment now"));
        let main = without_setting(&main, "data_directory");
        self.write(MAIN, main.as_bytes())?;
        Ok(main)
    }

    fn minimal(&self) -> String {
        let needs = self.needs;
        format!(
            "# Made by a restore: the source keeps its own outside of the data directory.\n\
             # A recovering server must not be below its source in these.\n\
             max_connections = {}\nmax_worker_processes = {}\nmax_wal_senders = {}\n\
             max_prepared_transactions = {}\nmax_locks_per_transaction = {}\n",
            needs.max_connections,
            needs.max_worker_processes,
            needs.max_wal_senders,
            needs.max_prepared_transactions,
            needs.max_locks_per_transaction
        )
    }

    /// Settings in the place of those that name files which this machine does not have.
    fn missing_files(&self, main: &str, auto: &str, notes: &mut Vec<String>) -> Vec<(&'static str, String)> {
        let setting = |name: &str| find_setting(auto, name).or_else(|| find_setting(main, name));
        let is_missing = |value: &str| !value.is_empty() && !self.path(value).exists();
        let mut further = Vec::new();
        for (name, inside) in [("hba_file", ACCESS), ("ident_file", "pg_ident.conf")] {
            if let Some(value) = setting(name).filter(|value| is_missing(value)) {
                notes.push(format!("{name} = {value} is not there: {inside} of the data directory is used"));
                further.push((name, inside.to_owned()));
            }
        }
        let is_on =
            setting("ssl").is_some_and(|it| matches!(&*it.to_ascii_lowercase(), "on" | "true" | "yes" | "1"));
        let certificate = setting("ssl_cert_file").unwrap_or_else(|| "server.crt".to_owned());
        let key = setting("ssl_key_file").unwrap_or_else(|| "server.key".to_owned());
        if is_on && (is_missing(&certificate) || is_missing(&key)) {
            notes.push(format!("ssl is off: {certificate} or {key} is not there"));
            further.push(("ssl", "off".to_owned()));
        }
        if setting("external_pid_file").is_some_and(|it| !it.is_empty()) {
            notes.push("external_pid_file is empty now: it is the source's".to_owned());
            further.push(("external_pid_file", String::new()));
        }
        further
    }

    fn path(&self, value: &str) -> PathBuf {
        self.data.join(value)
    }

    fn read(&self, name: &str) -> Result<Option<String>, ClusterRestoreError> {
        let path = self.path(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ClusterRestoreError::io("read", &path)(error)),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), ClusterRestoreError> {
        let path = ClusterPath::parse(name).expect("it is a path");
        let mut file = self.roots.open_to_change(&path, 0o600)?;
        let written = file.set_len(0).and_then(|()| file.write_all(content));
        written.map_err(ClusterRestoreError::io("write", &self.path(name)))
    }
}
