//! `backup-database` under `kill -9` at random moments (P1): what is listed restores, the rest is litter, and nothing
//! goes on running.
//!
//! 30 kills, or 200 with `BACKSTAY_SOAK` in the environment.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::config::TimeSpan;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::prune::{LitterKind, PrunePolicy, plan_prune};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::retention::Rules;
use backstay_postgres_ops::{RestoreOptions, Server, restore_database};
use backstay_testkit::{PostgresOptions, SampleSize, TestPostgres, load_sample};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

const SEED: u64 = 9;
/// How soon the children of a killed program must be gone.
const PATIENCE: Duration = Duration::from_secs(15);

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
        Self { postgres, root: tempfile::tempdir().unwrap(), proven: BTreeSet::new() }
    }

    fn repository(&self) -> PathBuf {
        self.root.path().join("repository")
    }

    /// A program that is about to start.
    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup-database"));
        command
            .arg("--database-url")
            .arg(self.postgres.url_without_password("shop"))
            .arg("--repository")
            .arg(self.repository())
            .arg("--bin-dir")
            .arg(self.postgres.install().bin())
            .env("PGPASSFILE", self.postgres.passfile())
            .env("HOME", self.root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        command
    }

    /// How long a backup takes that nobody kills.
    fn usual_time(&self) -> Duration {
        let mut times: Vec<_> = (0..3)
            .map(|_| {
                let start = Instant::now();
                assert!(self.program().status().unwrap().success());
                start.elapsed()
            })
            .collect();
        times.sort();
        times[1]
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
        let sessions = "select count(*) from pg_stat_activity where datname = 'shop'";
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

    /// The files that a repository of these sets consists of.
    async fn expected_files(&self) -> BTreeSet<String> {
        let listed = Catalog::load(&self.repositories().await, &stanza()).await.unwrap();
        let mut files = BTreeSet::from(["backstay.json".to_owned()]);
        for manifest in listed.sets.iter().filter_map(|set| set.manifest.as_ref()) {
            let file = |name: &str| format!("main/sets/{}/{name}", manifest.set);
            files.insert(file("manifest.json"));
            files.extend(manifest.objects.iter().map(|object| file(&object.name)));
        }
        files
    }
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

/// Starts the program and kills it at this time; whether it was still running.
fn kill_after(mut program: Command, delay: Duration) -> bool {
    let start = Instant::now();
    let mut child = program.spawn().unwrap();
    std::thread::sleep(delay.saturating_sub(start.elapsed()));
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_only_whole_sets_are_listed_and_prune_removes_the_rest() {
    let kills = if std::env::var_os("BACKSTAY_SOAK").is_some() { 200 } else { 30 };
    let mut scene = Scene::start().await;
    let usual = scene.usual_time();
    let mut random = StdRng::seed_from_u64(SEED);
    let mut killed = 0;
    for number in 1..=kills {
        let delay = usual.mul_f64(random.random_range(0.0..1.1));
        let when = format!("kill {number} of seed {SEED}, after {delay:?} of {usual:?}");
        killed += u32::from(kill_after(scene.program(), delay));
        scene.expect_silence(&when).await;
        scene.prove_listed(&when).await;
    }
    assert!(killed > kills / 2, "only {killed} of {kills} were still running when they were killed");

    let litter: BTreeSet<_> = scene.files().difference(&scene.expected_files().await).cloned().collect();
    assert!(!litter.is_empty(), "{killed} kills left no litter");
    let listed = scene.prove_listed("before prune").await;
    prune(&scene).await;
    assert_eq!(scene.files(), scene.expected_files().await, "prune removes exactly the litter");
    assert_eq!(scene.prove_listed("after prune").await, listed);
}

/// Removes litter of any age, and no set.
async fn prune(scene: &Scene) {
    let repositories = scene.repositories().await;
    let rules = Rules { last: 100_000, ..Rules::default() };
    let young = PrunePolicy::new(rules.clone());
    let plan = plan_prune(&repositories, &stanza(), &young).await.unwrap();
    assert!(plan.is_empty(), "litter within its grace may be a running backup: {plan:?}");
    let policy = PrunePolicy::new(rules).grace(TimeSpan::from_secs(0));
    let plan = plan_prune(&repositories, &stanza(), &policy).await.unwrap();
    let sets = plan.repositories.iter().map(|plan| plan.remove.len()).sum::<usize>();
    assert_eq!(sets, 0, "{plan:?}");
    let litter = &plan.repositories[0].litter;
    assert!(litter.iter().any(|litter| matches!(litter.what, LitterKind::Objects { .. })), "{litter:?}");
    let report = plan.apply(&repositories, &CancellationToken::new()).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    let plan = plan_prune(&repositories, &stanza(), &policy).await.unwrap();
    assert!(plan.is_empty(), "{plan:?}");
}
