//! Backs up git repositories into the configured repositories.
use std::process::ExitCode;

use backstay_backup::code::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(code::run(ctx, &args)).await)
}
