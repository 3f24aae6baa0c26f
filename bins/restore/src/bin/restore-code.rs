//! Restores git repositories from the configured repositories.
use std::process::ExitCode;

use backstay_restore::code::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(code::run(ctx, &args)).await)
}
