//! `backup-code`: arguments, one set for each folder, and the report of what was backed up.

mod report;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_backup_core::Class;
use backstay_backup_core::catalog::clock_problems;
use backstay_backup_core::config::{Setting, TimeSpan};
use backstay_backup_core::process::CommandRunner;
use backstay_cli::{Arguments, Context, Exit, Failure, Opened};
use backstay_file_ops::code::{CodeOptions, Outcome, backup_code, is_repository, plan_code};
use backstay_file_ops::config_set::{ConfigOptions, backup_config};
use backstay_file_ops::{Error, SelectionOptions};
use clap::Parser;

use crate::file_sets::{SetArgs, host, span};
use report::{Entry, Plan, Report};

/// Name and version, for manifests.
const TOOL: &str = concat!("backup-code ", env!("CARGO_PKG_VERSION"));

/// Longest name of a set's content.
const LONGEST_NAME: usize = 64;

/// Backs up git repositories: whole or what is new, as bundles that stock git opens, with refs, HEAD and LFS objects.
///
/// A bundle counts when it was taken apart as a clone does it. A repository without changes stores nothing.
#[derive(Debug, Parser)]
#[command(
    name = "backup-code",
    version,
    after_help = "Every hour, from the cron table of the repositories' owner:\n  \
    17 * * * *  backup-code --config /etc/backstay/backstay.toml --uncommitted /srv/shop /srv/git/tools.git"
)]
pub struct Args {
    /// Top of a working tree, or a bare repository; repeatable
    #[arg(value_name = "FOLDER", required = true)]
    folder: Vec<PathBuf>,
    /// What the sets are called [default: the name of the folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Takes what is not committed too: staged, unstaged, untracked
    #[arg(long)]
    uncommitted: bool,
    /// Takes folders that are no repositories as a tar archive
    #[arg(long)]
    files: bool,
    /// Stores everything anew, changed or not
    #[arg(long)]
    full: bool,
    /// Most sets that build on each other
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=500))]
    chain: u64,
    /// Leaves a tag below refs/backstay/, which git describe does not see
    #[arg(long)]
    tag: bool,
    /// Folder with room for a clone, for the proof [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Time for git to go through a repository
    #[arg(long, value_name = "SPAN", default_value = "6h")]
    timeout: TimeSpan,
    #[command(flatten)]
    set: SetArgs,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        Vec::new()
    }

    fn about(&self) -> Option<String> {
        let folders = || self.folder.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>();
        Some(self.name.clone().unwrap_or_else(|| folders().join(", ")))
    }
}

/// A folder and what its sets are called.
struct Job {
    folder: PathBuf,
    name: String,
}

/// Runs the program.
///
/// # Errors
/// Whatever stops the backup of the only folder. With several, each is reported, and the worst end counts.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let jobs = jobs(args)?;
    let runner: Arc<dyn CommandRunner> = Arc::new(ctx.runner());
    if args.set.dry_run {
        return plan(ctx, args, &jobs, &runner).await;
    }
    if !args.set.plaintext && ctx.recipients()?.is_empty() {
        return Err(Error::Plaintext.into());
    }
    let opened = ctx.open_or_create(async { Ok(()) }).await?;
    let mut report = Report::new(&opened);
    for job in &jobs {
        match Box::pin(back_up(ctx, args, job, &opened, &runner)).await {
            Ok(entry) => report.entries.push(entry),
            Err(failure) if jobs.len() == 1 || ctx.cancel.is_cancelled() => return Err(failure),
            Err(failure) => report.entries.push(Entry::failed(&job.name, &job.folder, &failure)),
        }
    }
    let exit = report.exit();
    ctx.finish(&report, exit)
}

async fn plan(
    ctx: &Context,
    args: &Args,
    jobs: &[Job],
    runner: &Arc<dyn CommandRunner>,
) -> Result<Exit, Failure> {
    let mut plans = Vec::new();
    for job in jobs {
        let options = options(ctx, args, job)?;
        plans.push(Box::pin(plan_code(&options, runner, &ctx.cancel)).await?);
    }
    let plan = Plan { repositories: plans };
    let exit = plan.exit();
    ctx.finish(&plan, exit)
}

async fn back_up(
    ctx: &Context,
    args: &Args,
    job: &Job,
    opened: &Opened,
    runner: &Arc<dyn CommandRunner>,
) -> Result<Entry, Failure> {
    let options = options(ctx, args, job)?;
    if args.files && !is_repository(&job.folder, &options.scratch, runner, &ctx.cancel).await? {
        return back_up_files(ctx, args, job, opened).await;
    }
    let lease = format!("backup-code-{}", job.name);
    let work = async {
        let backup = backup_code(&opened.repositories, &options, runner, &ctx.progress, &ctx.cancel);
        Ok(Box::pin(backup).await?)
    };
    let outcome = ctx.under_lease(&opened.repositories, &lease, work).await?;
    match outcome {
        Outcome::Stored(report) => {
            let warnings = clock_problems(&opened.repositories, &report.receipt).await;
            Ok(Entry::stored(&report, warnings))
        }
        Outcome::Unchanged { set, recovery_point, elapsed, refs, dirty, .. } => {
            Ok(Entry::unchanged(&job.name, set.to_string(), recovery_point, refs, dirty, elapsed))
        }
        _ => Err(Failure::usage("this program is older than its library")),
    }
}

/// A folder that is no repository, as a set of configuration.
async fn back_up_files(ctx: &Context, args: &Args, job: &Job, opened: &Opened) -> Result<Entry, Failure> {
    let mut selection = SelectionOptions::default();
    selection.paths.push(job.folder.clone());
    let mut options = ConfigOptions::new(ctx.stanza().clone(), selection);
    args.set.apply(ctx, TOOL, &mut options);
    options.name = format!("code/{}", job.name);
    options.recipients = ctx.recipients()?;
    options.force = args.full;
    let lease = format!("backup-code-{}", job.name);
    let work = async {
        Ok(Box::pin(backup_config(&opened.repositories, &options, &ctx.progress, &ctx.cancel)).await?)
    };
    let outcome = ctx.under_lease(&opened.repositories, &lease, work).await?;
    Entry::files(&options.name, outcome)
}

fn options(ctx: &Context, args: &Args, job: &Job) -> Result<CodeOptions, Failure> {
    let scratch = scratch(ctx, args)?;
    let mut options = CodeOptions::new(ctx.stanza().clone(), &job.name, &job.folder, &scratch);
    options.host = host();
    options.recipients = ctx.recipients()?;
    options.plaintext = args.set.plaintext;
    options.allow.clone_from(&args.set.allow);
    options.uncommitted = args.uncommitted;
    options.full = args.full;
    options.refresh_after = args.set.refresh_after.map(span);
    options.chain = args.chain;
    options.mark = args.tag;
    options.timeout = span(args.timeout);
    options.codec = ctx.config.compression.codec;
    options.data_path = ctx.data_path();
    options.retain_until = ctx.retain_until();
    options.annotations = args.set.annotation.iter().cloned().collect();
    TOOL.clone_into(&mut options.tool);
    Ok(options)
}

fn scratch(ctx: &Context, args: &Args) -> Result<PathBuf, Failure> {
    let temporary = ctx.environment().get("TMPDIR").map_or("/tmp", String::as_str);
    let scratch = args.scratch.clone().unwrap_or_else(|| PathBuf::from(temporary));
    std::path::absolute(&scratch)
        .map_err(|error| Failure::usage(format!("cannot use folder {}: {error}", scratch.display())))
}

fn jobs(args: &Args) -> Result<Vec<Job>, Failure> {
    if args.name.is_some() && args.folder.len() > 1 {
        return Err(Failure::usage("--name is for one folder").with_hint("run the program once for each"));
    }
    let (mut jobs, mut names) = (Vec::new(), BTreeSet::new());
    for folder in &args.folder {
        let absolute = std::path::absolute(folder)
            .map_err(|error| Failure::usage(format!("cannot find {}: {error}", folder.display())))?;
        let name = args.name.clone().unwrap_or_else(|| name_of(&absolute));
        check_name(&name, folder)?;
        if !names.insert(name.clone()) {
            let problem = format!("two folders would be called {name:?}");
            return Err(Failure::usage(problem).with_hint("run the program once for each, with --name"));
        }
        jobs.push(Job { folder: absolute, name });
    }
    Ok(jobs)
}

/// `shop` for `/srv/shop`, `/srv/shop/.git` and `/srv/shop.git`.
fn name_of(folder: &Path) -> String {
    let last = |folder: &Path| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = match (last(folder).as_str(), folder.parent()) {
        (".git", Some(parent)) => last(parent),
        (name, _) => name.to_owned(),
    };
    name.strip_suffix(".git").unwrap_or(&name).to_owned()
}

/// Names stand in manifests and in names of leases.
fn check_name(name: &str, folder: &Path) -> Result<(), Failure> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._=+-".contains(&byte);
    let fits =
        !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('.') && name.bytes().all(good);
    if fits {
        return Ok(());
    }
    let problem = format!("{} cannot be called {name:?}", folder.display());
    Err(Failure::new(Class::Usage, problem)
        .with_hint("--name gives it a word of letters, digits and . _ = + -"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_called_as_its_folder() {
        for folder in ["/srv/shop", "/srv/shop/.git", "/srv/shop.git"] {
            assert_eq!(name_of(Path::new(folder)), "shop");
        }
        for name in ["", ".x", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(check_name(name, Path::new("/x")).is_err(), "{name}");
        }
    }
}
