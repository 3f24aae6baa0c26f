//! Finds PostgreSQL's client and server programs.
//!
//! A dump needs a `pg_dump` that is not older than the server, and among those the nearest version is best, because
//! its output restores into the widest range of servers. Distributions keep versions side by side in folders that
//! are not on `PATH`; what is on `PATH` comes last, since it may be a wrapper.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// Oldest supported major version of a server.
pub const OLDEST_SERVER: u32 = 14;

/// Folders that hold one folder for each version: Debian, and what people make themselves.
const VERSIONED_ROOTS: [&str; 3] = ["usr/lib/postgresql", "usr/pgsql", "opt/postgresql"];
/// Red Hat's layout: `/usr/pgsql-17/bin`.
const VERSIONED_SIBLINGS: (&str, &str) = ("usr", "pgsql-");

/// Where GNU `stdbuf` is found, and what it is told.
const LAUNCHERS: [&str; 2] = ["/usr/bin/stdbuf", "/bin/stdbuf"];
const OUTPUT_BUFFER: [&str; 1] = ["--output=256K"];

/// Where programs are looked for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ToolSearch {
    /// The only folder to look in, when given.
    pub bin_dir: Option<PathBuf>,
    /// Folders of the caller's `PATH`.
    pub path: Vec<PathBuf>,
}

impl ToolSearch {
    /// Looks in one folder only.
    #[must_use]
    pub fn only(bin_dir: impl Into<PathBuf>) -> Self {
        Self { bin_dir: Some(bin_dir.into()), path: Vec::new() }
    }

    /// Looks in the usual places, then in these folders.
    #[must_use]
    pub fn with_path(path: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { bin_dir: None, path: path.into_iter().collect() }
    }

    fn folders(&self) -> Vec<PathBuf> {
        if let Some(only) = &self.bin_dir {
            return vec![only.clone()];
        }
        let mut folders = versioned_folders(Path::new("/"));
        folders.extend(self.path.iter().cloned());
        folders
    }
}

/// The folders of programs below `root` that carry a version in their name.
fn versioned_folders(root: &Path) -> Vec<PathBuf> {
    let entries = |folder: &str| std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let (parent, prefix) = VERSIONED_SIBLINGS;
    let siblings =
        entries(parent).filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()));
    let mut folders: Vec<PathBuf> = VERSIONED_ROOTS
        .iter()
        .flat_map(|folder| entries(folder))
        .chain(siblings)
        .map(|entry| entry.path().join("bin"))
        .collect();
    folders.sort();
    folders
}

/// A program and its major version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tool {
    /// Its path.
    pub path: PathBuf,
    /// Major version it reports.
    pub major: u32,
    /// The launcher that gives it a large output buffer, see [`Tool::with_large_output`].
    launcher: Option<PathBuf>,
}

impl Tool {
    /// A program of that version.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, major: u32) -> Self {
        Self { path: path.into(), major, launcher: None }
    }

    /// The same, writing large pieces into a pipe where this machine has the means.
    ///
    /// `pg_dump` writes 4 KiB at a time, because that is what the C library calls the block size of a pipe: a quarter
    /// of a million system calls per GB. `stdbuf` of GNU coreutils changes it. It is used only if it works with this
    /// very program here. Blocks for some milliseconds.
    #[must_use]
    pub fn with_large_output(mut self) -> Self {
        let works = |launcher: &PathBuf| {
            let mut command = Command::new(launcher);
            command.args(OUTPUT_BUFFER).arg(&self.path);
            reported_major(command) == Some(self.major)
        };
        self.launcher = LAUNCHERS.iter().map(PathBuf::from).find(|path| path.is_file()).filter(works);
        self
    }

    /// What is started: a program and the arguments in front of those for the tool itself.
    pub(crate) fn command(&self) -> (&Path, Vec<OsString>) {
        let Some(launcher) = &self.launcher else { return (&self.path, Vec::new()) };
        let mut arguments: Vec<OsString> = OUTPUT_BUFFER.iter().map(OsString::from).collect();
        arguments.push(self.path.clone().into());
        (launcher, arguments)
    }

    /// The folder it is in, where its companions are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

/// Finds the program whose version is the nearest at or above `needed`, which is that of `than`, such as `the server`.
/// Blocks for some milliseconds.
///
/// # Errors
/// [`Error::NoTool`] when there is none at all, [`Error::ToolTooOld`] when all are older.
pub fn find_tool(
    program: &'static str,
    needed: u32,
    than: &'static str,
    search: &ToolSearch,
) -> Result<Tool, Error> {
    let folders = search.folders();
    let found: Vec<Tool> = folders
        .iter()
        .map(|folder| folder.join(program))
        .filter(|path| path.is_file())
        .filter_map(|path| Some(Tool::new(&path, reported_major(Command::new(&path))?)))
        .collect();
    if let Some(best) = choose(&found, needed) {
        return Ok(best.clone());
    }
    match found.iter().map(|tool| tool.major).max() {
        Some(newest) => Err(Error::ToolTooOld { program, found: newest, than, needed }),
        None => {
            let searched = folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
            Err(Error::NoTool { program, needed, searched })
        }
    }
}

fn choose(found: &[Tool], server: u32) -> Option<&Tool> {
    found.iter().filter(|tool| tool.major >= server).min_by_key(|tool| tool.major)
}

fn reported_major(mut command: Command) -> Option<u32> {
    let output = command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    parse_version(std::str::from_utf8(&output.stdout).ok()?)
}

/// Major version in the words of `--version`: `pg_dump (PostgreSQL) 15.18 (Debian …)`, `… 18beta1`.
fn parse_version(text: &str) -> Option<u32> {
    let after = text.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_programs_own_words() {
        assert_eq!(parse_version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_version("pg_dump (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(parse_version("something else 3"), None);
    }

    #[test]
    fn debian_and_red_hat_layouts_are_searched() {
        let root = tempfile::tempdir().unwrap();
        let bins = ["opt/postgresql/16/bin", "usr/lib/postgresql/15/bin", "usr/pgsql-17/bin"];
        for folder in bins.iter().chain(&["usr/share/postgresql/15/bin"]) {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        assert_eq!(versioned_folders(root.path()), bins.map(|folder| root.path().join(folder)));
    }

    /// A program that says it is version 15 and, where it is given a large buffer, something else.
    fn program(folder: &Path, with_buffer: &str) -> Tool {
        let path = folder.join("pg_dump");
        let says = |version: &str| format!("echo 'pg_dump (PostgreSQL) {version}'");
        let script = format!(
            "#!/bin/sh\nif [ \"$_STDBUF_O\" ]; then {}; else {}; fi\n",
            says(with_buffer),
            says("15.1")
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Tool::new(path, 15).with_large_output()
    }

    #[test]
    fn a_large_output_buffer_is_used_only_where_it_works() {
        let folder = tempfile::tempdir().unwrap();
        let good = program(folder.path(), "15.1");
        let (launcher, arguments) = good.command();
        assert_eq!(launcher.file_name().unwrap(), "stdbuf", "GNU coreutils are needed for this test");
        assert_eq!(arguments, [OsString::from("--output=256K"), good.path.clone().into()]);
        let odd = program(folder.path(), "14.1");
        assert_eq!(odd.command(), (odd.path.as_path(), Vec::new()));
    }

    #[test]
    fn the_nearest_version_that_is_not_older_wins() {
        let tool = |major| Tool::new(format!("/{major}/pg_dump"), major);
        let found = [tool(14), tool(18), tool(16)];
        assert_eq!(choose(&found, 15).unwrap().major, 16);
        assert_eq!(choose(&found, 16).unwrap().major, 16);
        assert!(choose(&found, 19).is_none());
    }
}
