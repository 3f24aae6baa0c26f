//! Tells people what is going on, and keeps trying until they have been told.
use std::process::ExitCode;

use backstay_notify_programs::Args;

fn main() -> ExitCode {
    backstay_cli::run(async |ctx, args: Args| Box::pin(backstay_notify_programs::run(ctx, &args)).await)
}
