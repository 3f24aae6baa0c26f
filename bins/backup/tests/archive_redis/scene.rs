//! A server, a client that writes and remembers what was acknowledged, an archiver, and a look at what is archived.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_redis_ops::archive::{LineFacts, StreamArchive, StreamId, StreamSurvey, bases};
use backstay_redis_ops::resp::{Capture, CommandScanner, StreamState};
use backstay_testkit::{RedisOptions, TestRedis};
use serde_json::Value;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub struct Scene {
    pub redis: TestRedis,
    pub root: tempfile::TempDir,
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
    pub fn stop(mut self) -> Option<i32> {
        let term = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(term.success());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not stop");
    }

    /// Kilobytes of memory in use.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
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
        Self { redis: TestRedis::start(options).await.unwrap(), root: tempfile::tempdir().unwrap() }
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
            .arg(self.repository())
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
        Archiver(self.program(port, arguments).spawn().unwrap())
    }

    /// Archives what there is and ends.
    pub fn catch_up(&self, arguments: &[&str]) -> Value {
        let mut command = self.program(self.redis.port(), &["--until-caught-up", "--json"]);
        let output = command.args(arguments).stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What the archiver says of itself.
    pub fn status(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.spool().join("status.json")).ok()?).ok()
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

    pub fn info(&self, field: &str) -> String {
        let info = self.redis.cli(&["info"]).unwrap();
        let line =
            info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
        line.unwrap_or_default().trim().to_owned()
    }

    pub async fn repositories(&self) -> Repositories {
        let store = Arc::new(LocalStore::open(self.repository()).unwrap());
        let repository = Repository::open("r", store).await.unwrap();
        Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap()
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
    pub fn assert_whole(&self, all: u64) {
        assert_eq!(self.lines.len(), 1, "{:?}", self.lines);
        let line = self.line.as_ref().unwrap();
        assert_eq!((line.windows.len(), line.gaps.len()), (1, 0), "{line:?}");
        let first = *self.writes.keys().next().unwrap();
        let missing: Vec<_> =
            (first..=all).filter(|number| !self.writes.contains_key(number)).take(5).collect();
        assert!(missing.is_empty(), "of {all} acknowledged writes {missing:?} … are missing");
    }
}

pub fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// A client that writes one number after another as fast as they are acknowledged.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    /// Begins behind `last`.
    pub fn start(redis: &TestRedis, last: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (port, password) = (redis.port(), redis.password().map(str::to_owned));
        let told = stop.clone();
        let thread = std::thread::spawn(move || write(port, password.as_deref(), last, &told));
        Self { stop, thread }
    }

    /// Ends, and says which write was acknowledged last.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Writes until told to stop or the server is gone.
fn write(port: u16, password: Option<&str>, last: u64, stop: &AtomicBool) -> u64 {
    let mut number = last;
    let Ok(socket) = TcpStream::connect(("127.0.0.1", port)) else { return number };
    socket.set_nodelay(true).unwrap();
    let mut answers = BufReader::new(socket.try_clone().unwrap());
    let mut ask = |words: &[&str]| -> bool {
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| text.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        let mut answer = String::new();
        (&socket).write_all(text.as_bytes()).is_ok()
            && answers.read_line(&mut answer).is_ok()
            && answer == "+OK\r\n"
    };
    if let Some(password) = password {
        assert!(ask(&["AUTH", password]));
    }
    while !stop.load(Ordering::SeqCst) {
        let next = number + 1;
        if !ask(&["SET", &format!("n:{next}"), &micros().to_string()]) {
            break;
        }
        number = next;
        // Enough for several thousand writes a second, and room for the others on two processors.
        if number.is_multiple_of(64) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    number
}
