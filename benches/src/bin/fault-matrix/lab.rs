//! The source server, its history, and a repository of one tool in every place.

use std::path::{Path, PathBuf};

use backstay_benches::Shell;
use backstay_testkit::{PostgresOptions, ScratchDir, StopMode, TestPostgres};

use crate::endpoints::Endpoints;
use crate::fault::{Defect, Place};
use crate::history::History;
use crate::tool::Tool;

/// Everything a cell needs; one per tool.
pub(crate) struct Lab {
    pub(crate) postgres: TestPostgres,
    pub(crate) shell: Shell,
    pub(crate) folder: PathBuf,
    endpoints: Endpoints,
    history: Option<History>,
    _scratch: ScratchDir,
}

/// How a repository is reached.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    Disk { folder: PathBuf },
    Encrypted { folder: PathBuf, key: bool },
    S3 { host: String, plain: u16, tls: u16, prefix: String },
}

impl Lab {
    /// Starts the servers, takes a backup into every place, and writes the history.
    pub(crate) async fn open(tool: &Tool) -> Self {
        let options =
            PostgresOptions::default().setting("archive_mode", "on").setting("archive_command", "false");
        let postgres = TestPostgres::start(options).await.expect("PostgreSQL starts");
        let scratch = ScratchDir::create("matrix", postgres.account()).expect("a scratch folder");
        let shell = Shell::of(postgres.account());
        let folder = scratch.path().to_path_buf();
        let endpoints = Endpoints::start(&folder).await;
        let mut lab = Self { postgres, shell, folder, endpoints, history: None, _scratch: scratch };
        lab.prepare(tool);
        lab
    }

    fn prepare(&mut self, tool: &Tool) {
        ["lock", "log"].iter().for_each(|name| self.shell.folder(&self.folder.join(name)));
        let passfile = std::fs::read(self.postgres.passfile()).expect("the passfile of the server");
        self.shell.write(&self.passfile(), passfile);
        let _ = self.shell.must(&format!("chmod 600 {}", self.passfile().display()));
        let mut script = "#!/bin/sh\nset -e\n".to_owned();
        for place in Place::ALL {
            self.shell.folder(&self.repository(place));
            let configuration = self.configure(tool, place, None);
            tool.create(self, &configuration);
            script.push_str(&tool.archive_line(self, &configuration));
            script.push('\n');
        }
        // pgBackRest insists on its name in the command.
        let archive = self.folder.join(format!("archive-with-{}.sh", tool.short()));
        self.shell.write(&archive, script);
        let line = format!("archive_command = 'sh {} %p'\n", archive.display());
        self.postgres.append_configuration(&line).expect("the server's configuration is writable");
        self.postgres.reload();
        let sql =
            "create table entry (id int primary key); create table filler (id int, note text); checkpoint";
        let _ = self.postgres.psql("postgres", sql).expect("a new table");
        for place in Place::ALL {
            tool.back_up(self, &self.configuration(tool, place, None));
        }
        self.history = Some(History::write(&self.postgres));
        self.postgres.stop(StopMode::Fast).expect("the source server stops");
    }

    /// Writes the configuration of a tool for a place, whole or with a defect.
    pub(crate) fn configure(&self, tool: &Tool, place: Place, defect: Option<Defect>) -> PathBuf {
        let path = self.configuration(tool, place, defect);
        self.shell.write(&path, tool.configuration(self, &self.access(place, defect)));
        path
    }

    /// Where that configuration is.
    pub(crate) fn configuration(&self, tool: &Tool, place: Place, defect: Option<Defect>) -> PathBuf {
        let defect = defect.map_or("whole".to_owned(), |defect| format!("{defect:?}"));
        self.folder.join(format!("{}-{}-{defect}.conf", tool.short(), place.name()))
    }

    fn access(&self, place: Place, defect: Option<Defect>) -> Access {
        let folder = self.repository(place);
        match place {
            Place::Disk => Access::Disk { folder },
            Place::Encrypted => Access::Encrypted { folder, key: defect != Some(Defect::NoKey) },
            Place::S3 => Access::S3 {
                host: if defect == Some(Defect::NoSuchHost) { "backups.invalid" } else { "127.0.0.1" }
                    .to_owned(),
                plain: self.endpoints.port(defect, false),
                tls: self.endpoints.port(defect, true),
                prefix: if defect == Some(Defect::WrongPrefix) { "elsewhere" } else { "matrix" }.to_owned(),
            },
        }
    }

    /// The folder of a repository that is on disk.
    pub(crate) fn repository(&self, place: Place) -> PathBuf {
        self.folder.join(format!("repository-{}", place.name()))
    }

    /// The password file, readable by the server's account.
    pub(crate) fn passfile(&self) -> PathBuf {
        self.folder.join("passfile")
    }

    /// What was committed when.
    pub(crate) fn history(&self) -> &History {
        self.history.as_ref().expect("written before the first cell")
    }

    /// An empty data directory.
    pub(crate) fn new_data(&self) -> PathBuf {
        let data = self.folder.join("restored");
        remove(&data);
        self.shell.folder(&data);
        let _ = self.shell.must(&format!("chmod 700 {}", data.display()));
        data
    }

    /// Stops all servers.
    pub(crate) async fn close(self) {
        self.endpoints.stop().await;
    }
}

/// Removes a folder with all in it, if it is there.
pub(crate) fn remove(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            panic!("remove {}: {error}", folder.display())
        }
        _ => {}
    }
}
