//! The cluster, the peers, and how they are called.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use backstay_benches::{Measured, PgBackRest, Shell, Variant, data, measure_rounds, wal_rus};
use backstay_testkit::s3::{Credential, S3Options, S3Server};
use backstay_testkit::{PostgresOptions, ScratchDir, StopMode, TestPostgres};

pub(crate) const BUCKET: &str = "bench";
pub(crate) const KEY: &str = "bench";
pub(crate) const SECRET: &str = "bench-secret";
pub(crate) const PASSED: &str =
    "AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench-secret AWS_REGION=us-east-1";
const DATABASE: &str = "desk";

/// Everything a run needs.
pub(crate) struct Lab {
    pub(crate) postgres: TestPostgres,
    pub(crate) shell: Shell,
    pub(crate) s3: S3Server,
    pub(crate) pgbackrest: Option<PgBackRest>,
    pub(crate) wal_rus: Option<PathBuf>,
    scratch: ScratchDir,
    programs: PathBuf,
    rounds: usize,
    only: Vec<String>,
}

/// A place for a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A folder that is emptied before every run.
    Disk,
    /// The S3 server.
    S3,
    /// A folder that stays, for restores.
    Kept,
}

impl Lab {
    /// Makes the cluster.
    pub(crate) async fn open(percent: u64, rounds: usize, only: Vec<String>) -> Self {
        let options = PostgresOptions::default()
            .fsync(true)
            .setting("shared_buffers", "512MB")
            .setting("maintenance_work_mem", "256MB")
            .setting("max_wal_size", "4GB")
            .setting("checkpoint_timeout", "30min")
            .setting("autovacuum", "off")
            .setting("archive_mode", "on")
            .setting("archive_command", "true");
        let postgres = TestPostgres::start(options).await.expect("PostgreSQL starts");
        data::load(&postgres, DATABASE, percent);
        let scratch = ScratchDir::create("physical", postgres.account()).expect("a scratch folder");
        let program = std::env::current_exe().expect("this program has a path");
        let s3 = S3Options::memory().opaque_etags().bucket(BUCKET).credential(Credential::admin(KEY, SECRET));
        let lab = Self {
            shell: Shell::of(postgres.account()),
            postgres,
            s3: S3Server::start(s3).await.expect("the S3 server starts"),
            pgbackrest: PgBackRest::newest(),
            wal_rus: wal_rus(),
            scratch,
            programs: program.parent().expect("and a folder").to_path_buf(),
            rounds,
            only,
        };
        lab.prepare();
        lab
    }

    fn prepare(&self) {
        for name in ["lock", "log", "spool", "kept"] {
            self.shell.folder(&self.path(name));
        }
        let _ = self.shell.must(&format!("chmod 700 {}", self.path("spool").display()));
        let passfile = std::fs::read(self.postgres.passfile()).expect("the passfile of the server");
        self.shell.write(&self.path("passfile"), passfile);
        let _ = self.shell.must(&format!("chmod 600 {}", self.path("passfile").display()));
        // Which tool archives changes from run to run; pgBackRest insists on its name in the command.
        let script = self.path("archive-also-with-pgbackrest.sh");
        let current = self.path("archive-now");
        let body = format!("if [ -e {0} ]; then . {0}; fi\n", current.display());
        self.shell.write(&script, body);
        let line = format!("archive_command = 'sh {} %p'\n", script.display());
        self.postgres.append_configuration(&line).expect("the configuration is writable");
        self.postgres.reload();
        self.say_what_is_missing();
    }

    fn say_what_is_missing(&self) {
        let mut out = io::stderr();
        let mut missing = |there: bool, what: &str| {
            if !there {
                let _ = writeln!(out, "left out, because it is not here: {what}");
            }
        };
        missing(self.pgbackrest.is_some(), "pgBackRest (scripts/setup.sh --pgbackrest)");
        missing(self.wal_rus.is_some(), "wal-rus (scripts/setup.sh --wal-rus)");
        missing(self.has("backup-cluster"), "archive-wal and backup-cluster beside this program");
        missing(self.has("restore-cluster"), "restore-cluster beside this program");
    }

    /// Whether a program of ours is beside this one, together with the one that archives.
    pub(crate) fn has(&self, program: &str) -> bool {
        [program, "archive-wal", "backstay-wal"].iter().all(|name| self.programs.join(name).is_file())
    }

    /// What is measured on.
    pub(crate) fn describe(&self) -> String {
        let size = self
            .postgres
            .psql(DATABASE, "select pg_size_pretty(sum(pg_database_size(oid))) from pg_database");
        let install = self.postgres.install();
        format!("Cluster: {}; PostgreSQL {}", size.expect("a size"), install.major())
    }

    /// A path of this benchmark's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// This program's own helper.
    pub(crate) fn chore(&self, line: &str) -> String {
        let program = std::env::current_exe().expect("this program has a path");
        format!("{} chore {line}", program.display())
    }

    /// Runs the variants that were asked for in turn.
    pub(crate) fn measure(&self, variants: Vec<Variant>) -> (Vec<Variant>, Vec<Vec<Measured>>) {
        let wanted = |variant: &Variant| {
            self.only.is_empty() || self.only.iter().any(|part| variant.name.contains(part))
        };
        let variants: Vec<Variant> = variants.into_iter().filter(wanted).collect();
        let server = self.postgres.process().expect("it runs").pid();
        let results = measure_rounds(&variants, self.rounds, server);
        (variants, results)
    }

    /// The folder of a repository.
    pub(crate) fn repository(&self, place: Place, tool: &str) -> PathBuf {
        if place == Place::Kept { self.path("kept").join(tool) } else { self.path("out").join(tool) }
    }

    /// What is done before a run: an empty repository, and nobody who archives. Then `more`, and `archive` archives.
    pub(crate) fn before(&self, place: Place, more: &str, archive: Option<&str>) -> String {
        let (now, out) = (self.path("archive-now"), self.path("out"));
        let (now, out) = (now.display(), out.display());
        let mut text = format!("rm -f {now}; ");
        match place {
            // The archiver of the run before may still be writing there.
            Place::Disk => {
                let empty = format!("until rm -rf {out}; do sleep 0.2; done");
                _ = write!(text, "{empty}; {}mkdir -p {out}; ", self.shell.prefix());
            }
            Place::S3 => {
                _ = write!(text, "{}; ", self.chore(&format!("empty-bucket {}", self.s3.address().port())));
            }
            Place::Kept => {}
        }
        text.push_str(more);
        if let Some(archive) = archive {
            let _ = write!(text, "\ncat > {now} <<'END'\n{archive} \"$1\"\nEND\n");
        }
        text
    }

    /// Environment of clients.
    pub(crate) fn login(&self) -> String {
        format!(
            "env PGHOST={} PGPORT={} PGUSER={} PGPASSFILE={} PGDATABASE=postgres",
            self.postgres.socket_directory().display(),
            self.postgres.port(),
            self.postgres.user(),
            self.path("passfile").display()
        )
    }

    /// One of our programs with its repository, as the server's account.
    pub(crate) fn ours(&self, program: &str, place: Place) -> String {
        let start = format!(
            "{} --option wal.spool={}",
            self.programs.join(program).display(),
            self.path("spool").display()
        );
        match place {
            Place::S3 => format!(
                "env HOME=/nonexistent {PASSED} {start} --repository \
                 's3://{BUCKET}/ours?endpoint=http://127.0.0.1:{}&region=us-east-1&path-style=true'",
                self.s3.address().port()
            ),
            _ => format!("{start} --repository {}", self.repository(place, "ours").display()),
        }
    }

    /// pgBackRest with a configuration for this place.
    pub(crate) fn pgbackrest(&self, peer: &PgBackRest, place: Place, level: u32) -> String {
        let file = self.path(&format!("pgbackrest-{place:?}-{level}.conf"));
        self.shell.write(&file, self.pgbackrest_configuration(place, level));
        let (passfile, program) = (self.path("passfile"), peer.program().display());
        format!("env PGPASSFILE={} {program} --config={} --stanza=bench", passfile.display(), file.display())
    }

    fn pgbackrest_configuration(&self, place: Place, level: u32) -> String {
        let folder = self.scratch.path().display();
        let mut text = format!(
            "[bench]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user={}\n\n[global]\nlock-path={folder}/lock\n\
             log-path={folder}/log\nlog-level-file=off\nlog-level-console=error\nprocess-max=2\nstart-fast=y\n\
             compress-type=zst\ncompress-level={level}\nrepo1-bundle=y\nrepo1-block=y\nrepo1-retention-full=9\n",
            self.postgres.data_directory().display(),
            self.postgres.port(),
            self.postgres.socket_directory().display(),
            self.postgres.user(),
        );
        let _ = match place {
            Place::S3 => writeln!(
                text,
                "repo1-type=s3\nrepo1-path=/bench\nrepo1-s3-bucket={BUCKET}\nrepo1-s3-endpoint=localhost\n\
                 repo1-s3-region=us-east-1\nrepo1-s3-key={KEY}\nrepo1-s3-key-secret={SECRET}\nrepo1-s3-uri-style=path\n\
                 repo1-storage-host=http://127.0.0.1\nrepo1-storage-port={}",
                self.s3.address().port()
            ),
            _ => writeln!(text, "repo1-path={}", self.repository(place, "pgbackrest").display()),
        };
        text
    }

    /// wal-rus with its environment.
    pub(crate) fn wal_rus(&self, program: &Path, place: Place, level: u32) -> String {
        let place = match place {
            Place::S3 => format!(
                "{PASSED} WALG_S3_PREFIX=s3://{BUCKET}/bench AWS_ENDPOINT=http://127.0.0.1:{} \
                 AWS_S3_FORCE_PATH_STYLE=true",
                self.s3.address().port()
            ),
            _ => format!("WALG_FILE_PREFIX={}", self.repository(place, "wal-rus").display()),
        };
        format!(
            "{} {place} PGPASSWORD={} WALG_COMPRESSION_METHOD=zstd WALG_COMPRESSION_LEVEL={level} \
             WALG_UPLOAD_CONCURRENCY=2 WALG_DOWNLOAD_CONCURRENCY=2 WALG_LOG_LEVEL=ERROR {}",
            self.login(),
            self.postgres.password(),
            program.display()
        )
    }

    /// Stops the servers.
    pub(crate) async fn close(mut self) {
        self.s3.stop().await;
        if let Err(error) = self.postgres.stop(StopMode::Immediate) {
            let _ = writeln!(io::stderr(), "the server did not stop: {error}");
        }
    }
}
