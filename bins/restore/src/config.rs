//! `restore-config`: arguments, choice of the set, and what was done.

mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_backup_core::catalog::{Catalog, Filter};
use backstay_backup_core::config::{ByteSize, Setting};
use backstay_backup_core::manifest::{Manifest, SetKind};
use backstay_cli::{Arguments, Context, Exit, Failure, IdentityArgs, Opened, restorable};
use backstay_file_ops::config_set::KIND;
use backstay_file_ops::restore::{
    PlanOptions, StageOptions, Staged, apply, list_set, plan_restore, stage, text_diff, undo,
};
use backstay_file_ops::secret_files::{SecretVersion, Which, fetch, forget, recorded};
use backstay_file_ops::unpack::UnpackOptions;
use backstay_file_ops::{ArchivePath, Error};
use clap::{Parser, ValueEnum};
use jiff::Timestamp;

use crate::choice::newest_good;
use report::{Installed, Listing, Planned, Undone};

/// Restores configuration: into a staging folder, where it is compared with the live system; then, with --apply, file by
/// file into the system.
///
/// Each live file is the old one or the new one at any moment. What is replaced is kept, and --undo takes it back.
#[derive(Debug, Parser)]
#[command(
    name = "restore-config",
    version,
    after_help = "What differs from the newest set, every week, from root's cron table:\n  \
    0 5 * * 1  restore-config --config /etc/backstay/backstay.toml --staging /var/lib/backstay/staging"
)]
pub struct Args {
    /// Only this file or folder; repeatable
    #[arg(value_name = "PATH")]
    path: Vec<PathBuf>,
    /// New or empty folder, or that of an earlier restore; the files land below its files/
    #[arg(long, value_name = "FOLDER", required_unless_present_any = ["list", "undo"])]
    staging: Option<PathBuf>,
    /// Installs what differs; without it nothing but the staging folder is touched
    #[arg(long)]
    apply: bool,
    /// Shows the lines that differ; they may hold secrets
    #[arg(long)]
    diff: bool,
    /// Takes an installation back, from the folder that it named
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["staging", "apply", "list", "set", "at"])]
    undo: Option<PathBuf>,
    /// With --undo: also what was changed since
    #[arg(long, requires = "undo")]
    force: bool,
    /// Names what is in the set
    #[arg(long, conflicts_with_all = ["staging", "apply"])]
    list: bool,
    /// The set, or the beginning of its id [default: the newest good one]
    #[arg(long, value_name = "ID")]
    set: Option<String>,
    /// The newest good set that is not newer than this, as 2026-11-22T14:30:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "set")]
    at: Option<Timestamp>,
    /// What the sets are called [default: config]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Fetches also the secrets that a service keeps: in the version then in use, or with =current in that of now
    #[arg(
        long,
        value_name = "WHICH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "recorded",
        conflicts_with_all = ["list", "undo"]
    )]
    secrets: Option<Secrets>,
    /// The system that is compared and installed into
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
    /// Takes owners by number, also where the name has another number here
    #[arg(long)]
    numeric_owners: bool,
    /// Most bytes to unpack [default: what fits the staging folder's disk]
    #[arg(long, value_name = "BYTES")]
    max_size: Option<ByteSize>,
    /// Takes names that differ in upper and lower case only
    #[arg(long)]
    allow_case_collisions: bool,
    #[command(flatten)]
    identity: IdentityArgs,
}

/// Which version of a secret.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Secrets {
    /// That of the set
    Recorded,
    /// That in use now
    Current,
}

impl From<Secrets> for Which {
    fn from(secrets: Secrets) -> Self {
        match secrets {
            Secrets::Recorded => Self::Recorded,
            Secrets::Current => Self::Current,
        }
    }
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        self.identity.settings()
    }
}

/// Runs the program.
///
/// # Errors
/// Whatever stops the restore. What is in the way is reported, and ends in [`Exit::Conflict`].
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    if let Some(folder) = &args.undo {
        let (folder, force, cancel) = (absolute(folder)?, args.force, ctx.cancel.clone());
        let undone = blocking(move || undo(&folder, force, &cancel)).await?;
        let exit = if undone.left.is_empty() { Exit::Done } else { Exit::Conflict };
        return ctx.finish(&Undone(undone), exit);
    }
    let opened = ctx.open_repositories().await?;
    let catalog = ctx.stoppable(Catalog::load(&opened.repositories, ctx.stanza())).await??;
    let manifest = choose(ctx, &catalog, args)?;
    let identities = ctx.identities().await?;
    if args.list {
        let unpack = unpack_options(args)?;
        let entries = list_set(&opened.repositories, &manifest, &identities, &unpack, &ctx.cancel).await?;
        return ctx.print(&Listing::new(&manifest, &entries));
    }
    let staged = stage_set(ctx, args, &opened, &manifest).await?;
    install(ctx, args, &manifest, staged).await
}

async fn stage_set(
    ctx: &Context,
    args: &Args,
    opened: &Opened,
    manifest: &Manifest,
) -> Result<Arc<Staged>, Failure> {
    let folder = args.staging.as_deref().unwrap_or(Path::new(""));
    let mut options = StageOptions::new(absolute(folder)?);
    options.unpack = unpack_options(args)?;
    let identities = ctx.identities().await?;
    let staging = stage(&opened.repositories, manifest, &identities, &options, &ctx.progress, &ctx.cancel);
    let mut staged = Box::pin(staging).await?;
    if let Some(which) = args.secrets {
        let mut secrets = recorded(&opened.repositories, manifest, &identities).await?;
        if secrets.is_empty() {
            tracing::warn!(set = %manifest.set, "the set names no secret that a service keeps");
        }
        let only = &options.unpack.only;
        secrets.retain(|secret| only.is_empty() || only.iter().any(|wanted| is_at(secret, wanted)));
        ctx.stoppable(fetch(ctx.secrets(), &mut staged, &secrets, which.into())).await??;
    }
    if staged.entries.is_empty() {
        return Err(Failure::new(
            backstay_backup_core::Class::Absent,
            format!("set {} holds nothing of that", manifest.set),
        )
        .with_hint("--list names what it holds"));
    }
    Ok(Arc::new(staged))
}

/// Whether a secret belongs to or below that place.
fn is_at(secret: &SecretVersion, wanted: &ArchivePath) -> bool {
    ArchivePath::of_absolute(&secret.file).is_some_and(|file| file.is_within(wanted))
}

/// Compares, and installs if that is wanted.
async fn install(
    ctx: &Context,
    args: &Args,
    manifest: &Manifest,
    staged: Arc<Staged>,
) -> Result<Exit, Failure> {
    let mut options = PlanOptions::default();
    options.root = absolute(&args.root)?;
    options.numeric_owners = args.numeric_owners;
    ctx.progress.begin("comparing");
    let (compared, cancel) = (staged.clone(), ctx.cancel.clone());
    let plan = Arc::new(blocking(move || plan_restore(&compared, &options, &cancel)).await?);
    let diffs: Vec<_> = match args.diff {
        true => plan.steps.iter().filter_map(|step| text_diff(step, &staged, &plan.root)).collect(),
        false => Vec::new(),
    };
    if !args.apply {
        let exit = if plan.conflicts.is_empty() { Exit::Done } else { Exit::Conflict };
        return ctx.finish(&Planned::new(manifest, &staged, &plan, diffs), exit);
    }
    ctx.progress.begin("installing");
    let run_id = run_id(ctx.clock.now());
    let (planned, from, cancel) = (plan.clone(), staged.clone(), ctx.cancel.clone());
    let applied = blocking(move || {
        let applied = apply(&planned, &from, &run_id, &cancel)?;
        // What was installed need not lie about twice.
        forget(&from).map(|()| applied)
    })
    .await?;
    let report = Installed::new(Planned::new(manifest, &staged, &plan, diffs), applied);
    let exit = report.exit();
    ctx.finish(&report, exit)
}

/// Names the kept files of one installation; sorts by time, and two at the same time differ.
fn run_id(now: Timestamp) -> String {
    format!("{}-{:08x}", now.strftime("%Y%m%dT%H%M%SZ"), rand::random::<u32>())
}

fn unpack_options(args: &Args) -> Result<UnpackOptions, Failure> {
    let mut unpack = UnpackOptions::default();
    for path in &args.path {
        let whole = absolute(path)?;
        let inside = ArchivePath::of_absolute(&whole);
        unpack.only.push(inside.ok_or_else(|| Failure::usage(format!("{} names no file", path.display())))?);
    }
    unpack.allow_case_collisions = args.allow_case_collisions || args.list;
    unpack.max_bytes = match (args.max_size, &args.staging) {
        (Some(size), _) => size.bytes(),
        (None, Some(folder)) => room(&absolute(folder)?),
        (None, None) => u64::MAX,
    };
    Ok(unpack)
}

/// Free bytes where a folder is or will be.
fn room(folder: &Path) -> u64 {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(there) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(_) => u64::MAX,
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("cannot find {}: {error}", path.display())))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| Failure::new(backstay_backup_core::Class::Internal, error))?;
    Ok(done?)
}

fn choose(ctx: &Context, catalog: &Catalog, args: &Args) -> Result<Manifest, Failure> {
    let name = args.name.as_ref().or(ctx.config.files.name.as_ref()).map_or(KIND, String::as_str);
    let summary = match &args.set {
        Some(id) => catalog.by_id(id)?,
        None => {
            let mut filter = Filter::default().kind(SetKind::new(KIND)).database(name);
            if let Some(at) = args.at {
                filter = filter.at_or_before(at);
            }
            newest_good(catalog, &filter)?
        }
    };
    Ok(restorable(summary)?.clone())
}
