use serde::Serialize;

use super::BackupOptions;
use super::run::inspect;
use super::source::Source;
use crate::error::Error;
use crate::physical::scan::Scan;
use crate::server::Server;

/// What a backup of a cluster would read.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ClusterBackupPlan {
    /// Host and port.
    pub server: String,
    /// Version of the server.
    pub server_version: String,
    /// Identity of the cluster.
    pub system_identifier: String,
    /// Where its data directory is.
    pub data_directory: String,
    /// Whether it is a standby.
    pub from_standby: bool,
    /// Whether pages carry checksums, which are checked unless the options say otherwise.
    pub page_checksums: bool,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of unlogged relations, which are left out.
    pub unlogged_files: u64,
    /// Tablespaces outside the data directory: oid, name, where they are, bytes.
    pub tablespaces: Vec<(u32, String, String, u64)>,
    /// What deserves a word.
    pub warnings: Vec<String>,
}

/// Looks at the server and its data directory, and says what a backup would read. Reads no file but `pg_control`, and
/// leaves the server as it is.
///
/// # Errors
/// Everything that would stop the backup before its first byte.
pub async fn plan_cluster_backup(
    server: &Server,
    options: &BackupOptions,
) -> Result<ClusterBackupPlan, Error> {
    let (source, _) = inspect(server, options).await?;
    let scan = source.scan().await?;
    let tablespaces = source.tablespaces(&scan);
    let rows = tablespaces.into_iter().map(|space| (space.oid, space.name, space.location, space.bytes));
    let mut warnings = source.warnings.clone();
    warnings.extend(source.remarks(&scan, options));
    Ok(ClusterBackupPlan {
        server: server.address(),
        server_version: source.facts.version.clone(),
        system_identifier: source.control.system.to_string(),
        data_directory: source.data_directory.display().to_string(),
        from_standby: source.facts.in_recovery,
        page_checksums: source.control.checksum_version != 0,
        files: scan.len() as u64,
        bytes: scan.bytes,
        unlogged_files: scan.unlogged,
        tablespaces: rows.collect(),
        warnings,
    })
}

/// Looks whether a server can be backed up, and says nothing when it can.
///
/// # Errors
/// Everything that would stop the backup before its first byte.
pub async fn check_cluster(server: &Server, options: &BackupOptions) -> Result<(), Error> {
    inspect(server, options).await.map(drop)
}

impl Source {
    /// Lists the files of the cluster.
    pub(super) async fn scan(&self) -> Result<Scan, Error> {
        let (directory, major) = (self.data_directory.clone(), self.facts.major());
        let catalog_version = self.control.catalog_version;
        super::run::blocking(move || Ok(Scan::read(&directory, major, catalog_version)?)).await
    }

    /// The tablespaces that were found, with the names that the server has for them.
    pub(super) fn tablespaces(&self, scan: &Scan) -> Vec<crate::physical::Tablespace> {
        let named = |oid: u32| self.tablespaces.iter().find(|tablespace| tablespace.oid == oid);
        let found = scan.tablespaces.iter().map(|(oid, location)| crate::physical::Tablespace {
            oid: *oid,
            name: named(*oid).map_or_else(String::new, |tablespace| tablespace.name.clone()),
            location: location.display().to_string(),
            bytes: scan.bytes_below(&format!("pg_tblspc/{oid}/")),
        });
        let mut all: Vec<_> = found.collect();
        all.sort_by_key(|tablespace| tablespace.oid);
        all
    }

    /// What deserves a word about the files.
    pub(super) fn remarks(&self, scan: &Scan, options: &BackupOptions) -> Vec<String> {
        let strange = scan.strange.iter();
        let mut remarks: Vec<_> =
            strange.map(|path| format!("{path} is a link or a special file and is left out")).collect();
        if options.check_pages && self.control.checksum_version == 0 {
            remarks.push("the cluster has no page checksums, so damaged pages are not noticed".to_owned());
        }
        remarks
    }
}
