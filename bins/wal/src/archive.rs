//! `archive-wal`: arguments, the call, its report.

mod ahead;
mod pusher;
mod registered;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use backstay_backup_core::config::{Config, Setting};
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::sealed::SealOptions;
use backstay_backup_core::{Class, Error as CoreError};
use backstay_cli::{Arguments, Context, Exit, Failure};
use backstay_postgres_ops::wal::{SegmentHeader, SystemId, WalError, WalFile};
use backstay_postgres_ops::wal_archive::{ClusterRegistry, PushReceipt, WalArchive, WalSource, prepare};
use clap::Parser;
use futures::future::join;
use serde::Serialize;

use crate::data_directory::DataDirectory;
use crate::spool::Spool;
use ahead::Ahead;

/// Name and version in records.
pub(crate) const TOOL: &str = concat!("archive-wal ", env!("CARGO_PKG_VERSION"));
/// Threads that compress one segment.
const THREADS: usize = 2;

/// Archives one WAL file, for PostgreSQL's archive_command.
///
/// Ends with 0 only when the file is durable in the quorum of repositories.
#[derive(Debug, Parser)]
#[command(
    name = "archive-wal",
    version,
    after_help = "In postgresql.conf:\n  \
    archive_command = 'archive-wal %p --config /etc/backstay/backstay.toml'"
)]
pub struct Args {
    /// The file, as PostgreSQL's %p
    #[arg(value_name = "PATH", required_unless_present = "register")]
    path: Option<PathBuf>,
    /// Makes this cluster the one of the stanza, and an empty place a repository; run in the data directory
    #[arg(long, conflicts_with = "path")]
    register: bool,
    /// Archives nothing but this file
    #[arg(long)]
    no_look_ahead: bool,
    /// Directory for notes on what was archived ahead
    #[arg(long, value_name = "DIR")]
    spool: Option<String>,
    /// Identity of the cluster [default: what its control file or the segment says]
    #[arg(long, value_name = "NUMBER")]
    system_identifier: Option<u64>,
    /// Works on beside the server
    #[arg(long, hide = true)]
    helper: bool,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        crate::spool_setting(self.spool.as_deref())
    }
}

impl Args {
    fn system(&self) -> Option<SystemId> {
        self.system_identifier.map(SystemId::new)
    }

    fn looks_ahead(&self, config: &Config) -> bool {
        !self.no_look_ahead && config.wal.look_ahead > 0
    }
}

/// Whether the segment of this call was archived ahead, or is while this waits.
///
/// Whatever is wrong is found again, and told, by the call itself.
#[must_use]
pub fn is_done(config: &Config, args: &Args) -> bool {
    match args.path.as_deref().filter(|_| !args.helper && args.looks_ahead(config)) {
        Some(path) => Ahead::of(config, path, args.system()).is_ok_and(|ahead| ahead.is_done_or_free()),
        None => false,
    }
}

/// Runs the program.
///
/// # Errors
/// Whatever keeps the file from being durable in the quorum.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    match args.path.as_deref() {
        Some(path) if args.helper => pusher::run(ctx, path, args.system()).await,
        Some(path) => archive(ctx, args, path).await,
        None => register(ctx, args).await,
    }
}

/// One file.
async fn archive(ctx: &Context, args: &Args, path: &Path) -> Result<Exit, Failure> {
    let name = name_of(path)?;
    let source = open(name, path)?;
    let header = source.header()?;
    let data = DataDirectory::of(path);
    let system = match (args.system(), header) {
        (Some(system), _) => system,
        // What the control file says is compared with the header of the segment.
        (None, _) => match (data.system(), header) {
            (Ok(system), _) => system,
            (Err(_), Some(header)) => header.system,
            (Err(error), None) => {
                return Err(Failure::usage(format!("cannot read the control file of the cluster: {error}"))
                    .with_hint("name the cluster with --system-identifier"));
            }
        },
    };
    let ahead =
        if args.looks_ahead(&ctx.config) { Ahead::of(&ctx.config, path, Some(system)) } else { Err(None) };
    if let Err(Some(problem)) = &ahead {
        tracing::warn!("no look-ahead: {problem}");
    }
    let ahead = ahead.ok();
    // Told to the helper, so that it does not push the same.
    let claim = match ahead.clone() {
        Some(ahead) => match ahead.claim() {
            // A helper has begun with it a moment ago.
            None if waited_for(ahead).await => return Ok(Exit::Done),
            claim => claim,
        },
        None => None,
    };
    let options = sealing(ctx)?;
    // A distant store is asked whether this is its cluster while the file is compressed.
    let asking = open_mine(ctx, system, header, ahead.as_ref().map(Ahead::spool));
    let (repositories, prepared) = ctx.stoppable(join(asking, prepare(source, system, &options))).await?;
    let archive = WalArchive::new(repositories?, ctx.stanza().clone(), system).sealed_with(options);
    let pushed = ctx.stoppable(archive.push_prepared(prepared?)).await??;
    drop(claim);
    for (repository, problem) in &pushed.missing {
        tracing::warn!(repository, %name, problem, "not archived there");
    }
    if let Some(ahead) = &ahead {
        ahead.start_helper();
    }
    ctx.print(&Archived::new(&pushed))
}

/// Opens the repositories, and makes sure that the stanza is this cluster's.
async fn open_mine(
    ctx: &Context,
    system: SystemId,
    header: Option<SegmentHeader>,
    spool: Option<&Spool>,
) -> Result<Repositories, Failure> {
    let opened = ctx.open_quorum().await?;
    let registry = ClusterRegistry::new(opened.repositories.clone(), ctx.stanza().clone());
    registered::ensure(&registry, system, header, spool).await?;
    Ok(opened.repositories)
}

/// Whether a helper had the segment archived in the end.
async fn waited_for(ahead: Ahead) -> bool {
    tokio::task::spawn_blocking(move || ahead.is_done_or_free()).await.unwrap_or(false)
}

/// Makes the cluster of this data directory the one of the stanza.
async fn register(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let cluster = registered::identity(&DataDirectory::here(), args.system_identifier)?;
    let opened = ctx.open_or_create(async { Ok(()) }).await?;
    let registry = ClusterRegistry::new(opened.repositories, ctx.stanza().clone());
    let record = registry.register(cluster, TOOL).await?;
    ctx.print(&Registered {
        stanza: record.stanza.to_string(),
        number: record.number,
        system_identifier: record.system_identifier.to_string(),
    })
}

/// WAL is always zstd; a level that was meant for something else is not taken.
fn sealing(ctx: &Context) -> Result<SealOptions, Failure> {
    let compression = &ctx.config.compression;
    let level = compression.level.filter(|_| compression.codec == Codec::Zstd).unwrap_or(3);
    Ok(SealOptions::default().level(level).threads(THREADS).recipients(ctx.recipients()?))
}

fn name_of(path: &Path) -> Result<WalFile, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.parse().map_err(|error: WalError| Failure::new(Class::Usage, error))
}

fn open(name: WalFile, path: &Path) -> Result<WalSource, Failure> {
    let opened = File::open(path).and_then(|file| WalSource::new(name, file));
    Ok(opened.map_err(|source| CoreError::Source { object: path.display().to_string(), source })?)
}

/// What was archived, for `--json`; there is no text, because a server's log has enough of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Archived {
    file: String,
    bytes: u64,
    digest: String,
    stored: Vec<String>,
    present: Vec<String>,
    missing: Vec<String>,
}

impl Archived {
    fn new(receipt: &PushReceipt) -> Self {
        Self {
            file: receipt.file.to_string(),
            bytes: receipt.seal.length,
            digest: receipt.seal.digest.to_string(),
            stored: receipt.stored.clone(),
            present: receipt.present.clone(),
            missing: receipt.missing.iter().map(|(name, _)| name.clone()).collect(),
        }
    }
}

impl fmt::Display for Archived {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Registered {
    stanza: String,
    number: u32,
    system_identifier: String,
}

impl fmt::Display for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stanza {} belongs to cluster {} (registration {})",
            self.stanza, self.system_identifier, self.number
        )
    }
}
