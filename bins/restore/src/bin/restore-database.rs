//! Restores PostgreSQL databases from the configured repositories.
use std::process::ExitCode;

use backstay_restore::database::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| database::run(ctx, &args).await)
}
