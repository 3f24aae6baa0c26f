use std::path::Path;
use std::process::Command;

use backstay_testkit::{PostgresInstall, PostgresOptions, TestPostgres};

/// A PostgreSQL server of this test's own; whatever fails, fails the test.
pub(crate) struct Server(TestPostgres);

impl Server {
    pub(crate) fn start(install: &PostgresInstall) -> Self {
        let options = PostgresOptions::default().install(install).locale("C", "UTF8");
        Self(TestPostgres::start_blocking(&options).unwrap())
    }

    /// A directory that lives as long as the server.
    pub(crate) fn path(&self) -> &Path {
        self.0.scratch().path()
    }

    pub(crate) fn major(&self) -> u32 {
        self.0.install().major()
    }

    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = self.0.client(program).unwrap();
        command.env("PGCLIENTENCODING", "UTF8");
        command
    }

    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        self.0.psql(database, sql).unwrap()
    }

    pub(crate) fn create_database(&self, name: &str) {
        self.0.create_database(name).unwrap();
    }
}
