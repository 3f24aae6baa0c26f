//! `verify-backups`: finds out whether backups still are what they were, and whether they restore.

mod report;
mod restore_test;
mod wal;

use std::path::PathBuf;

use backstay_backup_core::catalog::{Catalog, Filter, SetSummary};
use backstay_backup_core::config::{Setting, TimeSpan};
use backstay_backup_core::verify::{Depth, VerifyOptions, verify_set};
use backstay_cli::{Arguments, Context, Exit, Failure, IdentityArgs, Opened};
use clap::Parser;

use report::Verification;
use wal::ArchivedWal;

/// Verifies every copy of every set in every repository, and keeps the result beside it.
///
/// By default existence and size of every object. Ends with 3 when anything is damaged.
#[derive(Debug, Parser)]
#[command(
    name = "verify-backups",
    version,
    after_help = "Every night what was not read for a week, and once a week a real restore:\n  \
    41 3 * * *  verify-backups --full --recheck-after 7d --config /etc/backstay/backstay.toml\n  \
    41 5 * * 6  verify-backups --restore-test --config /etc/backstay/backstay.toml"
)]
pub struct Args {
    /// Reads every stored byte and compares its digest
    #[arg(long)]
    full: bool,
    /// Decrypts and decompresses everything too; includes --full
    #[arg(long)]
    content: bool,
    /// Skips copies that passed such a verification this lately, such as 7d
    #[arg(long, value_name = "SPAN")]
    recheck_after: Option<TimeSpan>,
    /// Only this set; the beginning of its id is enough
    #[arg(long, value_name = "SET")]
    set: Option<String>,
    /// Only sets of this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Objects read at the same time in each repository
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Restores into a throwaway server or folder and compares; --set, or the newest good set of everything there is
    #[arg(long)]
    restore_test: bool,
    /// SQL file whose queries must return a row that begins with neither null nor false; repeatable
    #[arg(long, value_name = "FILE", requires = "restore_test")]
    check: Vec<PathBuf>,
    /// What a restored cluster gets its WAL with [default: restore-wal with the same repositories]
    #[arg(long, value_name = "COMMAND", requires = "restore_test")]
    restore_command: Option<String>,
    /// Folder for the throwaway server [default: the system's temporary folder]
    #[arg(long, value_name = "DIR", requires = "restore_test")]
    scratch: Option<PathBuf>,
    /// Redis or Valkey server for it [default: the first in PATH]
    #[arg(long, value_name = "FILE", requires = "restore_test")]
    server_program: Option<PathBuf>,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Folder of PostgreSQL's programs
    #[arg(long, value_name = "FOLDER")]
    bin_dir: Option<String>,
    /// Keeps no record of the result
    #[arg(long)]
    no_proof: bool,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        let folder = self.bin_dir.as_ref().map(|dir| Setting::new("postgres.bin-dir", dir, "--bin-dir"));
        self.identity.settings().into_iter().chain(folder).collect()
    }
}

/// Verifies, or restores for a test.
///
/// # Errors
/// No repository can be read, or there is no such set.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let opened = context.stoppable(context.open_repositories()).await??;
    let catalog = context.stoppable(Catalog::load(&opened.repositories, context.stanza())).await??;
    let report = if args.restore_test {
        restore_test::run(context, &args, &opened, &catalog).await?
    } else {
        verify(context, &args, &opened, &catalog).await?
    };
    let exit = report.exit();
    context.finish(&report, exit)
}

async fn verify(
    context: &Context,
    args: &Args,
    opened: &Opened,
    catalog: &Catalog,
) -> Result<Verification, Failure> {
    let options = options(context, args).await?;
    let mut report = Verification::new(opened, catalog);
    let archived = ArchivedWal::survey(context, opened, catalog).await?;
    for set in chosen(args, catalog)? {
        context.progress.begin(set.id.as_str());
        let verified = context.stoppable(verify_set(&opened.repositories, &catalog.stanza, set, &options));
        let mut verified = verified.await?;
        if let Some(wal) = context.stoppable(archived.check(set, options.depth)).await? {
            verified.add_problems(&wal.problems(), &wal.unchecked);
            report.wal.push(wal);
        }
        if !args.no_proof {
            let stored = verified.store_proofs(&opened.repositories, crate::TOOL).await;
            report.note_proof(&set.id, stored.map_err(Failure::from));
        }
        report.sets.push(verified);
    }
    Ok(report)
}

async fn options(context: &Context, args: &Args) -> Result<VerifyOptions, Failure> {
    let depth = if args.full || args.content { Depth::Full } else { Depth::Quick };
    let mut options =
        VerifyOptions::new(depth).workers(usize::from(args.workers)).progress(context.progress.clone());
    if args.content {
        options = options.content(context.identities().await?);
    }
    if let Some(span) = args.recheck_after {
        options = options.recheck_after(span);
    }
    Ok(options)
}

fn chosen<'a>(args: &Args, catalog: &'a Catalog) -> Result<Vec<&'a SetSummary>, Failure> {
    if let Some(id) = &args.set {
        return Ok(vec![catalog.by_id(id)?]);
    }
    match &args.database {
        None => Ok(catalog.sets.iter().collect()),
        Some(database) => {
            let filter = Filter::default().database(database);
            let ids: Vec<_> = catalog.select(&filter).map(|set| set.id.clone()).collect();
            Ok(catalog.sets.iter().filter(|set| ids.contains(&set.id)).collect())
        }
    }
}
