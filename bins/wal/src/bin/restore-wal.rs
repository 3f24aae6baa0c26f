//! Fetches one file of the log; PostgreSQL runs this as its `restore_command`.
use std::process::ExitCode;

use backstay_wal::restore::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run_as(restore::code, restore::early, async |ctx, args: Args| {
        Box::pin(restore::run(ctx, &args)).await
    })
}
