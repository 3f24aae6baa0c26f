//! Serves S3 on a loopback port until it is told to stop; prints where as one line of JSON.
//!
//! `s3-server --bucket backups --dir ./s3 --access-key ak --secret-key sk`

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use backstay_testkit::s3::{BucketOptions, Credential, Error, Faults, S3Options, S3Server};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// An S3 server for demos, benchmarks and tests. Not for data you want to keep.
#[derive(Debug, Parser)]
#[command(name = "s3-server")]
struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Directory for the objects; without it they live in memory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Bucket to create; may be given several times.
    #[arg(long)]
    bucket: Vec<String>,
    /// Access key of the administrator.
    #[arg(long, default_value = Credential::DEFAULT_ACCESS_KEY)]
    access_key: String,
    /// Secret key of the administrator. A throw-away one: other users of the machine can see it.
    #[arg(long, default_value = Credential::DEFAULT_SECRET_KEY)]
    secret_key: String,
    /// Keeps all versions in the created buckets.
    #[arg(long)]
    versioning: bool,
    /// Allows retention in the created buckets; implies --versioning.
    #[arg(long)]
    object_lock: bool,
    /// Milliseconds added to every request.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Entity tags that are no MD5 digests, as with KMS keys; saves the server CPU in benchmarks.
    #[arg(long)]
    opaque_etags: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("error: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            // Nobody left to tell when this fails.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> Result<(), Error> {
    let threads = |source| Error::Threads { source };
    let mut terminate = signal(SignalKind::terminate()).map_err(threads)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(threads)?;
    let latency = Duration::from_millis(args.latency_ms);
    let server = S3Server::start(options(args)).await?;
    server.faults().set(Faults::default().latency(latency));
    let line = serde_json::json!({ "endpoint": server.endpoint(), "pid": std::process::id() });
    // Whoever started this and closed its end needs no line.
    let _ = writeln!(std::io::stdout(), "{line}");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(())
}

fn options(args: Args) -> S3Options {
    let mut options = match args.dir {
        Some(path) => S3Options::directory(path),
        None => S3Options::memory(),
    };
    options = options.listen(args.listen).credential(Credential::admin(args.access_key, args.secret_key));
    options.opaque_etags = args.opaque_etags;
    for name in args.bucket {
        let mut bucket = BucketOptions::new(name);
        bucket.object_lock = args.object_lock;
        bucket.versioning = args.versioning || args.object_lock;
        options = options.bucket(bucket);
    }
    options
}
