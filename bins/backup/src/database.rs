//! `backup-database`: arguments, and the report of what was backed up.

use std::fmt;
use std::time::Duration;

use backstay_backup_core::catalog::clock_problems;
use backstay_backup_core::config::Setting;
use backstay_backup_core::manifest::Sha256Hex;
use backstay_cli::{Arguments, Context, Exit, Failure, Opened, PostgresArgs, human};
use backstay_postgres_ops::{
    BackupReport, DumpOptions, DumpPlan, Phase, Selection, Server, backup_database, list_databases,
    plan_backup,
};
use clap::Parser;
use serde::Serialize;

/// Backs up PostgreSQL databases and notes every fact needed to prove a restore.
///
/// Streams pg_dump into the repositories; local disk is never used.
#[derive(Debug, Parser)]
#[command(
    name = "backup-database",
    version,
    after_help = "Every night at two, from cron:\n  \
    0 2 * * *  backup-database --config /etc/backstay/backstay.toml"
)]
pub struct Args {
    /// Database; repeatable [default: that of the URL or configuration]
    #[arg(long = "database", value_name = "NAME")]
    databases: Vec<String>,
    /// Every database of the server, a set for each
    #[arg(long, conflicts_with = "databases")]
    all_databases: bool,
    /// Streams dumped at the same time; each is one session on the server
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Records a digest of every table, so that restores are compared by content
    #[arg(long)]
    digests: bool,
    /// Only this schema (* and ? allowed); repeatable
    #[arg(long, value_name = "SCHEMA")]
    schema: Vec<String>,
    /// Not this schema; repeatable
    #[arg(long, value_name = "SCHEMA")]
    exclude_schema: Vec<String>,
    /// Only this table, view or sequence, as schema.table; repeatable
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Not this table, view or sequence; repeatable
    #[arg(long, value_name = "TABLE")]
    exclude_table: Vec<String>,
    /// The definition but not the rows of this table; repeatable
    #[arg(long, value_name = "TABLE")]
    exclude_table_data: Vec<String>,
    /// Leaves out roles and other things of the whole server
    #[arg(long)]
    no_globals: bool,
    /// Gives up rather than wait longer for a table's lock, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    lock_timeout: u64,
    /// Your own words for the manifest, as KEY=VALUE; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = annotation)]
    annotation: Vec<(String, String)>,
    /// Looks at the server and says what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    postgres: PostgresArgs,
}

pub(crate) fn annotation(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        self.postgres.settings()
    }

    fn about(&self) -> Option<String> {
        match self.databases.as_slice() {
            [] => self.all_databases.then(|| "all databases".to_owned()),
            databases => Some(databases.join(", ")),
        }
    }
}

/// Runs the program.
///
/// # Errors
/// Whatever stops the only database. Of several the others are backed up all the same, and the report names those
/// that failed.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let server = ctx.postgres().await?;
    let options = options(ctx, args)?;
    let databases = databases(&server, args).await?;
    if args.dry_run {
        let mut plans = Plans { databases: Vec::new() };
        for database in databases {
            plans.databases.push(plan_backup(&server.with_database(&database), &options).await?);
        }
        return ctx.print(&plans);
    }
    let check = async {
        for database in &databases {
            ctx.stoppable(plan_backup(&server.with_database(database), &options)).await??;
        }
        Ok(())
    };
    let opened = ctx.open_or_create(Box::pin(check)).await?;
    let mut summary = Summary { sets: Vec::new(), failed: Vec::new() };
    for database in &databases {
        match back_up(ctx, &server.with_database(database), &opened, &options).await {
            Ok(set) => summary.sets.push(set),
            Err(failure) if databases.len() == 1 || ctx.cancel.is_cancelled() => return Err(failure),
            Err(failure) => summary.failed.push(NotBackedUp::new(database, &failure)),
        }
    }
    let exit = summary.exit();
    ctx.finish(&summary, exit)
}

/// One database, while nobody else backs it up.
async fn back_up(
    ctx: &Context,
    server: &Server,
    opened: &Opened,
    options: &DumpOptions,
) -> Result<BackedUp, Failure> {
    let backup = async {
        let report = backup_database(server, &opened.repositories, options, &ctx.progress, &ctx.cancel);
        // On the heap: the futures of whole backups are large.
        Ok(Box::pin(report).await?)
    };
    let report = ctx.under_lease(&opened.repositories, &lease_name(&server.database), backup).await?;
    let mut set = BackedUp::new(&report);
    set.warnings.extend(clock_problems(&opened.repositories, &report.receipt).await);
    let unavailable = opened.unavailable.iter();
    set.missing_in.extend(unavailable.map(|left_out| (left_out.name.clone(), left_out.failure.message())));
    Ok(set)
}

/// The lease of a database's backups. A name that cannot be part of a key is replaced by its digest.
fn lease_name(database: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if database.bytes().all(plain) {
        return format!("backup-database-{database}");
    }
    let digest = Sha256Hex::of(database.as_bytes()).to_string();
    format!("backup-database-={}", &digest[..32])
}

async fn databases(server: &Server, args: &Args) -> Result<Vec<String>, Failure> {
    if args.all_databases {
        let mut connection = server.connect().await?;
        return Ok(list_databases(&mut connection, server).await?);
    }
    Ok(if args.databases.is_empty() { vec![server.database.clone()] } else { args.databases.clone() })
}

fn options(ctx: &Context, args: &Args) -> Result<DumpOptions, Failure> {
    let recipients = ctx.recipients()?;
    let mut selection = Selection::default();
    selection.include_schemas.clone_from(&args.schema);
    selection.exclude_schemas.clone_from(&args.exclude_schema);
    selection.include_tables.clone_from(&args.table);
    selection.exclude_tables.clone_from(&args.exclude_table);
    selection.exclude_data.clone_from(&args.exclude_table_data);
    let mut options = DumpOptions::new(ctx.stanza().clone()).jobs(args.jobs).digests(args.digests);
    options.selection = selection;
    options.recipients = recipients;
    options.globals = !args.no_globals;
    options.lock_timeout = Duration::from_secs(args.lock_timeout);
    options.annotations = args.annotation.iter().cloned().collect();
    options.tools = ctx.postgres_tools();
    options.tool = concat!("backup-database ", env!("CARGO_PKG_VERSION")).to_owned();
    options.codec = ctx.config.compression.codec;
    options.data_path = ctx.data_path();
    options.retain_until = ctx.retain_until();
    Ok(options)
}

/// What `--dry-run` prints.
#[derive(Debug, Serialize)]
struct Plans {
    databases: Vec<DumpPlan>,
}

impl fmt::Display for Plans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, plan) in self.databases.iter().enumerate() {
            let gap = if at > 0 { "\n" } else { "" };
            write!(
                f,
                "{gap}would back up {} (PostgreSQL {}, {}, {} tables) with {} {}\n  streams:",
                plan.server,
                plan.server_version,
                human::Bytes(plan.database_size),
                plan.tables,
                plan.client,
                plan.client_major
            )?;
            for (name, bytes) in &plan.streams {
                write!(f, " {name} ({} of rows)", human::Bytes(*bytes))?;
            }
            write!(f, "; local disk: none")?;
            for warning in &plan.warnings {
                write!(f, "\n! {warning}")?;
            }
        }
        Ok(())
    }
}

/// What a run prints.
#[derive(Debug, Serialize)]
struct Summary {
    sets: Vec<BackedUp>,
    failed: Vec<NotBackedUp>,
}

impl Summary {
    /// The gravest failure; without one, whether every repository has every set.
    fn exit(&self) -> Exit {
        let complete = self.sets.iter().all(|set| set.missing_in.is_empty());
        let otherwise = if complete { Exit::Done } else { Exit::Missed };
        self.failed.iter().map(|failed| failed.exit).max().unwrap_or(otherwise)
    }
}

/// A database of several that could not be backed up.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct NotBackedUp {
    database: String,
    problem: String,
    exit_code: u8,
    #[serde(skip)]
    exit: Exit,
}

impl NotBackedUp {
    fn new(database: &str, failure: &Failure) -> Self {
        let (problem, exit) = (failure.message(), failure.exit());
        Self { database: database.to_owned(), problem, exit_code: exit.code(), exit }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct BackedUp {
    set: String,
    stanza: String,
    database: String,
    recovery_point: String,
    tables: usize,
    rows: u64,
    database_bytes: u64,
    plain_bytes: u64,
    stored_bytes: u64,
    stored_in: Vec<String>,
    missing_in: Vec<(String, String)>,
    warnings: Vec<String>,
    phases: Vec<Phase>,
    seconds: f64,
}

impl BackedUp {
    fn new(report: &BackupReport) -> Self {
        let manifest = &report.receipt.manifest;
        Self {
            set: manifest.set.to_string(),
            stanza: manifest.stanza.to_string(),
            database: manifest.source.database.clone(),
            recovery_point: manifest.recovery_point.to_string(),
            tables: report.facts.tables.len(),
            rows: report.facts.tables.iter().map(|table| table.rows).sum(),
            database_bytes: report.facts.database.size,
            plain_bytes: manifest.plain_size(),
            stored_bytes: manifest.stored_size(),
            stored_in: report.receipt.stored_in.clone(),
            missing_in: report.receipt.missing_in.clone(),
            warnings: report.warnings.clone(),
            phases: report.phases.clone(),
            seconds: report.elapsed.as_secs_f64(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, set) in self.sets.iter().enumerate() {
            let gap = if at > 0 { "\n" } else { "" };
            write!(
                f,
                "{gap}set {} of database {}: {} tables, {} rows, {} stored as {} in {:.1} s ({})",
                set.set,
                set.database,
                set.tables,
                set.rows,
                human::Bytes(set.plain_bytes),
                human::Bytes(set.stored_bytes),
                set.seconds,
                set.stored_in.join(", ")
            )?;
            for (repository, reason) in &set.missing_in {
                write!(f, "\n  not in {repository}: {reason}")?;
            }
            for warning in &set.warnings {
                write!(f, "\n! {warning}")?;
            }
        }
        for (at, failed) in self.failed.iter().enumerate() {
            let gap = if at > 0 || !self.sets.is_empty() { "\n" } else { "" };
            write!(f, "{gap}! database {} was not backed up: {}", failed.database, failed.problem)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use backstay_backup_core::key::Key;

    use super::*;

    #[test]
    fn every_database_has_a_lease_of_its_own_with_a_valid_name() {
        let names = ["shop", "Shop", "a b", "größe", "a/b", "..", &"x".repeat(63)].map(lease_name);
        assert!(names.iter().all(|name| Key::parse(format!("{name}.json")).is_ok()), "{names:?}");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert_eq!(names[0], "backup-database-shop");
    }
}
