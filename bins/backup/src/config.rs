//! `backup-config`: arguments, and the report of what was backed up.

mod report;

use std::path::PathBuf;

use backstay_backup_core::catalog::clock_problems;
use backstay_backup_core::config::{FilesConfig, Setting};
use backstay_backup_core::encryption::Recipients;
use backstay_cli::{Arguments, Context, Exit, Failure};
use backstay_file_ops::config_set::{ConfigOptions, Outcome, backup_config, plan_config};
use backstay_file_ops::secret_files::{SecretFile, versions};
use backstay_file_ops::system::{CRONTABS, SystemList, packages, units};
use backstay_file_ops::{Error, SelectionOptions};
use clap::Parser;

use crate::file_sets::{SetArgs, span};
use report::{BackedUp, Plan, Unchanged};

/// Name of configuration in a stanza that does not say another.
const NAME: &str = "config";

/// Backs up configuration: files and folders into one tar archive that stock tools open, with owners, modes, ACLs and links.
///
/// An unchanged selection stores nothing. What cannot be read makes the set an incomplete one, and the exit code 3. The section
/// `files` of the configuration says all of this too; what is said here replaces it.
#[derive(Debug, Parser)]
#[command(
    name = "backup-config",
    version,
    after_help = "Every hour, from root's cron table:\n  \
    7 * * * *  backup-config --config /etc/backstay/backstay.toml"
)]
pub struct Args {
    /// File, folder or pattern; repeatable
    #[arg(value_name = "PATH")]
    path: Vec<PathBuf>,
    /// Leaves out, as in .gitignore, seen from /; repeatable
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// What the sets are called, when the stanza holds several kinds of configuration [default: config]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Adds the list of installed packages
    #[arg(long)]
    packages: bool,
    /// Adds the list of systemd's units and whether they are enabled
    #[arg(long)]
    units: bool,
    /// Adds the cron tables of the system and of its users
    #[arg(long)]
    crontabs: bool,
    /// Goes on into other file systems
    #[arg(long)]
    cross_file_systems: bool,
    /// Takes folders too that call themselves caches
    #[arg(long)]
    with_caches: bool,
    /// Stores also what did not change
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    set: SetArgs,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        Vec::new()
    }

    fn about(&self) -> Option<String> {
        self.name.clone()
    }
}

/// Runs the program.
///
/// # Errors
/// Whatever stops the backup. A set of files that could not all be read is reported, and ends in [`Exit::Data`].
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let mut options = options(ctx, args)?;
    if args.set.dry_run {
        let plan = plan_config(&options, &ctx.cancel).await?;
        let exit = if plan.findings.is_empty() || plan.encrypted { Exit::Done } else { Exit::Usage };
        return ctx.finish(&Plan(plan), exit);
    }
    if options.recipients.is_empty() && !options.plaintext {
        return Err(Error::Plaintext.into());
    }
    options.lists = lists(ctx, args).await?;
    let files = secret_files(&ctx.config.files);
    (options.secrets, options.problems) = ctx.stoppable(versions(ctx.secrets(), &files)).await?;
    let opened = ctx.open_or_create(async { Ok(()) }).await?;
    let lease = format!("backup-config-{}", options.name);
    let backup = async {
        Ok(Box::pin(backup_config(&opened.repositories, &options, &ctx.progress, &ctx.cancel)).await?)
    };
    let outcome = ctx.under_lease(&opened.repositories, &lease, backup).await?;
    let unavailable =
        opened.unavailable.iter().map(|left_out| (left_out.name.clone(), left_out.failure.message()));
    match outcome {
        Outcome::Stored(report) => {
            let mut set = BackedUp::new(&report);
            set.missing_in.extend(unavailable);
            set.warnings.extend(clock_problems(&opened.repositories, &report.receipt).await);
            let exit = set.exit();
            ctx.finish(&set, exit)
        }
        Outcome::Unchanged { set, recovery_point, elapsed, looked_at, .. } => {
            let missing_in: Vec<_> = unavailable.collect();
            let exit = if missing_in.is_empty() { Exit::Done } else { Exit::Missed };
            let report = Unchanged::new(set.to_string(), recovery_point, looked_at, elapsed, missing_in);
            ctx.finish(&report, exit)
        }
        _ => Err(Failure::usage("this program is older than its library")),
    }
}

/// The lists of the system that were asked for.
async fn lists(ctx: &Context, args: &Args) -> Result<Vec<SystemList>, Failure> {
    let (runner, mut lists) = (ctx.runner(), Vec::new());
    let files = &ctx.config.files;
    if args.packages || files.packages {
        lists.extend(packages(&runner, &ctx.cancel).await?);
    }
    if args.units || files.units {
        lists.extend(units(&runner, &ctx.cancel).await?);
    }
    Ok(lists)
}

fn options(ctx: &Context, args: &Args) -> Result<ConfigOptions, Failure> {
    let files = &ctx.config.files;
    let name = args.name.as_ref().or(files.name.as_ref()).map_or(NAME, String::as_str);
    if name.is_empty() || name.contains('/') || name.len() > 64 {
        return Err(Failure::usage("--name is a short word"));
    }
    let mut options = ConfigOptions::new(ctx.stanza().clone(), selection(files, args)?);
    args.set.apply(ctx, concat!("backup-config ", env!("CARGO_PKG_VERSION")), &mut options);
    options.name = name.to_owned();
    options.recipients = match files.recipients.as_slice() {
        [] => ctx.recipients()?,
        own => Recipients::parse(own.iter().map(String::as_str))?,
    };
    options.plaintext |= files.plaintext;
    options.allow = first_of(&args.set.allow, &files.allow);
    options.force = args.force;
    options.refresh_after = args.set.refresh_after.or(files.refresh_after).map(span);
    Ok(options)
}

/// What the arguments say, or else the configuration.
fn selection(files: &FilesConfig, args: &Args) -> Result<SelectionOptions, Failure> {
    let mut selection = SelectionOptions::default();
    let absolute = |path: &PathBuf| {
        std::path::absolute(path)
            .map_err(|error| Failure::usage(format!("cannot find {}: {error}", path.display())))
    };
    for path in first_of(&args.path, &files.paths) {
        selection.paths.push(absolute(&path)?);
    }
    if args.crontabs || files.crontabs {
        let there = CRONTABS.iter().map(PathBuf::from).filter(|path| path.exists());
        selection.paths.extend(there);
    }
    if selection.paths.is_empty() {
        return Err(Failure::usage("nothing is listed").with_hint(
            "name files and folders: backup-config /etc, or paths in the section `files` of the configuration",
        ));
    }
    selection.excludes = first_of(&args.exclude, &files.exclude);
    selection.cross_file_systems = args.cross_file_systems || files.cross_file_systems;
    selection.with_caches = args.with_caches || files.with_caches;
    for secret in &files.secret {
        selection.left_out.push(absolute(&secret.file)?);
    }
    Ok(selection)
}

fn first_of<T: Clone>(given: &[T], configured: &[T]) -> Vec<T> {
    if given.is_empty() { configured.to_vec() } else { given.to_vec() }
}

/// The secrets of the configuration.
fn secret_files(files: &FilesConfig) -> Vec<SecretFile> {
    let file = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let secrets = files.secret.iter();
    secrets
        .map(|secret| SecretFile::new(file(&secret.file), &secret.secrets_manager, secret.key.clone()))
        .collect()
}
