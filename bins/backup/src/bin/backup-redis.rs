//! Backs up a Redis or Valkey into the configured repositories.
use std::process::ExitCode;

use backstay_backup::redis::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(redis::run(ctx, &args)).await)
}
