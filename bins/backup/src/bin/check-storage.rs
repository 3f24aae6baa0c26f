//! Probes what a store really guarantees, see [`backstay_backup::storage`].

use std::process::ExitCode;

fn main() -> ExitCode {
    backstay_cli::run(backstay_backup::storage::run)
}
