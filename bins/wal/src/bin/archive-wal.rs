//! Archives one file of the log; PostgreSQL runs this as its `archive_command`.
use std::process::ExitCode;

fn main() -> ExitCode {
    backstay_wal::archive_wal()
}
