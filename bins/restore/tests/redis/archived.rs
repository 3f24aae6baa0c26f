//! From a server that is written to, through the real `archive-redis` and `backup-redis`, to a server that `restore-redis` brings to
//! any offset, any time, or just before a command; from a directory, from a bucket, and from an encrypted repository.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use backstay_redis_ops::Offset;
use backstay_testkit::TestRedis;
use backstay_testkit::s3::{Credential, S3Options, S3Server};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::workload::{Mark, Workload};
use crate::world::{ask, connect, digest, server};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Clocks are compared over a connection, which takes its time.
const CLOCKS: SignedDuration = SignedDuration::from_millis(200);

fn soak() -> bool {
    std::env::var_os("BACKSTAY_SOAK").is_some()
}

/// A program of another package, built beside ours.
fn program(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_restore-redis")).with_file_name(name);
    assert!(program.is_file(), "{} is missing: cargo build -p backstay-backup", program.display());
    program
}

/// A server, and where it is archived.
struct Source {
    folder: tempfile::TempDir,
    server: TestRedis,
    repository: String,
    /// So that it lives as long.
    _bucket: Option<S3Server>,
    key: Option<age::x25519::Identity>,
}

/// The data at every moment, and moments in which nothing was written.
struct History {
    marks: Vec<(Mark, Timestamp)>,
    still: Vec<(Timestamp, String)>,
    first: Offset,
    before_accident: String,
    newest: String,
}

struct Archiver(Child);

impl Drop for Archiver {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Source {
    async fn new(bucket: bool, encrypted: bool) -> Self {
        let settings = [("repl-ping-replica-period", "3600"), ("repl-backlog-size", "64mb")];
        let (folder, server) = (tempfile::tempdir().unwrap(), server(&settings).await);
        std::fs::write(folder.path().join("backstay.toml"), "").unwrap();
        let mut repository = "./repository".to_owned();
        let mut started = None;
        if bucket {
            let credential = Credential::admin("admin", "admin-secret");
            let options = S3Options::memory().bucket("backups").credential(credential);
            let store = S3Server::start(options).await.unwrap();
            let endpoint = store.endpoint();
            repository = format!("s3://backups/shop?endpoint={endpoint}&path-style=true&region=us-east-1");
            started = Some(store);
        }
        let key = encrypted.then(age::x25519::Identity::generate);
        if let Some(key) = &key {
            use std::os::unix::fs::PermissionsExt;
            let path = folder.path().join("key");
            std::fs::write(&path, key.to_string().expose_secret()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { folder, server, repository, _bucket: started, key }
    }

    fn command(&self, name: &str, password: Option<&str>) -> Command {
        let mut command = Command::new(program(name));
        command
            .args(["--repository", &self.repository])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("BACKSTAY_CONFIG", "backstay.toml")
            .env("AWS_ACCESS_KEY_ID", "admin")
            .env("AWS_SECRET_ACCESS_KEY", "admin-secret")
            .env("REDISCLI_AUTH", password.unwrap_or_default())
            .stdin(Stdio::null());
        command
    }

    /// A program that reads the server and stores what it reads.
    fn writing(&self, name: &str) -> Command {
        let mut command = self.command(name, self.server.password());
        command.args(["--address", &format!("127.0.0.1:{}", self.server.port())]).stdout(Stdio::null());
        if let Some(key) = &self.key {
            let other = age::x25519::Identity::generate();
            let recipients = format!("{},{}", key.to_public(), other.to_public());
            command.arg(format!("--option=encryption.recipients={recipients}"));
        }
        command
    }

    fn archive(&self) -> Archiver {
        let mut command = self.writing("archive-redis");
        command.args(["--spool", "spool", "--interval", "100", "--lease", "5", "--merge-size", "64KiB"]);
        Archiver(command.spawn().unwrap())
    }

    fn wait(&self, archiver: &Archiver, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = std::fs::read(self.folder.path().join("spool/status.json")).unwrap_or_default();
            let told: Value = serde_json::from_slice(&told).unwrap_or_default();
            if told["process"] == archiver.0.id() && is_so(&told) {
                return told;
            }
            assert!(Instant::now() < deadline, "{what} did not come: {told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_until_stored(&self, archiver: &Archiver, offset: Offset) {
        self.wait(archiver, "everything", |told| {
            told["durable"]["offset"].as_u64() >= Some(offset.0) && told["waiting"] == 0
        });
    }

    /// Writes of all kinds; the archiver is killed in between, and another snapshot is taken.
    async fn live(&self, seed: u64, steps: usize) -> History {
        let mut workload = Workload::new(seed, connect(&self.server).await).await;
        for _ in 0..20 {
            workload.step().await;
        }
        let mut archiver = self.archive();
        let told = self.wait(&archiver, "a base", |told| !told["base"].is_null());
        let first = Offset(told["base"]["offset"].as_u64().unwrap());
        let mut marks = vec![(workload.mark().await, Timestamp::now())];
        let mut still = Vec::new();
        for number in 1..=steps {
            marks.push((workload.step().await, Timestamp::now()));
            if number % (steps / 3) == 0 {
                // A moment of which everybody knows on which side of it a write was.
                let last = &marks.last().unwrap().0;
                self.wait_until_stored(&archiver, last.offset);
                still.push((Timestamp::now(), last.digest.clone()));
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            if number == steps / 2 {
                drop(archiver);
                archiver = self.archive();
                let backup = self.writing("backup-redis").output().unwrap();
                assert!(backup.status.success(), "{backup:?}");
            }
        }
        let before_accident = marks.last().unwrap().0.digest.clone();
        let mut connection = connect(&self.server).await;
        let _: redis::Value = ask(&mut connection, "FLUSHALL").await;
        for number in 0..50 {
            let _: redis::Value = ask(&mut connection, &format!("SET after:{number} 1")).await;
        }
        let newest = digest(&mut connection).await;
        let stop = Command::new("kill").arg(archiver.0.id().to_string()).status().unwrap();
        assert!(stop.success());
        assert_eq!(archiver.0.wait().unwrap().code(), Some(0), "everything is stored");
        History { marks, still, first, before_accident, newest }
    }
}

/// A server that is brought to one moment after another.
struct Target<'a> {
    source: &'a Source,
    server: TestRedis,
}

impl Target<'_> {
    fn restore(&self, args: &[&str]) -> (i32, Value, String) {
        let mut command = self.source.command("restore-redis", self.server.password());
        let configuration = self.server.configuration();
        command.arg("--config-file").arg(configuration).args(["--json", "--no-progress"]).args(args);
        let output = command.output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default(), errors)
    }

    /// Restores, starts the server, and says which offset it was brought to and what is in it.
    async fn brought_to(&mut self, args: &[&str]) -> (Offset, String) {
        self.server.stop().unwrap();
        let key: &[&str] = if self.source.key.is_some() { &["--identity-file", "key"] } else { &[] };
        let (code, receipt, errors) = self.restore(&[args, key].concat());
        assert_eq!(code, 0, "{args:?}: {receipt} {errors}");
        self.server.restart().unwrap();
        let mut connection = connect(&self.server).await;
        (Offset(receipt["reached"]["offset"].as_u64().unwrap()), digest(&mut connection).await)
    }
}

/// The place of the last mark at or before an offset.
fn at(marks: &[(Mark, Timestamp)], offset: Offset) -> usize {
    marks.iter().rposition(|(mark, _)| mark.offset <= offset).unwrap()
}

async fn everything_comes_back(bucket: bool, encrypted: bool, points: usize) {
    let seed = if soak() { rand::random() } else { 41 };
    let points = if soak() { points * 12 } else { points };
    let source = Source::new(bucket, encrypted).await;
    let history = source.live(seed, if soak() { 600 } else { 90 }).await;
    let marks = &history.marks;
    let server = server(&[("appendonly", "yes")]).await;
    let mut target = Target { source: &source, server };
    let mut rng = StdRng::seed_from_u64(seed);

    let end = marks.last().unwrap().0.offset;
    for _ in 0..points {
        let wanted = Offset(rng.random_range(history.first.0.max(marks[0].0.offset.0)..=end.0));
        let (reached, found) = target.brought_to(&["--target-offset", &wanted.to_string()]).await;
        let mark = &marks[at(marks, wanted)].0;
        assert!(mark.offset <= reached && reached <= wanted, "seed {seed}, {wanted}");
        assert_eq!(found, mark.digest, "seed {seed}, offset {wanted}");
    }
    for (time, wanted) in &history.still {
        let (_, found) = target.brought_to(&["--target-time", &time.to_string()]).await;
        assert_eq!(found, *wanted, "seed {seed}, the state of {time}");
    }
    for _ in 0..points {
        let between = marks[0].1.as_millisecond()..marks.last().unwrap().1.as_millisecond();
        let time = Timestamp::from_millisecond(rng.random_range(between)).unwrap();
        // Segments of 100 ms are as fine as times are; snapshots know whole seconds.
        let time = time.max(marks[0].1 + SignedDuration::from_millis(1100));
        let (reached, found) = target.brought_to(&["--target-time", &time.to_string()]).await;
        let mark = at(marks, reached);
        assert_eq!(found, marks[mark].0.digest, "seed {seed}, the state of {time}");
        let begun = marks[mark.saturating_sub(1)].1;
        assert!(begun <= time + CLOCKS, "seed {seed}: of {time} there is something of {begun}");
    }
    let (_, found) = target.brought_to(&["--before", "FLUSHALL"]).await;
    assert_eq!(found, history.before_accident);
    let (_, found) = target.brought_to(&[]).await;
    assert_eq!(found, history.newest);
    if encrypted {
        without_the_key_nothing_is_touched(&mut target);
    }
    let (still, marks) = (history.still.len(), marks.len());
    println!(
        "{marks} states; {points} offsets, {points} + {still} times, FLUSHALL and the newest: all equal"
    );
}

fn without_the_key_nothing_is_touched(target: &mut Target<'_>) {
    target.server.stop().unwrap();
    let data = target.server.data_directory();
    let before = crate::scene::loadable(&data);
    let other = age::x25519::Identity::generate();
    std::fs::write(target.source.folder.path().join("other"), other.to_string().expose_secret()).unwrap();
    for args in [&[][..], &["--identity-file", "other"]] {
        let (code, _, errors) = target.restore(args);
        assert_eq!(code, 2, "{args:?}: {errors}");
        assert!(errors.contains("--identity-file"), "{errors}");
        assert_eq!(crate::scene::loadable(&data), before, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_moment_comes_back_from_a_directory() {
    everything_comes_back(false, false, 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_moment_comes_back_from_a_bucket() {
    everything_comes_back(true, false, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_moment_comes_back_from_an_encrypted_repository() {
    everything_comes_back(false, true, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_moment_comes_back_from_an_encrypted_bucket() {
    everything_comes_back(true, true, 2).await;
}
