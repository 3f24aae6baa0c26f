//! What else of a system is worth knowing after it is gone: its packages and its enabled units.

use backstay_backup_core::process::{CommandRunner, CommandSpec, ProcessError, capture};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Most bytes of such a list.
const LIMIT: usize = 64 << 20;

/// A list as stored beside the files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemList {
    /// Name of its object: `packages.txt`, `packages-manual.txt` or `units.txt`.
    pub name: &'static str,
    /// Its lines.
    pub content: Vec<u8>,
}

/// Where crontabs are, on the distributions that have any.
pub const CRONTABS: [&str; 8] = [
    "/etc/crontab",
    "/etc/anacrontab",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/var/spool/cron",
];

/// Programs that list packages, the first that is there counts.
const PACKAGES: [(&str, &[&str]); 4] = [
    ("dpkg-query", &["--show", "--showformat=${db:Status-Abbrev}\t${binary:Package}\t${Version}\n"]),
    ("rpm", &["--query", "--all", "--queryformat", "%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\t%{ARCH}\n"]),
    ("apk", &["info", "--verbose"]),
    ("pacman", &["--query"]),
];

/// The packages that are installed; on Debian also those that somebody asked for, which is what a new machine wants.
///
/// # Errors
/// No known package manager is there, or it failed.
pub async fn packages(
    runner: &dyn CommandRunner,
    cancel: &CancellationToken,
) -> Result<Vec<SystemList>, Error> {
    for (program, args) in PACKAGES {
        let Some(content) = list(runner, program, args, cancel).await? else { continue };
        let mut lists = vec![SystemList { name: "packages.txt", content }];
        if program == "dpkg-query"
            && let Some(content) = list(runner, "apt-mark", &["showmanual"], cancel).await?
        {
            lists.push(SystemList { name: "packages-manual.txt", content });
        }
        return Ok(lists);
    }
    let problem = "no dpkg-query, rpm, apk or pacman lists packages here".to_owned();
    Err(Error::Nothing { problem })
}

/// The units of systemd that are enabled or masked.
///
/// # Errors
/// There is no systemctl, or it failed.
pub async fn units(runner: &dyn CommandRunner, cancel: &CancellationToken) -> Result<Vec<SystemList>, Error> {
    let args = [
        "list-unit-files",
        "--no-legend",
        "--no-pager",
        "--plain",
        "--state=enabled,enabled-runtime,masked,disabled",
    ];
    match list(runner, "systemctl", &args, cancel).await? {
        Some(content) => Ok(vec![SystemList { name: "units.txt", content }]),
        None => Err(Error::Nothing { problem: "there is no systemctl here".to_owned() }),
    }
}

/// What a program says, its lines sorted; `None` where it is not installed.
async fn list(
    runner: &dyn CommandRunner,
    program: &str,
    args: &[&str],
    cancel: &CancellationToken,
) -> Result<Option<Vec<u8>>, Error> {
    let command = CommandSpec::new(program).args(args.iter().copied()).env("LC_ALL", "C");
    let output = match capture(runner, command, LIMIT, cancel).await {
        Ok(output) => output,
        Err(ProcessError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut lines: Vec<_> = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let mut content = lines.join(&b'\n');
    content.push(b'\n');
    Ok(Some(content))
}
