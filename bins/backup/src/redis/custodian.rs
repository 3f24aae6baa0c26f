//! `backup-redis` as the process that puts settings of a server back, see [`backstay_redis_ops::snapshot::Custodian`].

use std::io::Write;
use std::process::ExitCode;

use backstay_backup_core::Class;
use backstay_cli::{Exit, Failure};
use backstay_redis_ops::snapshot::{Custodian, keep_settings};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// The only argument of such a process.
const ARGUMENT: &str = "--keep-settings";

/// Starts this program as one.
pub(super) fn of_this_program() -> Result<Custodian, Failure> {
    match std::env::current_exe() {
        Ok(program) => Ok(Custodian::new(program).argument(ARGUMENT)),
        Err(error) => Err(Failure::new(Class::Temporary, error)),
    }
}

/// Whether this process is one.
#[must_use]
pub fn is_meant() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT)
}

/// Lives as one.
#[must_use]
pub fn live() -> ExitCode {
    let runtime = Builder::new_current_thread().enable_all().build();
    let kept = runtime.and_then(|runtime| {
        runtime.block_on(async {
            // Whoever stops a whole group means the backup. This ends by itself, right behind it.
            let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
            let _ignored = kinds.map(signal);
            keep_settings(std::io::stdin(), std::io::stdout()).await
        })
    });
    match kept {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(Exit::Temporary.code())
        }
    }
}
