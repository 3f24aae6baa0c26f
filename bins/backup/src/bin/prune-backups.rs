//! Removes what retention does not keep, see [`backstay_backup::pruning`].

use std::process::ExitCode;

fn main() -> ExitCode {
    backstay_cli::run(backstay_backup::pruning::run)
}
