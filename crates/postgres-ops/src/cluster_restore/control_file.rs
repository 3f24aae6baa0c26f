//! `global/pg_control`: which cluster, which state, and what recovery of it needs. Pure.
//!
//! The layout is the same in PostgreSQL 14 to 18 up to the last field that is read here (`ControlFileData` in
//! `catalog/pg_control.h`), in the byte order of the server, little-endian here.

use serde::Serialize;

use crate::wal::SystemId;

/// Versions of the file from 14 on.
const VERSIONS: std::ops::RangeInclusive<u32> = 1300..=1899;
/// Bytes up to the last field that is read.
const LENGTH: usize = 204;

/// What a control file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControlFile {
    pub(crate) system: SystemId,
    /// Settings that recovery with hot standby needs at least.
    pub(crate) needs: ServerNeeds,
}

/// Settings of the source, without which recovery pauses or ends.
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

impl ControlFile {
    /// Reads the file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() < LENGTH {
            return Err("it is too short");
        }
        let version = u32_at(bytes, 8);
        if !VERSIONS.contains(&version) {
            return Err("it is of no supported version of PostgreSQL (14 to 18)");
        }
        Ok(Self {
            system: SystemId::new(u64_at(bytes, 0)),
            needs: ServerNeeds {
                max_connections: u32_at(bytes, 180),
                max_worker_processes: u32_at(bytes, 184),
                max_wal_senders: u32_at(bytes, 188),
                max_prepared_transactions: u32_at(bytes, 192),
                max_locks_per_transaction: u32_at(bytes, 196),
            },
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
