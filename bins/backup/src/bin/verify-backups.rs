//! Checks that backups are whole and restore, see [`backstay_backup::verification`].

use std::process::ExitCode;

fn main() -> ExitCode {
    backstay_cli::run(backstay_backup::verification::run)
}
