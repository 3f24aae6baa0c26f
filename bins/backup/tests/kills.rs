//! `backup-database` under `kill -9` at random moments (P1): what is listed restores, the rest is litter, and nothing
//! goes on running.
//!
//! 30 kills, or 200 with `BACKSTAY_SOAK` in the environment. Each hits the backup of a database with another name, since a run
//! after a killed one of the same database waits for its lease; see `leases.rs` for that.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::prune::{PrunePolicy, plan_prune};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::retention::Rules;
use backstay_postgres_ops::{RestoreOptions, Server, restore_database};
use backstay_testkit::{PostgresOptions, SampleSize, TestPostgres, load_sample};
use support::Moments;
use tokio_util::sync::CancellationToken;

const SEED: u64 = 9;
/// How soon the children of a killed program must be gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// One stream and parallel ones.
const WAYS: [&[&str]; 2] = [&[], &["--jobs", "2"]];

struct Scene {
    postgres: TestPostgres,
    root: tempfile::TempDir,
    /// Sets that were restored already.
    proven: BTreeSet<SetId>,
}

impl Scene {
    async fn start() -> Self {
        let postgres = TestPostgres::start(PostgresOptions::default()).await.unwrap();
        let size = SampleSize::default().accounts(2_000).orders(6_000).documents(500).large_objects(10);
        load_sample(&postgres, "shop", size).unwrap();
        // One row a page: large enough for a stream of its own, and quickly dumped.
        let bulky = "create table bulky with (fillfactor = 10) as select g as id, (select string_agg(md5((g * 99 + i) \
                     ::text), '') from generate_series(1, 25) i) as body from generate_series(1, 2200) g";
        postgres.psql("shop", bulky).unwrap();
        Self { postgres, root: tempfile::tempdir().unwrap(), proven: BTreeSet::new() }
    }

    fn repository(&self) -> PathBuf {
        self.root.path().join("repository")
    }

    /// A program that is about to start on our repository.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(support::path(name));
        command
            .arg("--repository")
            .arg(self.repository())
            .env("HOME", self.root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        command
    }

    /// A backup of this database.
    fn backup(&self, database: &str, way: &[&str]) -> Command {
        let mut command = self.program("backup-database");
        command
            .args(way)
            .arg("--database-url")
            .arg(self.postgres.url_without_password(database))
            .arg("--bin-dir")
            .arg(self.postgres.install().bin())
            .env("PGPASSFILE", self.postgres.passfile());
        command
    }

    /// How long a backup takes that nobody kills, and that its children are seen by [`Scene::processes`].
    fn usual_time(&self, way: &[&str]) -> Duration {
        let mut times: Vec<_> = (0..3)
            .map(|_| {
                let start = Instant::now();
                let (ended, seen) = self.watch(self.backup("shop", way).spawn().unwrap());
                assert!(ended && seen.contains("pg_dump"), "{seen:?}");
                start.elapsed()
            })
            .collect();
        times.sort();
        times[1]
    }

    /// Whether a program ended well, and the names of its children.
    fn watch(&self, mut program: Child) -> (bool, BTreeSet<String>) {
        let mut seen = BTreeSet::new();
        loop {
            seen.extend(self.processes());
            if let Some(status) = program.try_wait().unwrap() {
                return (status.success(), seen);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The name counts: a lease belongs to one.
    fn rename(&self, database: &str, to: &str) {
        self.postgres.psql("postgres", &format!("alter database {database} rename to {to}")).unwrap();
    }

    async fn repositories(&self) -> Repositories {
        let store = Arc::new(LocalStore::open(self.repository()).unwrap());
        let repository = Repository::open("local", store).await.unwrap();
        Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap()
    }

    /// Restores every listed set that was not restored before; how many sets are listed.
    async fn prove_listed(&mut self, when: &str) -> usize {
        let repositories = self.repositories().await;
        let listed = Catalog::load(&repositories, &stanza()).await.unwrap();
        let server = Server::parse(&self.postgres.url("postgres"), &BTreeMap::new()).unwrap();
        let options = RestoreOptions::default().target("again");
        let (none, progress, cancel) = (Identities::none(), Progress::new(), CancellationToken::new());
        for set in &listed.sets {
            assert!(set.is_good(), "{when}: {:?}", set.problems());
            if !self.proven.insert(set.id.clone()) {
                continue;
            }
            let manifest = set.manifest.as_ref().unwrap();
            let receipt =
                restore_database(&server, &repositories, manifest, &none, &options, &progress, &cancel)
                    .await
                    .unwrap_or_else(|error| panic!("{when}: set {} does not restore: {error}", set.id));
            assert!(receipt.comparison.is_equal(), "{when}: {}", set.id);
            self.postgres.psql("postgres", "drop database again").unwrap();
        }
        listed.sets.len()
    }

    /// Waits until no child of the program and no session of it on the server is left.
    async fn expect_silence(&self, when: &str) {
        let sessions = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
                        and pid <> pg_backend_pid()";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (left, sessions) = (self.processes(), self.postgres.psql("postgres", sessions).unwrap());
            if left.is_empty() && sessions == "0" {
                return;
            }
            assert!(Instant::now() < deadline, "{when}: {left:?} and {sessions} sessions are left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Children of the program: their environment names our server.
    fn processes(&self) -> Vec<String> {
        let server = format!("PGPORT={}", self.postgres.port());
        let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path());
        entries
            .filter_map(|path| {
                let environment = std::fs::read(path.join("environ")).ok()?;
                let ours = environment.split(|byte| *byte == 0).any(|variable| variable == server.as_bytes());
                let name = ours.then(|| std::fs::read_to_string(path.join("comm")))?;
                Some(name.unwrap_or_default().trim().to_owned())
            })
            .collect()
    }

    /// Every file of the repository, hidden ones included.
    fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        walk(&self.repository(), &self.repository(), &mut found);
        found
    }

    /// How many files belong to no set.
    async fn litter(&self) -> usize {
        self.files().difference(&self.expected_files().await).count()
    }

    /// The files that a repository of the listed sets consists of.
    async fn expected_files(&self) -> BTreeSet<String> {
        let listed = Catalog::load(&self.repositories().await, &stanza()).await.unwrap();
        // The second is the lock of a directory store.
        let mut files = BTreeSet::from(["backstay.json", ".lock"].map(str::to_owned));
        for manifest in listed.sets.iter().filter_map(|set| set.manifest.as_ref()) {
            let file = |name: &str| format!("main/sets/{}/{name}", manifest.set);
            files.insert(file("manifest.json"));
            files.extend(manifest.objects.iter().map(|object| file(&object.name)));
        }
        // Records of leases are replaced, never removed.
        files.extend(self.files().into_iter().filter(|file| is_lease(file)));
        files
    }
}

fn is_lease(file: &str) -> bool {
    let name = file.strip_prefix("main/leases/");
    name.is_some_and(|name| {
        name.ends_with(".json") && !name.contains('/') && !name.starts_with('.') || name == "clock/now"
    })
}

fn stanza() -> Stanza {
    Stanza::parse("main").unwrap()
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            walk(root, &entry.path(), found);
        } else {
            found.insert(entry.path().strip_prefix(root).unwrap().display().to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_only_whole_sets_are_listed_and_prune_removes_the_rest() {
    let kills = if std::env::var_os("BACKSTAY_SOAK").is_some() { 200 } else { 30 };
    let mut scene = Scene::start().await;
    let mut moments = WAYS.map(|way| Moments::new(SEED, scene.usual_time(way)));
    let (mut killed, mut number) = (0, 0);
    // A run that ends before it is killed does not count as a kill. On a busy machine the first ones may all come too early
    // to leave anything.
    while killed < kills || scene.litter().await == 0 {
        assert!(number < 4 * kills, "only {killed} of {number} were still running when they were killed");
        let (way, moments) = (WAYS[number % 2], &mut moments[number % 2]);
        let database = format!("shop_{number}");
        scene.rename("shop", &database);
        let (begun, mut child) = (Instant::now(), scene.backup(&database, way).spawn().unwrap());
        let ended = moments.kill(&mut child, begun);
        let when = format!("run {number} of seed {SEED}, {way:?}: {moments}");
        assert!(ended.is_none_or(|status| status.success()), "{when}: it ended by itself: {ended:?}");
        killed += usize::from(ended.is_none());
        scene.expect_silence(&when).await;
        scene.prove_listed(&when).await;
        scene.rename(&database, "shop");
        number += 1;
    }
    let listed = scene.prove_listed("before prune").await;
    assert!(scene.files().iter().any(|file| file.contains("/data-1.")), "no backup had two streams");
    let files = scene.litter().await;
    eprintln!("{killed} of {number} killed while running, {listed} sets proven, {files} files of litter");
    assert!(files > 0, "{killed} kills left {files} files of litter");
    prune(&scene).await;
    assert_eq!(scene.files(), scene.expected_files().await, "prune removes exactly the litter");
    assert_eq!(scene.prove_listed("after prune").await, listed);
}

/// Removes litter of any age, and no set.
async fn prune(scene: &Scene) {
    let repositories = scene.repositories().await;
    let mut rules = Rules::default();
    rules.last = 1;
    let plan = plan_prune(&repositories, &stanza(), &PrunePolicy::new(rules)).await.unwrap();
    let litter = plan.repositories.iter().map(|plan| plan.litter.len()).sum::<usize>();
    assert_eq!(litter, 0, "litter within its grace may be a running backup: {plan:?}");
    let args = ["--keep-last", "100000", "--grace", "0s"];
    assert!(scene.program("prune-backups").args(args).status().unwrap().success());
}
