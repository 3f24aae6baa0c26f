//! Archives the replication stream of a Redis, see [`backstay_backup::archive_redis`].
use std::process::ExitCode;

use backstay_backup::archive_redis::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(archive_redis::run(ctx, &args)).await)
}
