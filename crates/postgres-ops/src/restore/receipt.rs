//! What a restore would do, and what it did.

use backstay_backup_core::id::SetId;
use jiff::Timestamp;
use serde::Serialize;

use super::target::TargetPlan;
use crate::compare::Comparison;
use crate::dump::Phase;
use crate::roles::RolesReport;

/// What a restore would do. Nothing was touched.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RestorePlan {
    /// The set.
    pub set: SetId,
    /// The moment that the restored data shows.
    pub recovery_point: Timestamp,
    /// Target server.
    pub server: String,
    /// Target database.
    pub target: TargetPlan,
    /// Tables that would be restored.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes to be read from the repository.
    pub stored_bytes: u64,
    /// The client that would run.
    pub client: String,
}

/// Proof of a restore: what was compared, what differs, how long each part took.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RestoreReceipt {
    /// The set.
    pub set: SetId,
    /// The moment that the restored data shows, by the source's clock.
    pub recovery_point: Timestamp,
    /// Target server.
    pub server: String,
    /// Name of the restored database.
    pub database: String,
    /// Name under which the replaced database is kept.
    pub kept_as: Option<String>,
    /// What was compared.
    pub comparison: Comparison,
    /// What became of the roles.
    pub roles: RolesReport,
    /// Things that did not work and cost no data.
    pub warnings: Vec<String>,
    /// Parts of the restore.
    pub phases: Vec<Phase>,
    /// Recovery time: begin of the command to a usable database, in seconds.
    pub rto_seconds: f64,
    /// Plain bytes loaded.
    pub plain_bytes: u64,
    /// When it was finished.
    pub finished: Timestamp,
}
