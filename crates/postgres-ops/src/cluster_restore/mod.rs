//! Restores the files of a cluster and recovers it to a moment.
//!
//! ```text
//! plan   which set, which WAL, what is in the target already               reads only
//! apply  packs ─▶ files, each block proven ─▶ settings ─▶ sync ─▶ pg_control, last of all
//! start  the server replays WAL to the target; the receipt compares plan and outcome
//! ```
//!
//! What is interrupted cannot be started and is completed by the same call ([`FilesPlan::apply`]). Nothing is written
//! outside of the target and the directories that the plan names for tablespaces.

mod ahead;
mod apply;
mod change;
mod compare;
mod configuration;
mod durable;
mod error;
mod fetch_blocks;
mod leftovers;
mod marker;
mod needs;
mod new_tablespaces;
mod options;
mod plan;
mod receipt;
mod recover;
mod restore_test;
mod roots;
mod server;
mod set_index;
mod settings;
mod stream_pack;
mod target;
mod work;

pub use apply::FilesReceipt;
pub use error::ClusterRestoreError;
pub use needs::ServerNeeds;
pub use options::ClusterRestoreOptions;
pub use plan::{FilesPlan, cluster_facts, plan_files};
pub use receipt::{ClusterReceipt, Outcome};
pub use recover::{ClusterPlan, ClusterRequest, Ending, check_receipt, plan_cluster_restore};
pub use restore_test::{ClusterTest, ClusterTestReport, test_cluster_restore};
pub use server::{RecoveryEnd, StartOptions};
pub use settings::{RecoverySettings, TargetAction, command_word};
pub use target::{RestoreMode, TablespacePlan};
