//! Snapshots of a whole Redis into one backup set.
//!
//! ```text
//! find_shards ─▶ for each shard: attach ─▶ RDB ─▶ scanner (thread) ─▶ frames ─▶ object of the set
//!             ─▶ settings, modules, topology, users                        ─▶ objects of the set
//!             ─▶ manifest, when everything is whole and checked
//! ```
//!
//! An RDB is checked while it streams by: magic, version, structure, CRC-64. One that breaks off or is damaged fails the
//! object, so no set ever names it. The server's disk is never touched and no `BGSAVE` runs whose failure could block
//! writes, unless [`Via::Bgsave`] is asked for.
//!
//! A cluster has one moment for each shard, not one for all; each is in the facts.

mod capture;
mod custodian;
mod facts;
mod options;
mod plan;
mod pump;
mod run;
mod save;
mod tune;

pub use custodian::{Custodian, keep_settings};
pub use facts::{RedisFacts, ShardFacts};
pub use options::{SnapshotOptions, Via};
pub use plan::{ShardPlan, SnapshotPlan, plan_snapshot};
pub use run::{SnapshotReport, backup_redis};
pub use save::{Judgement, Persistence, judge};
