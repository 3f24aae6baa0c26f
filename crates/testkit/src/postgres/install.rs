use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::account::Account;
use crate::guard::in_words;
use crate::{Error, Result, cache};

const DISTRIBUTION: &str = "/usr/lib/postgresql";

/// The PostgreSQL versions this project supports.
const SUPPORTED: std::ops::RangeInclusive<u32> = 14..=18;

/// The programs of one PostgreSQL major version on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresInstall {
    major: u32,
    bin: PathBuf,
    clients: PathBuf,
}

impl PostgresInstall {
    /// Finds a major version: the distribution's own, else a private copy in the cache directory.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] with the command that gets it.
    pub fn find(major: u32) -> Result<Self> {
        let account = Account::for_servers()?;
        let private =
            cache::candidates().into_iter().map(|cache| cache.join(format!("postgres/{major}/bin")));
        let bin = [Path::new(DISTRIBUTION).join(format!("{major}/bin"))]
            .into_iter()
            .chain(private)
            .filter(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file())
            .filter_map(|bin| bin.canonicalize().ok())
            .find(|bin| account.as_ref().is_none_or(|account| cache::enterable(bin, account)))
            .ok_or_else(|| Error::NotInstalled {
                what: format!("PostgreSQL {major}"),
                command: format!("scripts/setup.sh --postgres {major}"),
            })?;
        let clients = if bin.join("psql").is_file() { bin.clone() } else { newest_clients()? };
        Ok(Self { major, bin, clients })
    }

    /// The distribution's version, the newest if there are several.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] with the command that gets it.
    pub fn system() -> Result<Self> {
        let newest = distribution_majors().into_iter().max();
        newest.ok_or_else(no_distribution_version).and_then(Self::find)
    }

    /// Every supported version on this machine, oldest first.
    pub fn all() -> Vec<Self> {
        SUPPORTED.filter_map(|major| Self::find(major).ok()).collect()
    }

    /// The major version, such as 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The directory of the server programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The path of a program. A copy without client programs (version 14 has none) lends those of the
    /// distribution's newer version.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] when this version comes without it.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        [&self.bin, &self.clients]
            .into_iter()
            .map(|bin| bin.join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| Error::NotInstalled {
                what: format!("{name} of PostgreSQL {}", self.major),
                command: "scripts/setup.sh".to_owned(),
            })
    }

    /// Whether `name` is there in this very version.
    pub fn has(&self, name: &str) -> bool {
        self.bin.join(name).is_file()
    }

    /// The server's version as it names itself, such as `postgres (PostgreSQL) 17.11`.
    ///
    /// # Errors
    /// When the program cannot run.
    pub fn version(&self) -> Result<String> {
        run(Command::new(self.bin.join("postgres")).arg("-V"))
    }
}

fn distribution_majors() -> Vec<u32> {
    let Ok(entries) = fs::read_dir(DISTRIBUTION) else { return vec![] };
    entries
        .flatten()
        .filter(|entry| entry.path().join("bin/postgres").is_file())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn newest_clients() -> Result<PathBuf> {
    let newest = distribution_majors().into_iter().max().ok_or_else(no_distribution_version)?;
    Ok(Path::new(DISTRIBUTION).join(format!("{newest}/bin")))
}

fn no_distribution_version() -> Error {
    Error::NotInstalled { what: "PostgreSQL".to_owned(), command: "scripts/setup.sh".to_owned() }
}

/// Runs a program to its end and returns what it printed, without the last line break.
///
/// # Errors
/// When it cannot start or reports failure; the error then holds what it wrote to standard error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = program_name(command);
    let output = command.stdin(Stdio::null()).output().map_err(Error::io("run", &name))?;
    finish(&name, &output)
}

/// Turns the output of a finished program into its text or an error.
pub(crate) fn finish(name: &str, output: &std::process::Output) -> Result<String> {
    if output.status.success() {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.ends_with('\n') {
            text.pop();
        }
        return Ok(text);
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(Error::Program {
        program: name.to_owned(),
        status: in_words(output.status),
        output: String::from_utf8_lossy(said).trim().to_owned(),
    })
}

pub(crate) fn program_name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().map_or_else(OsString::new, OsString::from).to_string_lossy().into_owned()
}
