//! The flags that say to which moment.

use std::num::NonZeroU32;

use backstay_backup_core::id::SetId;
use backstay_cli::Failure;
use backstay_redis_ops::restore::{CommandSearch, RestoreTarget};
use clap::Args;

/// The moment; without any the newest.
#[derive(Clone, Debug, Args)]
#[group(id = "target", multiple = false)]
pub(super) struct Moment {
    /// Everything received until then, as 2026-11-22T14:30:00Z or "2026-11-22 15:30:00 +01:00"
    #[arg(long, value_name = "TIME")]
    target_time: Option<String>,
    /// Everything up to an offset, as 1234 or REPLICATION_ID:1234
    #[arg(long, value_name = "OFFSET")]
    target_offset: Option<String>,
    /// Everything before the last such command, as FLUSHALL or "FUNCTION FLUSH"
    #[arg(long, value_name = "COMMAND")]
    before: Option<String>,
}

/// The moment, and how to get there.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Target (default: the newest moment that is archived)")]
pub(super) struct TargetArgs {
    #[command(flatten)]
    moment: Moment,
    /// Only a command with an argument that matches this pattern of key names
    #[arg(long, value_name = "PATTERN", requires = "before")]
    key: Option<String>,
    /// Not the last such command but the second or third last
    #[arg(long, value_name = "N", requires = "before")]
    occurrence: Option<NonZeroU32>,
    /// Only a command that was received until then
    #[arg(long, value_name = "TIME", requires = "before")]
    not_after: Option<String>,
    /// Exactly this snapshot; with another target the one to begin with
    #[arg(long, value_name = "ID")]
    set: Option<String>,
}

impl TargetArgs {
    /// What is asked for, and the beginning of the id of a set.
    pub(super) fn request(&self) -> Result<(Option<RestoreTarget>, Option<String>), Failure> {
        let moment = &self.moment;
        let target = if let Some(time) = &moment.target_time {
            Some(RestoreTarget::time(time)?)
        } else if let Some(offset) = &moment.target_offset {
            Some(RestoreTarget::offset(offset)?)
        } else if let Some(command) = &moment.before {
            let not_after = match self.not_after.as_deref().map(RestoreTarget::time).transpose()? {
                Some(RestoreTarget::Time(time)) => Some(time),
                _ => None,
            };
            let search = CommandSearch::new(command)?
                .key(self.key.clone())
                .occurrence(self.occurrence.unwrap_or(NonZeroU32::MIN))
                .not_after(not_after);
            Some(RestoreTarget::Before(search))
        } else {
            None
        };
        Ok((target, self.set.clone()))
    }
}

/// A set alone is a target; with a target it is where to begin.
pub(super) fn with_set(target: Option<RestoreTarget>, set: Option<&SetId>) -> RestoreTarget {
    match (target, set) {
        (Some(target), _) => target,
        (None, Some(set)) => RestoreTarget::Set(set.clone()),
        (None, None) => RestoreTarget::Newest,
    }
}
