//! Brings files back: into a folder of their own first, then file by file into the system.
//!
//! ```text
//! set ─▶ stage: <staging>/files/…        every byte checked, hostile archives refused; nothing else is touched
//!     ─▶ plan:  staged against live      what would be created, replaced, changed; what is in the way
//!     ─▶ apply: undo/<run>/old.tar, run.json   what will be replaced, durable before anything changes
//!               beside each file a temporary one ─▶ synced ─▶ renamed over it
//!     ─▶ undo:  what still is as we left it becomes what it was
//! ```
//!
//! Guarantees: at any moment, also when the power fails, each live file is the old one or the new one, whole. A file that was
//! changed after it was compared, or after it was installed, is left alone and told.

mod apply;
mod diff;
mod install;
mod plan;
mod record;
mod stage;
mod undo;

pub use apply::{Applied, apply};
pub use diff::text_diff;
pub use plan::{Plan, PlanOptions, Step, What, plan_restore};
pub use stage::{StageOptions, Staged, list_set, stage, test_restore};
pub use undo::{Undone, undo};

pub(crate) use install::make_parents;
