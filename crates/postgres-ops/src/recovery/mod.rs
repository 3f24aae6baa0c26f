//! Where a cluster can be recovered to, and with what: decides before anything is restored.
//!
//! ```text
//! base backups ──┐                      ┌─▶ windows: from when to when, along which timelines, up to which gap
//! WAL survey ────┤─ choose ─ questions ─┤
//! target ────────┘     ▲         │      └─▶ a plan, or a refusal that names the nearest points
//!                      └ answers ◀┘  the log itself, read by `plan_recovery`
//! ```
//!
//! [`choose`] is pure: data in, decision out. Where it depends on what is written in the log it asks a [`Question`];
//! [`plan_recovery`] reads the segments that answer it, and asks again.
//!
//! PostgreSQL takes a target that it cannot reach for the end of the log, or for an earlier moment, and says nothing. So:
//!
//! | what PostgreSQL does | what a plan does |
//! |---|---|
//! | a target before consistency: stops later, silently | refused, with the first point that can be reached |
//! | a target after the last segment: fails after hours of replay | refused, with the last point |
//! | no target: ends at the first segment that it does not get | a target is always armed: the last record there is |
//! | `recovery_target_lsn` inclusive: stops after the first record that *begins* there or later | the armed position is where such a record begins; it was looked up |
//! | a name that exists twice: stops at the first | refused, with both positions |
//! | timeline `latest`: whatever number it finds | a number |
//!
//! Times, transactions and names are turned into the position of the very record that they mean. What recovery reaches
//! can then be compared with what was planned, to the byte.

mod base;
mod choose;
mod finder;
mod inquiry;
#[cfg(test)]
mod model;
mod path;
mod plan;
mod question;
mod refusal;
mod status;
mod target;
mod wal_check;
mod wal_prune;
mod windows;

pub use base::{BaseBackup, PhysicalSets};
pub use choose::{Pending, choose};
pub use inquiry::{PlanError, plan_recovery, read_tail};
pub use path::{Reach, ReachEnd, Stretch, TimelinePath};
pub use plan::{Loss, RecoveryPlan, StopPoint};
pub use question::{Answer, Commit, Landmark, LogFacts, LogRange, LogTail, Question};
pub use refusal::{Point, Refusal};
pub use status::{ClusterStatus, TimelineStatus, WindowStatus, cluster_statuses};
pub use target::{RecoveryRequest, RecoveryTarget, TargetError, TimelineChoice};
pub use wal_check::{SetWal, check_wal};
pub use wal_prune::{
    ClusterWalPlan, RepositoryWalPlan, RepositoryWalPruned, WalPrunePlan, WalPruneReport, plan_wal_prune,
};
pub use windows::{Span, Unusable, Window, Windows, windows};
