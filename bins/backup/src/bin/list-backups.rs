//! Lists the backup sets of a stanza, see [`backstay_backup::listing`].

use std::process::ExitCode;

fn main() -> ExitCode {
    backstay_cli::run(backstay_backup::listing::run)
}
