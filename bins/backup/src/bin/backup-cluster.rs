//! Backs up a whole PostgreSQL cluster into the configured repositories.
use std::process::ExitCode;

use backstay_backup::cluster::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(cluster::run(ctx, &args)).await)
}
