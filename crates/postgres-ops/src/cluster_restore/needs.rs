//! Settings in which a recovering server must not be below its source, as the control file of the source has them. Pure.

use serde::Serialize;

/// Settings of the source, without which recovery with hot standby pauses or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServerNeeds {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

impl ServerNeeds {
    /// From a control file that is known to be whole. The place of the fields (`ControlFileData` in
    /// `catalog/pg_control.h`) is the same in PostgreSQL 14 to 18.
    pub(super) fn of(control: &[u8]) -> Self {
        let at = |at: usize| control[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        Self {
            max_connections: at(180),
            max_worker_processes: at(184),
            max_wal_senders: at(188),
            max_prepared_transactions: at(192),
            max_locks_per_transaction: at(196),
        }
    }
}
