//! `archive-redis`: arguments, and the report of what was archived.

mod report;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::config::{ByteSize, Setting, TimeSpan};
use backstay_backup_core::lease::LeaseOptions;
use backstay_backup_core::manifest::{SetKind, Source as ManifestSource};
use backstay_backup_core::sealed::SealOptions;
use backstay_backup_core::set_writer::SetSpec;
use backstay_cli::{Arguments, Context, Exit, Failure, Opened, RedisArgs};
use backstay_redis_ops::archive::{StreamArchive, StreamId};
use backstay_redis_ops::follow::{Access, FollowOptions, follow, read_status, receive_until};
use backstay_redis_ops::server::{Attach, find_shards};
use clap::{Parser, ValueEnum};
use tokio::time::sleep;

use report::{Archived, Told};

/// Where spools lie, one folder for each stanza and stream.
const SPOOLS: &str = "/var/spool/backstay";

/// Level of zstd, unless another one is configured: what is written to a Redis came out smaller with it than with 3, and took two
/// thirds of the time.
const LEVEL: i32 = 1;
/// How long opening the repositories may keep us from reading.
const GLANCE: Duration = Duration::from_secs(5);
/// How often it is tried to open repositories that are out.
const AGAIN: Duration = Duration::from_secs(2);

/// Archives every write of a Redis or Valkey as it happens, so that it can be restored to any moment.
///
/// Follows the server as a replica does, for ever; run it as a service. Never write to the same stream from two places.
#[derive(Debug, Parser)]
#[command(
    name = "archive-redis",
    version,
    after_help = "A service, by systemd: ExecStart=archive-redis --config /etc/backstay/backstay.toml\n\
    Watched every minute, from cron:\n  \
    * * * * *  archive-redis --config /etc/backstay/backstay.toml --status >/dev/null"
)]
pub struct Args {
    /// Name of the stream in the archive [default: main, in a cluster the name of the shard]
    #[arg(long, value_name = "NAME")]
    stream: Option<StreamId>,
    /// The shard of a cluster; one archiver follows one
    #[arg(long, value_name = "NAME")]
    shard: Option<String>,
    /// Which server is followed: a replica that is in sync where there is one, the primary, or the one named
    #[arg(long, value_enum, value_name = "WHICH", default_value = "replica")]
    attach: AttachTo,
    /// Folder for what is not stored yet [default: /var/spool/backstay/STANZA.STREAM]
    #[arg(long, value_name = "FOLDER")]
    spool: Option<PathBuf>,
    /// Most bytes in it; half of it raises an alarm, all of it detaches from the server
    #[arg(long, value_name = "BYTES", default_value = "4GiB")]
    spool_limit: ByteSize,
    /// Ends a segment so many milliseconds after its first write: what can be lost with server and host
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    interval: u64,
    /// Takes a new base so long after the last one; 0s for never
    #[arg(long, value_name = "SPAN", default_value = "1d")]
    base_every: TimeSpan,
    /// Takes a new base after so many bytes of the stream; 0 for never
    #[arg(long, value_name = "BYTES", default_value = "16GiB", hide = true)]
    base_after: ByteSize,
    /// Merges segments so long after they came, although they are small
    #[arg(long, value_name = "SPAN", default_value = "1h", hide = true)]
    merge_after: TimeSpan,
    /// Merges segments into objects of about that size
    #[arg(long, value_name = "BYTES", default_value = "8MiB", hide = true)]
    merge_size: ByteSize,
    /// Seconds after which another archiver may take over from one that died
    #[arg(long, value_name = "SECONDS", default_value_t = 30, hide = true, value_parser = clap::value_parser!(u64).range(5..=3600))]
    lease: u64,
    /// Ends as soon as everything is stored that the server has now
    #[arg(long)]
    until_caught_up: bool,
    /// Says what the archiver that runs on this machine is doing, and ends
    #[arg(long, conflicts_with = "until_caught_up")]
    status: bool,
    #[command(flatten)]
    redis: RedisArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AttachTo {
    Replica,
    Primary,
    Named,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        self.redis.settings()
    }

    fn about(&self) -> Option<String> {
        self.stream.as_ref().map(ToString::to_string).or_else(|| self.shard.clone())
    }
}

/// Runs the program.
///
/// # Errors
/// Whatever ends it before it is told to end.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let stream = match (&args.stream, &args.shard) {
        (Some(stream), _) => stream.clone(),
        (None, Some(shard)) => StreamId::parse(shard).map_err(|error| Failure::usage(error.to_string()))?,
        (None, None) => StreamId::default(),
    };
    let spool =
        args.spool.clone().unwrap_or_else(|| PathBuf::from(format!("{SPOOLS}/{}.{stream}", ctx.stanza())));
    if args.status {
        return status(ctx, &stream, &spool);
    }
    let source = ctx.redis().await?;
    let attach = match args.attach {
        AttachTo::Replica => Attach::Replica,
        AttachTo::Primary => Attach::Primary,
        AttachTo::Named => Attach::Named,
    };
    let mut options = options(ctx, args, &stream, &spool)?;
    options.attach = attach;
    // A mistyped server makes no repository.
    let check = async {
        ctx.stoppable(find_shards(&source, attach)).await??;
        Ok(())
    };
    // Who archived before makes no new repository where the old one is out of reach.
    let is_new = read_status(&options.spool)?.is_none();
    let first = if is_new { Some(ctx.open_or_create(Box::pin(check)).await?) } else { None };
    let access = Access::new(source.clone());
    let archiving = async {
        let opened = match first {
            Some(opened) => opened,
            None => Box::pin(open_and_receive(ctx, args, &access, &stream, &options)).await?,
        };
        let archive = StreamArchive::new(opened.repositories.clone(), ctx.stanza().clone(), stream);
        Ok::<_, Failure>(Box::pin(follow(&access, &archive, &options, &ctx.cancel)).await?)
    };
    let report = tokio::select! {
        report = archiving => report?,
        never = read_again(ctx, &access) => match never {},
    };
    ctx.print(&Archived(report))
}

/// Reads the password again whenever a server does not let us in: it may have been changed since.
async fn read_again(ctx: &Context, access: &Access) -> Infallible {
    let mut is_told = false;
    loop {
        access.refused().await;
        match ctx.redis().await {
            Ok(source) => {
                is_told = false;
                if access.renew(source) {
                    tracing::info!("the password was changed; trying the new one");
                }
            }
            Err(failure) if is_told => tracing::debug!(problem = failure.message(), "still not to be had"),
            Err(failure) => {
                is_told = true;
                tracing::warn!(problem = failure.message(), "the password cannot be read again");
            }
        }
    }
}

/// Opens the repositories. While that takes long, or again and again until it succeeds, what comes is received into the spool.
async fn open_and_receive(
    ctx: &Context,
    args: &Args,
    access: &Access,
    stream: &StreamId,
    options: &FollowOptions,
) -> Result<Opened, Failure> {
    let mut first = Box::pin(ctx.open_quorum());
    if args.until_caught_up {
        return first.await;
    }
    let tried = tokio::time::timeout(GLANCE, &mut first).await;
    let under_way = tried.is_err();
    let failure = match tried {
        Ok(Ok(opened)) => return Ok(opened),
        Ok(Err(failure)) => failure,
        Err(_) => {
            let problem = format!("the repositories do not answer within {} s", GLANCE.as_secs());
            Failure::new(Class::Temporary, problem)
        }
    };
    let opening = async {
        if under_way && let Ok(opened) = first.await {
            return opened;
        }
        loop {
            sleep(AGAIN).await;
            if let Ok(opened) = ctx.open_quorum().await {
                return opened;
            }
        }
    };
    let (of, problem) = ((ctx.stanza(), stream), failure.message());
    let received = Box::pin(receive_until(access, of, options, &problem, opening, &ctx.cancel)).await?;
    // There is nothing to go on from, or it was told to end.
    received.ok_or(failure)
}

fn options(ctx: &Context, args: &Args, stream: &StreamId, spool: &Path) -> Result<FollowOptions, Failure> {
    let recipients = ctx.recipients()?;
    let mut source = ManifestSource::default();
    "redis".clone_into(&mut source.database);
    let set = SetSpec::new(
        SetKind::new(SetKind::REDIS_SNAPSHOT),
        ctx.stanza().clone(),
        concat!("archive-redis ", env!("CARGO_PKG_VERSION")),
    );
    let set = set.source(source).recipients(recipients.clone()).retain_until(ctx.retain_until());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let holder = format!("archive-redis of {stream} on {}, process {}", host.trim(), std::process::id());
    let lease = LeaseOptions::new(&holder).ttl(Duration::from_secs(args.lease));
    let mut options = FollowOptions::new(spool, set, lease);
    options.spool_limit = args.spool_limit.bytes();
    options.cut.interval = Duration::from_millis(args.interval);
    options.base.every = Duration::from_secs(args.base_every.as_secs());
    options.base.bytes = args.base_after.bytes();
    options.merge.age = Duration::from_secs(args.merge_after.as_secs());
    options.merge.bytes = args.merge_size.bytes().clamp(1 << 16, 16 << 20);
    options.sealing =
        SealOptions::default().level(ctx.config.compression.level.unwrap_or(LEVEL)).recipients(recipients);
    options.until_caught_up = args.until_caught_up;
    options.shard.clone_from(&args.shard);
    Ok(options)
}

/// What the archiver on this machine told last.
fn status(ctx: &Context, stream: &StreamId, spool: &Path) -> Result<Exit, Failure> {
    match read_status(spool)? {
        Some(told) => {
            let told = Told::new(told, ctx.clock.now());
            let exit = told.exit();
            ctx.finish(&told, exit)
        }
        None => {
            let words = format!("no archiver of stream {stream} ever ran with the spool {}", spool.display());
            Err(Failure::new(Class::Absent, words))
        }
    }
}
