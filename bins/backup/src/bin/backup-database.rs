//! Backs up PostgreSQL databases into the configured repositories.
use std::process::ExitCode;

use backstay_backup::database::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(database::run(ctx, &args)).await)
}
