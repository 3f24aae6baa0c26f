use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::succeed;

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A PostgreSQL server of this test's own.
pub(crate) struct Server {
    directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let server = Self { directory };
        let mut initdb = server.unprivileged("initdb");
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        succeed(initdb.arg(server.data()), b"");
        let options = format!(
            "-c listen_addresses= -c fsync=off -c unix_socket_directories={}",
            server.path().display()
        );
        let log = server.path().join("log");
        let mut start = server.unprivileged("pg_ctl");
        start.args(["start", "-w", "-s", "-o", &options, "-l"]).arg(log).arg("-D").arg(server.data());
        assert!(start.status().unwrap().success());
        server
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new(BIN).join(program));
        command.env("PGHOST", self.path()).env("PGUSER", "postgres").env("PGCLIENTENCODING", "UTF8");
        command
    }

    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let mut command = self.client("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database]);
        String::from_utf8(succeed(&mut command, sql.as_bytes())).unwrap()
    }

    pub(crate) fn create_database(&self, name: &str) {
        self.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// PostgreSQL refuses to run as root.
    fn unprivileged(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        command.arg(Path::new(BIN).join(program)).current_dir(self.path());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.unprivileged("pg_ctl")
            .args(["stop", "-s", "-m", "immediate", "-D"])
            .arg(self.data())
            .status()
            .ok();
    }
}
