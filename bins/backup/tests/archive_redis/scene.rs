//! A server, a client that writes and remembers what was acknowledged, an archiver, and a look at what is archived.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::secret::Secret;
use backstay_backup_core::store::SharedStore;
use backstay_redis_ops::archive::{LineFacts, StreamArchive, StreamId, StreamSurvey, bases};
use backstay_redis_ops::resp::{Capture, CommandScanner, StreamState};
use backstay_storage_s3::{Credentials, S3Options as StoreOptions, S3Store};
use backstay_testkit::s3::{Credential, S3Options, S3Server};
use backstay_testkit::{RedisOptions, TestRedis};
use serde_json::Value;

use crate::writer::Acknowledged;
pub use crate::writer::Writer;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub struct Scene {
    pub redis: TestRedis,
    pub root: tempfile::TempDir,
    /// The repository, unless it is a folder.
    pub bucket: Option<S3Server>,
    /// The archiver that was started last; what another one told is of the past.
    process: AtomicU32,
}

pub struct Archiver(Child);

impl Drop for Archiver {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Archiver {
    pub fn kill9(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Tells it to stop, and waits; its exit code.
    pub fn stop(self) -> Option<i32> {
        let term = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(term.success());
        self.wait()
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits for it to end by itself; its exit code.
    pub fn wait(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end");
    }

    /// The most kilobytes of memory that it ever used.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Scene {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let mut options = RedisOptions::default().setting("repl-diskless-sync-delay", "0");
        for (name, value) in settings {
            options = options.setting(name, value);
        }
        let redis = TestRedis::start(options).await.unwrap();
        Self { redis, root: tempfile::tempdir().unwrap(), bucket: None, process: AtomicU32::new(0) }
    }

    /// Archives into a bucket.
    pub async fn in_a_bucket(mut self) -> Self {
        let options =
            S3Options::memory().bucket("backups").credential(Credential::admin("admin", "admin-secret"));
        self.bucket = Some(S3Server::start(options).await.unwrap());
        self
    }

    fn address(&self) -> String {
        match &self.bucket {
            Some(server) => {
                format!("s3://backups?endpoint={}&path-style=true&region=us-east-1", server.endpoint())
            }
            None => self.repository().display().to_string(),
        }
    }

    pub fn repository(&self) -> PathBuf {
        self.root.path().join("repository")
    }

    pub fn spool(&self) -> PathBuf {
        self.root.path().join("spool")
    }

    pub fn program(&self, port: u16, arguments: &[&str]) -> Command {
        self.program_at(&self.spool(), port, arguments)
    }

    pub fn program_at(&self, spool: &Path, port: u16, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_archive-redis"));
        command
            .arg("--repository")
            .arg(self.address())
            .env("AWS_ACCESS_KEY_ID", "admin")
            .env("AWS_SECRET_ACCESS_KEY", "admin-secret")
            .arg("--spool")
            .arg(spool)
            .args(["--lease", "5", "--address", &format!("127.0.0.1:{port}")])
            .args(arguments)
            .env("HOME", self.root.path())
            .env("REDISCLI_AUTH", self.redis.password().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    pub fn archive(&self, arguments: &[&str]) -> Archiver {
        self.archive_from(self.redis.port(), arguments)
    }

    pub fn archive_from(&self, port: u16, arguments: &[&str]) -> Archiver {
        let archiver = self.started(self.program(port, arguments));
        self.process.store(archiver.id(), Ordering::SeqCst);
        archiver
    }

    /// With another spool; what it tells is not looked at.
    pub fn archive_at(&self, spool: &Path) -> Archiver {
        self.started(self.program_at(spool, self.redis.port(), &[]))
    }

    fn started(&self, mut program: Command) -> Archiver {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        Archiver(program.stderr(log).spawn().unwrap())
    }

    fn log_file(&self) -> PathBuf {
        self.root.path().join("archiver.log")
    }

    /// Asserts that an archiver has logged that.
    #[track_caller]
    pub fn assert_logged(&self, level: &str, words: &str) {
        let log = std::fs::read_to_string(self.log_file()).unwrap();
        let is_it = |line: &str| line.contains(&format!(" {level} ")) && line.contains(words);
        assert!(log.lines().any(is_it), "no {level} line says {words:?}:\n{log}");
    }

    /// What everybody has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap()
    }

    /// What `--status` says, and its exit code.
    pub fn told(&self) -> (Option<i32>, Value) {
        let mut command = self.program(self.redis.port(), &["--status", "--json"]);
        let output = command.stdout(Stdio::piped()).output().unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Archives what there is and ends.
    pub fn catch_up(&self, arguments: &[&str]) -> Value {
        let mut command = self.program(self.redis.port(), &["--until-caught-up", "--json"]);
        let output = command.args(arguments).stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What the archiver that was started last says of itself.
    pub fn status(&self) -> Option<Value> {
        let told = std::fs::read(self.spool().join("status.json")).ok()?;
        let told: Value = serde_json::from_slice(&told).ok()?;
        (told["process"] == self.process.load(Ordering::SeqCst)).then_some(told)
    }

    /// Waits until the archiver says that.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.status().is_some_and(|status| is_so(&status)) {
            assert!(Instant::now() < deadline, "{what} did not come: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn wait_for_base(&self) {
        self.wait("a base", |status| status["bases"].as_u64() > Some(0) || !status["base"].is_null());
    }

    /// Waits until something is stored, and everything but what came since.
    pub fn wait_for_segment(&self) {
        self.wait("a segment", |status| status["segments"].as_u64() > Some(0));
    }

    pub fn info(&self, field: &str) -> String {
        let info = self.redis.cli(&["info"]).unwrap();
        let line =
            info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
        line.unwrap_or_default().trim().to_owned()
    }

    pub async fn repositories(&self) -> Repositories {
        let store: SharedStore = match &self.bucket {
            Some(server) => Arc::new(open_bucket(&server.endpoint()).await),
            None => Arc::new(LocalStore::open(self.repository()).unwrap()),
        };
        let repository = Repository::open("r", store).await.unwrap();
        Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap()
    }

    /// The line that grew last.
    pub async fn look_at_line(&self) -> Option<LineFacts> {
        let (repositories, stanza) = (self.repositories().await, Stanza::parse("main").unwrap());
        let catalog = Catalog::load(&repositories, &stanza).await.unwrap();
        let archive = StreamArchive::new(repositories, stanza, StreamId::default());
        archive.survey().await.unwrap().lines(&bases(&catalog)).pop()
    }

    /// What is archived: the lines, the last one first, and every write of the line that grew last.
    pub async fn look(&self) -> Look {
        let repositories = self.repositories().await;
        let stanza = Stanza::parse("main").unwrap();
        let catalog = Catalog::load(&repositories, &stanza).await.unwrap();
        let archive = StreamArchive::new(repositories, stanza, StreamId::default());
        let survey = Arc::new(archive.survey().await.unwrap());
        let lines = survey.lines(&bases(&catalog));
        let mut writes = BTreeMap::new();
        let line = lines.last().cloned();
        for window in line.iter().flat_map(|line| &line.windows) {
            let line = line.as_ref().unwrap();
            let whole = survey.line(line.replication_id);
            let path = survey.path(&whole, window.from.offset, window.to.offset).unwrap();
            let mut reader = archive.open(survey.clone(), path, &Identities::none());
            let capture = Capture { arguments: 3, bytes: 64 };
            let mut scanner =
                CommandScanner::new(window.from.offset, StreamState::default()).capture(capture);
            while let Some(bytes) = reader.next().await.unwrap() {
                scanner
                    .scan(&bytes, |command| {
                        if command.is("SET") {
                            let text =
                                |at| String::from_utf8(command.argument(at).unwrap().bytes.to_vec()).unwrap();
                            let number =
                                text(1).strip_prefix("n:").map(|number| number.parse::<u64>().unwrap());
                            writes.extend(number.map(|number| (number, text(2).parse::<u64>().unwrap())));
                        }
                    })
                    .unwrap();
            }
        }
        Look { survey, lines, line, writes }
    }
}

async fn open_bucket(endpoint: &str) -> S3Store {
    let credentials = Credentials::Static {
        access_key_id: "admin".to_owned(),
        secret_access_key: Secret::new("admin-secret".to_owned()),
        session_token: None,
    };
    let options = StoreOptions::new("backups").region("us-east-1").endpoint(endpoint);
    S3Store::open(options.credentials(credentials)).await.unwrap()
}

/// What is archived.
pub struct Look {
    pub survey: Arc<StreamSurvey>,
    pub lines: Vec<LineFacts>,
    /// The one that grew last; there is none before the first segment.
    pub line: Option<LineFacts>,
    /// Numbers of the writes, and when they were sent, in microseconds.
    pub writes: BTreeMap<u64, u64>,
}

impl Look {
    /// One line of one window without a gap, with everything from the first write to the last one of `all`.
    #[track_caller]
    pub fn assert_whole(&self, all: u64) {
        assert_eq!(self.lines.len(), 1, "{:?}", self.lines);
        let line = self.line.as_ref().unwrap();
        assert_eq!((line.windows.len(), line.gaps.len()), (1, 0), "{line:?}");
        let first = *self.writes.keys().next().unwrap();
        let missing: Vec<_> =
            (first..=all).filter(|number| !self.writes.contains_key(number)).take(5).collect();
        assert!(missing.is_empty(), "of {all} acknowledged writes {missing:?} … are missing");
    }

    /// The same, and every write is what was written.
    #[track_caller]
    pub fn assert_has(&self, acknowledged: &Acknowledged) {
        self.assert_whole(acknowledged.last());
        assert_eq!(acknowledged.first_lost(&self.writes), None, "lost or changed");
    }
}
