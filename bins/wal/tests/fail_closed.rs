//! Recovery from an archive that lies: the server stops, loudly. It never takes a fault for the end of the log.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../../crates/postgres-ops/tests/restored/mod.rs"]
mod restored;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::sealed::{seal, unseal};
use backstay_postgres_ops::cluster_restore::Ending;
use backstay_postgres_ops::recovery::RecoveryTarget;
use backstay_testkit::PostgresOptions;
use tokio_util::sync::CancellationToken;

use cluster::Cluster;
use restored::{Restored, archive_all, request};

/// What is done to one segment in the middle of what recovery needs, or to the repository.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Truncated,
    Flipped,
    Missing,
    Garbage,
    OtherCluster,
    OtherSegment,
    Forbidden,
    WrongPrefix,
}

const FAULTS: [Fault; 9] = [
    Fault::None,
    Fault::Truncated,
    Fault::Flipped,
    Fault::Missing,
    Fault::Garbage,
    Fault::OtherCluster,
    Fault::OtherSegment,
    Fault::Forbidden,
    Fault::WrongPrefix,
];

struct Scene {
    cluster: Cluster,
    program: PathBuf,
    repository: PathBuf,
    /// The segment that is spoiled, and another one.
    segments: [PathBuf; 2],
    targets: Vec<RecoveryTarget>,
}

impl Scene {
    async fn new() -> Self {
        let cluster = Cluster::start(PostgresOptions::default()).await;
        cluster.psql("CREATE TABLE done (n int)");
        cluster.back_up(&cluster.options()).await.unwrap();
        let mut names = Vec::new();
        for number in 1..=4 {
            cluster.psql(&format!("INSERT INTO done VALUES ({number})"));
            names.push(cluster.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())"));
            cluster.psql("SELECT pg_switch_wal()");
        }
        let xid = cluster.psql("INSERT INTO done VALUES (5) RETURNING pg_current_xact_id()::xid");
        let lsn = cluster.psql("SELECT pg_current_wal_insert_lsn()");
        let time = cluster.psql(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        );
        cluster.psql("SELECT pg_create_restore_point('five')");
        cluster.psql("CREATE TABLE after_it AS SELECT 1");
        archive_all(&cluster).await;
        let targets = vec![
            RecoveryTarget::Latest,
            RecoveryTarget::time(&time, true).unwrap(),
            RecoveryTarget::lsn(&lsn, true).unwrap(),
            RecoveryTarget::xid(&xid, true).unwrap(),
            RecoveryTarget::name("five").unwrap(),
        ];
        let repository = cluster.root.path().join("repository");
        let segments = [2, 3].map(|at: usize| find(&repository, &names[at]));
        let scratch = cluster.postgres.scratch().path();
        let program = scratch.join("restore-wal");
        fs::copy(env!("CARGO_BIN_EXE_restore-wal"), &program).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_backstay-wal"), scratch.join("backstay-wal")).unwrap();
        fs::write(scratch.join("backstay.toml"), "").unwrap();
        fs::set_permissions(cluster.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let scene = Self { program, repository, segments, targets, cluster };
        scene.give(&scene.repository);
        scene
    }

    /// The server may run under another account.
    fn give(&self, path: &Path) {
        if let Some(account) = self.cluster.postgres.account() {
            let owner = format!("{}:{}", account.uid(), account.gid());
            assert!(Command::new("chown").arg("-R").arg(owner).arg(path).status().unwrap().success());
        }
    }

    fn command(&self, repository: &Path, fault: Fault) -> String {
        // What fails is repeated until then.
        let deadline = if fault == Fault::None { "2m" } else { "1s" };
        let config = self.program.with_file_name("backstay.toml");
        format!(
            "{} %f %p --config {} --repository {} --deadline {deadline} --no-prefetch",
            self.program.display(),
            config.display(),
            repository.display()
        )
    }

    /// Does it, and gives what undoes it.
    fn spoil(&self, fault: Fault) -> Undo<'_> {
        let [path, other] = &self.segments;
        let undo = Undo { path: path.clone(), content: fs::read(path).unwrap(), scene: self };
        let content = unseal(&undo.content, &Identities::none()).unwrap();
        let sealed = |content: &[u8]| seal(content, 3, &Recipients::none()).unwrap().1.to_vec();
        let spoiled = match fault {
            Fault::None | Fault::WrongPrefix => return undo,
            Fault::Missing => {
                fs::remove_file(path).unwrap();
                return undo;
            }
            Fault::Forbidden => {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
                return undo;
            }
            Fault::Truncated => undo.content[..undo.content.len() / 2].to_vec(),
            Fault::Flipped => {
                let mut flipped = undo.content.clone();
                let middle = flipped.len() / 2;
                flipped[middle] ^= 1;
                flipped
            }
            Fault::Garbage => vec![0x5A; undo.content.len()],
            Fault::OtherCluster => {
                let mut foreign = content;
                foreign[24..32].copy_from_slice(&7_u64.to_le_bytes());
                sealed(&foreign)
            }
            Fault::OtherSegment => fs::read(other).unwrap(),
        };
        fs::remove_file(path).unwrap();
        fs::write(path, spoiled).unwrap();
        self.give(path);
        undo
    }

    /// A cluster that is ready to be started and to recover with this command.
    async fn prepare(&self, name: &str, target: RecoveryTarget, command: &str) -> Restored<'_> {
        let place = Restored::beside(&self.cluster.postgres, name);
        let plan = place.plan(&self.cluster, &request(target)).await.unwrap();
        let settings = plan.settings(command);
        let (progress, cancel, none) = (Progress::new(), CancellationToken::new(), Identities::none());
        let restoring =
            plan.apply(&self.cluster.repositories, &none, &settings, &Ending::Prepare, &progress, &cancel);
        Box::pin(restoring).await.unwrap();
        place
    }

    /// Restores with the whole archive, then starts with the spoiled one. How many rows there are, if it promoted.
    async fn recover(&self, fault: Fault, target: RecoveryTarget, number: usize) -> Option<String> {
        let elsewhere = self.repository.join("elsewhere");
        let repository = if fault == Fault::WrongPrefix { &elsewhere } else { &self.repository };
        let command = self.command(repository, fault);
        let place = self.prepare(&format!("closed-{number}"), target, &command).await;
        let undo = self.spoil(fault);
        let port = place.port.port();
        let (data, log) = (place.target.to_str().unwrap(), place.target.join("log.txt"));
        let options = format!("-c port={port} -c unix_socket_directories= -c fsync=off");
        let args =
            ["start", "-s", "-w", "-t", "300", "-D", data, "-o", &options, "-l", log.to_str().unwrap()];
        let _ = place.tool("pg_ctl", &args);
        let promoted = place.target.join("pg_wal/00000002.history");
        let begin = Instant::now();
        while place.target.join("postmaster.pid").exists() && !promoted.exists() {
            assert!(begin.elapsed() < Duration::from_secs(300), "{fault:?}: neither promoted nor ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(undo);
        if promoted.exists() {
            return Some(place.psql("postgres", "SELECT count(*) FROM done"));
        }
        let words = fs::read_to_string(log).unwrap();
        assert!(words.contains("FATAL"), "{fault:?}: {words}");
        None
    }
}

struct Undo<'a> {
    path: PathBuf,
    content: Vec<u8>,
    scene: &'a Scene,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
        let _ = fs::remove_file(&self.path);
        fs::write(&self.path, &self.content).unwrap();
        self.scene.give(&self.path);
    }
}

fn find(folder: &Path, name: &str) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_name() == name {
                return entry.path();
            }
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    panic!("{name} is not archived");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_archive_is_taken_for_the_end_of_the_log() {
    let scene = Scene::new().await;
    let soak = std::env::var_os("BACKSTAY_SOAK").is_some();
    let mut number = 0;
    for (at, fault) in FAULTS.into_iter().enumerate() {
        let every = scene.targets.iter().enumerate();
        let chosen =
            every.filter(|(kind, _)| soak || fault == Fault::None || *kind == at % scene.targets.len());
        for (_, target) in chosen {
            number += 1;
            let outcome = scene.recover(fault, target.clone(), number).await;
            let expected = (fault == Fault::None).then(|| "5".to_owned());
            assert_eq!(outcome, expected, "{fault:?} × {target}");
        }
    }
}

/// What `restore-wal` leaves unsynced under the names that the server takes over, the server syncs itself, before it
/// gives the file its name and reads it.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_syncs_what_it_takes_over() {
    let scene = Scene::new().await;
    let command = scene.command(&scene.repository, Fault::None);
    let place = scene.prepare("traced", RecoveryTarget::Latest, &command).await;
    let scratch = scene.cluster.postgres.scratch().path();
    let log = scratch.join("calls.txt");
    let server = place.command("postgres");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-y", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2", "-o"]).arg(&log);
    traced.arg("--").arg(server.get_program()).args(server.get_args()).arg("-D").arg(&place.target);
    let port = format!("port={}", place.port.port());
    traced.args(["-c", &port, "-c", "unix_socket_directories=", "-c", "fsync=on"]).current_dir("/");
    let output = || fs::File::create(scratch.join("traced.txt")).unwrap();
    let mut traced = traced.stdout(output()).stderr(output()).spawn().unwrap();
    let begin = Instant::now();
    while !place.target.join("pg_wal/00000002.history").exists() {
        let alive = traced.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(300);
        assert!(alive, "{}", fs::read_to_string(scratch.join("traced.txt")).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    place.stop("fast");
    traced.wait().unwrap();
    let calls = fs::read_to_string(log).unwrap();
    let (mut synced, mut taken) = (false, 0);
    for call in calls.lines() {
        assert!(!call.contains("RECOVERYXLOG.backstay>"), "{call}");
        if call.contains("sync(") && call.contains("/RECOVERYXLOG>") {
            synced = true;
        } else if call.contains("rename") && call.contains("RECOVERYXLOG\", ") {
            assert!(synced, "{calls}");
            (synced, taken) = (false, taken + 1);
        }
    }
    assert!(taken >= 5, "{taken} segments: {calls}");
}
