//! The programs of this package, and how one becomes another.
//!
//! A server starts a program for every segment, and most of these calls find their work done. So what it starts is small:
//! [`archive_wal`] and [`restore_wal`] read arguments and configuration, look into the spool, and end. Where there is work
//! to do they become the *whole* program, which has runtime, codecs and stores in it, under the same name with the same
//! arguments.
//!
//! ```text
//! archive-wal  ── done? ─ yes → 0
//! restore-wal     └─ no, or anything is wrong → exec backstay-wal ── helper: backstay-wal
//! ```
//!
//! | what fails | what follows |
//! |---|---|
//! | arguments, configuration, spool; a bug | the whole program finds it again, tells it, and ends with its code |
//! | there is no whole program | an error that names it: 2 from `archive-wal`, 202 from `restore-wal` |

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use backstay_backup_core::config::Config;
use backstay_cli::{Arguments, Exit};

use crate::{archive, restore};

pub(crate) const ARCHIVE_WAL: &str = "archive-wal";
pub(crate) const RESTORE_WAL: &str = "restore-wal";
const WHOLE: &str = "backstay-wal";

/// `archive-wal`: ends at once where the segment was archived ahead.
#[must_use]
pub fn archive_wal() -> ExitCode {
    front(ARCHIVE_WAL, archive::is_done, Exit::Usage.code())
}

/// `restore-wal`: ends at once where the segment was fetched ahead.
#[must_use]
pub fn restore_wal() -> ExitCode {
    front(RESTORE_WAL, restore::is_done, restore::RAISED + Exit::Usage.code())
}

fn front<A: Arguments>(name: &str, is_done: fn(&Config, &A) -> bool, unable: u8) -> ExitCode {
    if backstay_cli::is_done(is_done) {
        return ExitCode::SUCCESS;
    }
    let mut whole = whole(name);
    let error = whole.exec();
    let program = Path::new(whole.get_program()).display();
    complain(&format!("error: cannot start {program}: {error}\nhint: install it beside {name}"), unable)
}

/// `backstay-wal`: does what its name says, which is that of the program that became it.
#[must_use]
pub fn backstay_wal() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some(ARCHIVE_WAL) => backstay_cli::run_as(
            |ending| ending.exit().code(),
            async |ctx, args: archive::Args| Box::pin(archive::run(ctx, &args)).await,
        ),
        Some(RESTORE_WAL) => backstay_cli::run_as(restore::code, async |ctx, args: restore::Args| {
            Box::pin(restore::run(ctx, &args)).await
        }),
        _ => complain(
            &format!(
                "error: {WHOLE} is part of {ARCHIVE_WAL} and {RESTORE_WAL}\nhint: start one of these instead"
            ),
            restore::RAISED + Exit::Usage.code(),
        ),
    }
}

/// A command that is the whole program under this name, with the arguments of this one.
pub(crate) fn whole(name: &str) -> Command {
    let mut command = Command::new(whole_path());
    command.arg0(name).args(std::env::args_os().skip(1).collect::<Vec<OsString>>());
    command
}

/// Beside this program; where the system does not say where that is, somewhere on the search path.
fn whole_path() -> PathBuf {
    let own = std::env::current_exe();
    own.map_or_else(|_| PathBuf::from(WHOLE), |own| own.with_file_name(WHOLE))
}

/// There is nobody to tell that nobody listens.
fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}
