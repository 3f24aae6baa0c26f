//! Restores a logical set into a database and proves that it is equal to what was backed up.
//!
//! ```text
//! 1 verify     every stored byte of the set, before the target is touched at all
//! 2 prepare    missing roles, a database made beside the target
//! 3 pre-data   definitions (pg_restore --section=pre-data)
//! 4 data       units × jobs: objects → decompress → pg_restore on a pipe; a large table's indexes follow its rows
//! 5 post-data  the remaining indexes (pg_restore -j), attachments of indexes one by one, foreign keys, triggers (-j)
//! 6 compare    rows, contents, sequences, large objects, definitions: equality, not plausibility
//! 7 swap       rename into place; only now the old database is out of the way, and still kept
//! ```
//!
//! Rows of a large table go from the object to the server by COPY, without a program in between ([`copy`]). Nothing
//! else is staged on disk either: a unit is header and table of contents of its archive followed by the byte ranges of
//! the blocks it wants, which is again an archive that stock `pg_restore` reads from a pipe.
//!
//! Until step 7 no commit waits for the disk, because a database that is not whole is worth nothing; before the swap, one
//! commit that does makes everything before it durable.
//!
//! | what fails | what remains |
//! |---|---|
//! | a damaged or missing object | the target as it was; nothing made |
//! | roles, definitions, rows | the target as it was; the database made beside it is dropped |
//! | comparison | the target as it was; the database beside it is kept for a look, and named |
//! | this process or the server (kill -9) | the target as it was; a database `…_restoring_…` to drop |

mod check;
mod choose;
mod copy;
mod durable;
mod job;
mod load;
mod obstacles;
mod options;
mod preflight;
mod privileges;
mod receipt;
mod run;
mod sections;
mod source;
mod target;
mod units;

pub use options::RestoreOptions;
pub use receipt::{RestorePlan, RestoreReceipt};
pub use run::{plan_restore, restore_database};
pub use target::{TargetPlan, TargetState};
