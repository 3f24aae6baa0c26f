//! `restore-code`: arguments, choice of the set, and what was done.

mod report;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::catalog::{Catalog, Filter, SetSummary};
use backstay_backup_core::config::{Setting, TimeSpan};
use backstay_backup_core::manifest::SetKind;
use backstay_backup_core::process::CommandRunner;
use backstay_cli::{Arguments, Context, Exit, Failure, IdentityArgs, restorable};
use backstay_file_ops::code::{
    FileOptions, KIND, Name, RestoreOptions, StoredSet, describe, restore, restore_file,
};
use clap::Parser;
use jiff::Timestamp;

use crate::choice::newest_good;
use report::{Done, FileDone, Planned};

/// Restores a git repository: shows what a set holds; then, with --apply, into a folder that is not there yet.
///
/// The folder appears when refs, HEAD, LFS objects and git fsck say that it is what was backed up, and not before.
#[derive(Debug, Parser)]
#[command(
    name = "restore-code",
    version,
    after_help = "The newest set of a repository into a fresh folder, every week, from a cron table:\n  \
    0 5 * * 1  restore-code --config /etc/backstay/backstay.toml --name shop --to /srv/drill/shop --apply"
)]
pub struct Args {
    /// Folder (with --file: file) that is not there yet; an empty folder is taken too
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// Restores; without it nothing is written
    #[arg(long)]
    apply: bool,
    /// What the sets are called [default: the only one there is]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The set, or the beginning of its id [default: the newest good one]
    #[arg(long, value_name = "ID", conflicts_with = "name")]
    set: Option<String>,
    /// The newest good set that is not newer than this, as 2026-11-22T14:30:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "set")]
    at: Option<Timestamp>,
    /// Applies what was not committed, if the set has it
    #[arg(long, conflicts_with_all = ["bare", "file"])]
    uncommitted: bool,
    /// Without a working tree [default: as it was]
    #[arg(long, conflicts_with = "file")]
    bare: bool,
    /// Only this file, seen from the top of the repository
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Branch, tag or commit that --file is taken from
    #[arg(long, value_name = "REV", default_value = "HEAD", requires = "file")]
    rev: String,
    /// Time for git to go through the repository
    #[arg(long, value_name = "SPAN", default_value = "6h")]
    timeout: TimeSpan,
    #[command(flatten)]
    identity: IdentityArgs,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        self.identity.settings()
    }
}

/// Runs the program.
///
/// # Errors
/// Whatever stops the restore; nothing is at the place then.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let to = absolute(&args.to)?;
    let opened = ctx.open_repositories().await?;
    let catalog = ctx.stoppable(Catalog::load(&opened.repositories, ctx.stanza())).await??;
    let set = choose(&catalog, args)?;
    let manifest = restorable(set)?;
    let identities = ctx.identities().await?;
    let runner: Arc<dyn CommandRunner> = Arc::new(ctx.runner());
    let stored = StoredSet {
        repositories: &opened.repositories,
        catalog: &catalog,
        set,
        identities: &identities,
        runner: &runner,
        progress: &ctx.progress,
        cancel: &ctx.cancel,
    };
    if !args.apply {
        let described = ctx.stoppable(describe(&stored, Some(&to))).await??;
        let planned = Planned::new(manifest, &to, described);
        let exit = planned.exit();
        return ctx.finish(&planned, exit);
    }
    if let Some(file) = &args.file {
        let mut options = FileOptions::new(to.clone(), name(file));
        options.revision.clone_from(&args.rev);
        let commit = Box::pin(restore_file(&stored, &options)).await?;
        return ctx.print(&FileDone::new(manifest, file, commit, &to));
    }
    let mut options = RestoreOptions::new(&to);
    options.bare = args.bare.then_some(true);
    options.uncommitted = args.uncommitted;
    options.timeout = Duration::from_secs(args.timeout.as_secs());
    let restored = Box::pin(restore(&stored, &options)).await?;
    ctx.print(&Done::new(manifest, restored))
}

fn name(file: &Path) -> Name {
    use std::os::unix::ffi::OsStrExt as _;
    Name(file.as_os_str().as_bytes().to_vec())
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("cannot find {}: {error}", path.display())))
}

fn choose<'a>(catalog: &'a Catalog, args: &Args) -> Result<&'a SetSummary, Failure> {
    if let Some(id) = &args.set {
        return Ok(catalog.by_id(id)?);
    }
    let mut filter = Filter::default().kind(SetKind::new(KIND));
    filter.database = match &args.name {
        Some(name) => Some(name.clone()),
        None => only_name(catalog, &filter)?,
    };
    if let Some(at) = args.at {
        filter = filter.at_or_before(at);
    }
    newest_good(catalog, &filter)
}

/// The name that all sets of code have.
fn only_name(catalog: &Catalog, filter: &Filter) -> Result<Option<String>, Failure> {
    let manifests = catalog.select(filter).filter_map(|set| set.manifest.as_deref());
    let names: BTreeSet<_> = manifests.map(|manifest| manifest.source.database.clone()).collect();
    if names.len() > 1 {
        let names: Vec<_> = names.into_iter().collect();
        let problem = format!("there are sets of several repositories: {}", names.join(", "));
        return Err(Failure::new(Class::Usage, problem).with_hint("say which with --name"));
    }
    Ok(names.into_iter().next())
}
