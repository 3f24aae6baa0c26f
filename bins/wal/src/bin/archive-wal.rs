//! Archives one file of the log; PostgreSQL runs this as its `archive_command`.
use std::process::ExitCode;

use backstay_wal::archive::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run_as(
        |ending| ending.exit().code(),
        archive::early,
        async |ctx, args: Args| Box::pin(archive::run(ctx, &args)).await,
    )
}
