//! What a snapshot holds, found while its bytes pass by.
//!
//! [`RdbScanner`] takes an RDB in any pieces, keeps nothing of it, and at the end answers with [`RdbFacts`]: version,
//! auxiliary fields, keys and expiries of each database, function libraries, and whether the checksum is right. Values
//! are skipped by their lengths, so memory is bounded whatever they are.
//!
//! A type that this version does not know ends the counting ([`Contents::Unknown`]); magic and checksum are checked to
//! the end all the same. Nothing here decides whether a snapshot of unknown content is good: its SHA-256 is kept anyway.
//!
//! [`ShiftExpires`] rewrites expiries for a restore, and the checksum with them.

mod checksum;
mod driver;
mod elements;
mod facts;
mod kept;
mod listpack;
mod lzf;
mod parser;
mod scanner;
mod shift;

pub use facts::{Checksum, Contents, DatabaseFacts, Magic, RdbFacts};
pub use scanner::RdbScanner;
pub use shift::{Expiries, ShiftExpires, ShiftReport, shift_expires};

/// Bytes that are no whole RDB.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RdbError {
    /// It does not begin like one.
    #[error("it is no RDB: it begins with {found:?}")]
    Magic {
        /// The beginning.
        found: String,
    },
    /// It ends too early, or goes on behind its end.
    #[error("it {problem} at byte {at}")]
    Length {
        /// Where.
        at: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// Something that no server writes.
    #[error("it is damaged at byte {at}: {problem}")]
    Damaged {
        /// Where.
        at: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The checksum differs.
    #[error("it is damaged: checksum {found:016x}, its content has {computed:016x}")]
    Checksum {
        /// The checksum that it carries.
        found: u64,
        /// The checksum of what came.
        computed: u64,
    },
    /// It holds what cannot be rewritten.
    #[error("its expiries cannot be changed: {problem}")]
    CannotShift {
        /// Why.
        problem: String,
    },
}

#[cfg(test)]
mod tests;
