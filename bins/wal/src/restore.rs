//! `restore-wal`: arguments, the call, its exit codes.
//!
//! PostgreSQL takes 1 to 125 as "this is the end of the log": it stops replaying, promotes and reports success. So 1 is
//! said only of what is proven to be absent, and every other trouble ends above 125, which stops recovery.

mod boot;
mod kept;
mod place;
mod prefetch;
mod prefetched;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstay_backup_core::Class;
use backstay_backup_core::config::{Config, Setting};
use backstay_cli::{Arguments, Cancelled, Context, Ending, Exit, Failure, IdentityArgs, Opened};
use backstay_postgres_ops::wal::{SystemId, WalError, WalFile};
use backstay_postgres_ops::wal_archive::{FetchedFile, OpenTarget, WalArchive, WalArchiveError};
use clap::Parser;
use rand::RngExt as _;

use crate::data_directory::DataDirectory;
use place::Beside;
use prefetched::Prefetched;

/// What the usual exit codes are raised by.
pub(crate) const RAISED: u8 = 200;
/// Of a bug of ours; the usual code is too large to be raised.
const BUG: u8 = 250;
/// What a shell makes of SIGTERM. PostgreSQL then knows that it was told to stop, and says nothing of a failure.
const TERMINATED: u8 = 143;
/// The first pause between attempts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Fetches one WAL file, for PostgreSQL's restore_command.
///
/// Ends with 1 only when the log is proven to end before the file; any other trouble ends above 125, so that the server
/// stops instead of promoting with data missing.
#[derive(Debug, Parser)]
#[command(
    name = "restore-wal",
    version,
    after_help = "In postgresql.conf:\n  \
    restore_command = 'restore-wal %f %p --config /etc/backstay/backstay.toml'"
)]
pub struct Args {
    /// Name of the file, as PostgreSQL's %f
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it goes, as PostgreSQL's %p
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// For a standby, which asks again: ends with 1 for temporary trouble too; needs its standby.signal
    #[arg(long)]
    standby: bool,
    /// Gives up after this time, such as 30s [default: 2m]
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// Fetches nothing but this file
    #[arg(long)]
    no_prefetch: bool,
    /// Directory for segments fetched ahead
    #[arg(long, value_name = "DIR")]
    spool: Option<String>,
    /// Identity of the cluster [default: what its control file says]
    #[arg(long, value_name = "NUMBER")]
    system_identifier: Option<u64>,
    /// Works on beside the server
    #[arg(long, hide = true)]
    helper: bool,
    #[command(flatten)]
    identity: IdentityArgs,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        let mut settings = crate::spool_setting(self.spool.as_deref());
        settings.extend(self.identity.settings());
        settings.extend(self.deadline.as_ref().map(|time| Setting::new("wal.deadline", time, "--deadline")));
        settings
    }
}

impl Args {
    fn file(&self) -> Result<WalFile, Failure> {
        self.name.parse().map_err(|error: WalError| Failure::new(Class::Usage, error))
    }

    fn prefetches(&self, config: &Config) -> bool {
        !self.no_prefetch && config.wal.prefetch > 0
    }

    /// Whether the server tries by itself. One that only recovers takes a 1 for the end of the log, whatever this program
    /// was told, so the flag alone does not count: a configuration outlives what the server is.
    fn asks_again(&self, data: &DataDirectory) -> bool {
        let is_standby = self.standby && data.is_standby();
        if self.standby && !is_standby {
            tracing::warn!(
                "--standby does not count: there is no standby.signal, so this server will not ask again"
            );
        }
        is_standby
    }

    fn system(&self, data: &DataDirectory) -> Result<SystemId, Failure> {
        if let Some(system) = self.system_identifier {
            return Ok(SystemId::new(system));
        }
        data.system().map_err(|error| {
            Failure::usage(format!("cannot read the control file of the cluster: {error}"))
                .with_hint("run it in the data directory, or name the cluster with --system-identifier")
        })
    }
}

/// The exit code of an ending. Never 1 to 125 but for proven absence, and never 0 without a file.
#[must_use]
pub fn code(ending: &Ending) -> u8 {
    match ending {
        Ending::Returned(Exit::Done) => 0,
        Ending::Returned(Exit::Absent) => 1,
        // Asked for by a person. With anything else it may be a command of a server, which takes 0 for a file.
        Ending::Answered if std::env::args_os().len() == 2 => 0,
        Ending::Answered | Ending::Refused => RAISED + Exit::Usage.code(),
        Ending::Failed(failure) if failure.error().downcast_ref::<Cancelled>().is_some() => TERMINATED,
        Ending::Failed(failure) if failure.exit() == Exit::Internal => BUG,
        Ending::Failed(failure) => RAISED + failure.exit().code(),
        Ending::Returned(Exit::Internal) => BUG,
        Ending::Returned(exit) => RAISED + exit.code(),
        _ => BUG,
    }
}

/// Whether the segment of this call is in its place, because it was fetched ahead, or is while this waits.
///
/// Whatever is wrong is found again, and told, by the call itself.
#[must_use]
pub fn is_done(config: &Config, args: &Args) -> bool {
    if args.helper || !args.prefetches(config) {
        return false;
    }
    let prefetched = prefetched_of(config, args);
    prefetched.is_ok_and(|prefetched| prefetched.take(&args.path, config.wal.deadline.duration()))
}

fn prefetched_of(config: &Config, args: &Args) -> Result<Prefetched, Option<std::io::Error>> {
    let data = DataDirectory::here();
    let (Ok(WalFile::Segment(segment)), Ok(system)) = (args.file(), args.system(&data)) else {
        return Err(None);
    };
    Prefetched::open(config, &data, segment, system)
}

/// Runs the program.
///
/// # Errors
/// Whatever keeps the file from being fetched, or its absence from being proven.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let data = DataDirectory::here();
    let (file, system) = (args.file()?, args.system(&data)?);
    let prefetched = match args.prefetches(&ctx.config) {
        true => prefetched_of(&ctx.config, args),
        false => Err(None),
    };
    if let Err(Some(problem)) = &prefetched {
        tracing::warn!("no prefetch: {problem}");
    }
    let prefetched = prefetched.ok();
    if args.helper {
        return match prefetched {
            Some(prefetched) => prefetch::run(ctx, prefetched, data).await,
            None => Ok(Exit::Conflict),
        };
    }
    let claim = match prefetched.clone() {
        Some(prefetched) => match prefetched.claim() {
            // A helper has begun with it a moment ago.
            None if waited_for(ctx, args, prefetched).await => return Ok(Exit::Done),
            claim => claim,
        },
        None => None,
    };
    let asks_again = args.asks_again(&data);
    let beside = Beside::of(&args.path);
    // A helper that lives and did not fetch it has most likely come to the end of the log.
    let is_expected = !prefetched.as_ref().is_some_and(Prefetched::has_helper);
    if let (Some(prefetched), Some(_)) = (&prefetched, &claim) {
        prefetched.begin();
    }
    let wanted = Wanted { file, system, target: beside.target(), is_expected };
    let fetched = match ctx.stoppable(patiently(ctx, asks_again, &wanted)).await? {
        Ok(Some(fetched)) => fetched,
        Ok(None) => return Ok(Exit::Absent),
        Err(failure) if asks_again && is_passing(&failure) => {
            tracing::warn!("the server will ask again: {}", failure.message());
            return Ok(Exit::Absent);
        }
        Err(failure) => return Err(failure),
    };
    let unable = |source| WalArchiveError::Target { file, source };
    beside.publish().map_err(unable)?;
    drop(claim);
    if let Some(prefetched) = &prefetched {
        prefetched.taken(fetched.length);
    }
    Ok(Exit::Done)
}

/// Whether a helper had the segment in the end.
async fn waited_for(ctx: &Context, args: &Args, prefetched: Prefetched) -> bool {
    let (path, patience) = (args.path.clone(), ctx.config.wal.deadline.duration());
    let waiting = tokio::task::spawn_blocking(move || prefetched.take(&path, patience));
    waiting.await.unwrap_or(false)
}

/// Whether a server that asks again may find that it has passed: stores that do not answer, and a segment that is still
/// on its way while a later one has arrived.
fn is_passing(failure: &Failure) -> bool {
    let error = failure.error().downcast_ref();
    let is_temporary = failure.class() == Class::Temporary && !is_of_target(failure);
    is_temporary || matches!(error, Some(WalArchiveError::Hole { .. }))
}

/// Whether the place to write to is what fails, which asking stores again does not help. One that is only busy is left by
/// a call of a server that is gone, and soon free.
fn is_of_target(failure: &Failure) -> bool {
    let error = failure.error().downcast_ref();
    matches!(error, Some(WalArchiveError::Target { source, .. }) if source.kind() != ErrorKind::ResourceBusy)
}

/// What is wanted, and where.
struct Wanted {
    file: WalFile,
    system: SystemId,
    target: OpenTarget,
    /// Whether it is probably there.
    is_expected: bool,
}

/// Tries until it is there, or proven to be absent, or the time is over. A standby's server tries by itself.
async fn patiently(ctx: &Context, asks_again: bool, wanted: &Wanted) -> Result<Option<FetchedFile>, Failure> {
    let end = Instant::now() + ctx.config.wal.deadline.duration();
    let (mut pause, mut last) = (PAUSES.0, None);
    loop {
        let failure = match tokio::time::timeout_at(end.into(), fetch(ctx, wanted)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failure)) => failure,
            Err(_) => {
                let seconds = ctx.config.wal.deadline.as_secs();
                let silence = || Failure::new(Class::Temporary, format!("no answer within {seconds} s"));
                return Err(last.unwrap_or_else(silence));
            }
        };
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        let is_final = asks_again || failure.class() == Class::Internal || is_of_target(&failure);
        if is_final || Instant::now() + jittered >= end {
            return Err(failure);
        }
        tracing::warn!(file = %wanted.file, "tried again: {}", failure.message());
        last = Some(failure);
        tokio::time::sleep(jittered).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn fetch(ctx: &Context, wanted: &Wanted) -> Result<Option<FetchedFile>, Failure> {
    let Wanted { file, system, target, is_expected } = wanted;
    let identities = ctx.identities().await?;
    let fetching = async |repositories| {
        let archive = WalArchive::new(repositories, ctx.stanza().clone(), *system);
        archive.expects(*is_expected).fetch_file(*file, &identities, target).await
    };
    let (Opened { unavailable, .. }, fetched) = ctx.open_meanwhile(fetching).await?;
    match fetched? {
        Some(fetched) => Ok(Some(fetched)),
        None => match unavailable.into_iter().next() {
            None => Ok(None),
            // It may be there, and only there.
            Some(unasked) => {
                let text = format!(
                    "{file} is not in the repositories that answer, but {} does not: {}",
                    unasked.name,
                    unasked.failure.message()
                );
                let hint = "take it out of the configuration if it is lost for good";
                Err(Failure::new(unasked.failure.class(), text).with_hint(hint))
            }
        },
    }
}

/// The directory that an entry lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absence_and_success_lie_below_126() {
        let classes = [
            (Class::Absent, 201),
            (Class::Usage, 202),
            (Class::Data, 203),
            (Class::Conflict, 204),
            (Class::Temporary, 205),
            (Class::Internal, 250),
        ];
        for (class, expected) in classes {
            assert_eq!(code(&Ending::Failed(Failure::new(class, "x"))), expected, "{class:?}");
        }
        assert_eq!(code(&Ending::Failed(Failure::cancelled())), 143);
        assert_eq!(code(&Ending::Refused), 202);
        assert_eq!(code(&Ending::Panicked), 250);
        for (exit, expected) in
            [(Exit::Done, 0), (Exit::Absent, 1), (Exit::Missed, 206), (Exit::Internal, 250)]
        {
            assert_eq!(code(&Ending::Returned(exit)), expected, "{exit:?}");
        }
    }
}
