//! Fetches one file of the log; PostgreSQL runs this as its `restore_command`.
use std::process::ExitCode;

fn main() -> ExitCode {
    backstay_wal::restore_wal()
}
