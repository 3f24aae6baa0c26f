//! What `backup-config` and `backup-code` have in common: arguments, and words of their reports.

use std::fmt;
use std::time::Duration;

use backstay_backup_core::config::TimeSpan;
use backstay_cli::{Context, Exit};
use backstay_file_ops::config_set::{ConfigOptions, Problem};
use clap::Args;

/// Most problems that are printed; the set has them all.
const PRINTED: usize = 20;

/// How a set is stored.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Stores without encryption, after a look for secrets
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// Takes nothing there for a secret, as in .gitignore; repeatable
    #[arg(long, value_name = "PATTERN")]
    pub(crate) allow: Vec<String>,
    /// Stores all of it, changed or not, when the newest set is older than that, such as 7d
    #[arg(long, value_name = "SPAN")]
    pub(crate) refresh_after: Option<TimeSpan>,
    /// Your own words for the manifest, as KEY=VALUE; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::database::annotation)]
    pub(crate) annotation: Vec<(String, String)>,
    /// Looks around and says what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl SetArgs {
    /// Everything that does not depend on what is backed up, for a set of files.
    pub(crate) fn apply(&self, ctx: &Context, tool: &str, options: &mut ConfigOptions) {
        options.host = host();
        options.plaintext = self.plaintext;
        options.allow.clone_from(&self.allow);
        options.refresh_after = self.refresh_after.map(span);
        options.codec = ctx.config.compression.codec;
        options.data_path = ctx.data_path();
        options.retain_until = ctx.retain_until();
        options.annotations = self.annotation.iter().cloned().collect();
        tool.clone_into(&mut options.tool);
    }
}

pub(crate) fn span(span: TimeSpan) -> Duration {
    Duration::from_secs(span.as_secs())
}

/// This host, as the kernel knows it.
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// How a run ends that stored a set. What is not in the set is graver than a repository that does not have it.
pub(crate) fn exit(complete: bool, missed: bool) -> Exit {
    match (complete, missed) {
        (false, _) => Exit::Data,
        (true, true) => Exit::Missed,
        (true, false) => Exit::Done,
    }
}

/// Grave ones first.
pub(crate) fn print_problems(f: &mut fmt::Formatter<'_>, problems: &[Problem]) -> fmt::Result {
    let (grave, light): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.kind.is_grave());
    for problem in grave.iter().chain(&light).take(PRINTED) {
        let mark = if problem.kind.is_grave() { '!' } else { '-' };
        write!(f, "\n{mark} {}: {}", problem.path, problem.reason)?;
    }
    match problems.len().checked_sub(PRINTED) {
        Some(more @ 1..) => {
            write!(f, "\n  and {more} more; the object problems.jsonl of the set names them all")
        }
        _ => Ok(()),
    }
}

/// Repositories that do not have a set, and why.
pub(crate) fn print_missing(f: &mut fmt::Formatter<'_>, missing: &[(String, String)]) -> fmt::Result {
    missing.iter().try_for_each(|(repository, reason)| write!(f, "\n  not in {repository}: {reason}"))
}
