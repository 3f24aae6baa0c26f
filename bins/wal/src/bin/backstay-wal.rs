//! What `archive-wal` and `restore-wal` become where there is work to do.
use std::process::ExitCode;

fn main() -> ExitCode {
    backstay_wal::backstay_wal()
}
