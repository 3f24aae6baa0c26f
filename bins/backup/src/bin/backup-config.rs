//! Backs up configuration into the configured repositories.
use std::process::ExitCode;

use backstay_backup::config::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(config::run(ctx, &args)).await)
}
