//! Restores a Redis to any moment that is stored.
use std::process::ExitCode;

use backstay_restore::redis::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(redis::run(ctx, &args)).await)
}
