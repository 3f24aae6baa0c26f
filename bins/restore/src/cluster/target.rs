//! The flags that say where recovery ends.

use backstay_cli::Failure;
use backstay_postgres_ops::cluster_restore::ClusterRequest;
use backstay_postgres_ops::recovery::{RecoveryTarget, TimelineChoice};
use clap::Args;

/// Where recovery ends; without any at the end of what is archived.
#[derive(Clone, Debug, Args)]
#[group(id = "target", multiple = false)]
pub(super) struct Place {
    /// Everything committed until then, as 2026-11-22T14:30:00Z or "2026-11-22 15:30 +01:00"
    #[arg(long, value_name = "TIME")]
    target_time: Option<String>,
    /// Everything up to a position, such as 16/B374D848
    #[arg(long, value_name = "LSN")]
    target_lsn: Option<String>,
    /// Everything up to the end of a transaction
    #[arg(long, value_name = "XID")]
    target_xid: Option<String>,
    /// Everything up to a point made with pg_create_restore_point
    #[arg(long, value_name = "NAME")]
    target_name: Option<String>,
    /// Nothing but the base backup
    #[arg(long)]
    target_immediate: bool,
}

/// Where recovery ends, and how to get there.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Target (default: the end of what is archived)")]
pub(super) struct TargetArgs {
    #[command(flatten)]
    place: Place,
    /// Leaves out what is exactly at the target
    #[arg(long)]
    exclusive: bool,
    /// Which timeline to follow: a number, latest, or current (that of the base backup)
    #[arg(long, value_name = "TIMELINE", default_value = "latest")]
    target_timeline: String,
}

impl TargetArgs {
    /// What is asked for.
    pub(super) fn request(&self) -> Result<ClusterRequest, Failure> {
        let inclusive = !self.exclusive;
        let place = &self.place;
        let target = if let Some(time) = &place.target_time {
            RecoveryTarget::time(time, inclusive)?
        } else if let Some(lsn) = &place.target_lsn {
            RecoveryTarget::lsn(lsn, inclusive)?
        } else if let Some(xid) = &place.target_xid {
            RecoveryTarget::xid(xid, inclusive)?
        } else if let Some(name) = &place.target_name {
            RecoveryTarget::name(name)?
        } else if place.target_immediate {
            RecoveryTarget::Immediate
        } else {
            RecoveryTarget::Latest
        };
        let cuts = matches!(
            target,
            RecoveryTarget::Time { .. } | RecoveryTarget::Lsn { .. } | RecoveryTarget::Xid { .. }
        );
        if self.exclusive && !cuts {
            return Err(Failure::usage("--exclusive goes with --target-time, --target-lsn or --target-xid"));
        }
        let timeline: TimelineChoice = self.target_timeline.parse()?;
        Ok(ClusterRequest::new(target, timeline))
    }
}
