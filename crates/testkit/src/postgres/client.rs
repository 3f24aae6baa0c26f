//! What a test needs to reach a server: addresses, a passfile, and the client programs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{SUPERUSER, TestPostgres, finish, program_name};
use crate::{Error, Result};

impl TestPostgres {
    /// The address of a database, with the superuser's name and password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{}", self.password, self.port(), escape(database))
    }

    /// The address of a database without the password, for use together with [`TestPostgres::passfile`].
    pub fn url_without_password(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{}", self.port(), escape(database))
    }

    /// The superuser's name.
    pub fn user(&self) -> &'static str {
        SUPERUSER
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// A passfile with the superuser's password for this port on any host.
    pub fn passfile(&self) -> PathBuf {
        self.scratch.path().join("passfile")
    }

    pub(super) fn write_passfile(&self) -> Result<()> {
        let path = self.passfile();
        let line = format!("*:{}:*:{SUPERUSER}:{}\n", self.port(), self.password);
        let mut open = File::options();
        let mut file = open
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        file.write_all(line.as_bytes()).map_err(Error::io("write", &path))
    }

    /// A client program of this version (`pg_dump`, `pg_basebackup` …) set up to reach this server: host, port, user
    /// and passfile are in its environment, nothing of the caller's own PostgreSQL settings is.
    ///
    /// # Errors
    /// When this version comes without the program.
    pub fn client(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.install.program(program)?);
        forget_surroundings(&mut command);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port().to_string()).env("PGUSER", SUPERUSER);
        command.env("PGPASSFILE", self.passfile()).env("PGCONNECT_TIMEOUT", "20");
        Ok(command)
    }

    /// Runs SQL (also several statements and `psql` commands) and returns the rows, columns separated by `|`.
    ///
    /// # Errors
    /// At the first statement that fails, with the server's message.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        self.psql_with(database, sql, &[])
    }

    /// Like [`TestPostgres::psql`] with `psql` variables.
    ///
    /// # Errors
    /// At the first statement that fails, with the server's message.
    pub fn psql_with(&self, database: &str, sql: &str, variables: &[(&str, &str)]) -> Result<String> {
        let mut command = self.client("psql")?;
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        for (name, value) in variables {
            command.arg(format!("--set={name}={value}"));
        }
        command.env("PGDATABASE", database).env("PGCLIENTENCODING", "UTF8");
        feed(&mut command, sql)
    }

    /// Creates an empty database.
    ///
    /// # Errors
    /// When the server refuses, for example because it exists.
    pub fn create_database(&self, database: &str) -> Result<()> {
        let name = database.replace('"', "\"\"");
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE template0;")).map(drop)
    }
}

/// Removes what the caller's environment would tell a PostgreSQL program.
pub(super) fn forget_surroundings(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
}

/// Runs a program with `input` on its standard input. Writing happens beside reading, or both sides could wait for
/// each other with full pipes.
fn feed(command: &mut Command, input: &str) -> Result<String> {
    let name = program_name(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io("start", &name))?;
    let mut stdin = child.stdin.take().expect("standard input was asked for as a pipe");
    let output = std::thread::scope(|scope| {
        // A program that ends early stops reading; its exit status tells why.
        scope.spawn(move || stdin.write_all(input.as_bytes()).ok());
        child.wait_with_output()
    });
    finish(&name, &output.map_err(Error::io("run", &name))?)
}

/// Percent-encodes all but letters and digits.
fn escape(name: &str) -> String {
    name.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_database_name_fits_into_an_address() {
        assert_eq!(escape("shop"), "shop");
        assert_eq!(escape("a \"b\"/ü\n"), "a%20%22b%22%2F%C3%BC%0A");
    }
}
