//! Restores a whole PostgreSQL cluster and recovers it to a moment.
use std::process::ExitCode;

use backstay_restore::cluster::{self, Args};

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(cluster::run(ctx, &args)).await)
}
