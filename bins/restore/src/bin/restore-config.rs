//! Restores configuration from the configured repositories.
use std::process::ExitCode;

use backstay_restore::config::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(config::run(ctx, &args)).await)
}
