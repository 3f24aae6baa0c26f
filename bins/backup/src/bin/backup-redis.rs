//! Backs up a Redis or Valkey into the configured repositories.
use std::process::ExitCode;

use backstay_backup::redis::{self, Args, custodian};

fn main() -> ExitCode {
    if custodian::is_meant() {
        return custodian::live();
    }
    backstay_cli::run(async |ctx, args: Args| Box::pin(redis::run(ctx, &args)).await)
}
