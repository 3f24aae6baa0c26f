//! Each kind of store fault at each call of one backup: the same result as without, or one clear error and no set.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::store::SharedStore;
use backstay_postgres_ops::{BackupReport, DumpOptions, Error};
use futures::{StreamExt as _, stream};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::scene::{Scene, catalog, open, retrying, soak, stanza, words};

/// Single faults tried in `make test`; there are about three hundred.
const SAMPLE: usize = 90;
const SEED: u64 = 20_261_122;

const MISHAPS: [Mishap; 14] = [
    Mishap::Error(ErrorKind::Absent),
    Mishap::Error(ErrorKind::AlreadyExists),
    Mishap::Error(ErrorKind::Conflict),
    Mishap::Error(ErrorKind::Denied),
    Mishap::Error(ErrorKind::Full),
    Mishap::Error(ErrorKind::Missing),
    Mishap::Error(ErrorKind::Temporary),
    Mishap::Error(ErrorKind::Throttled(Duration::from_millis(30))),
    Mishap::Error(ErrorKind::Checksum),
    Mishap::Error(ErrorKind::Failed),
    Mishap::LostReply,
    Mishap::Cut { after: 3, loud: true },
    Mishap::Cut { after: 3, loud: false },
    Mishap::Slow(Duration::from_millis(100)),
];

/// A repository below which faults can be planned.
struct Trial {
    memory: SharedStore,
    fault: Arc<Fault>,
}

impl Trial {
    async fn new(seed: u64) -> Self {
        let memory: SharedStore = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        open(memory.clone()).await.unwrap();
        let fault = Arc::new(Fault::new(memory.clone(), seed));
        Self { memory, fault }
    }

    /// What a program does: opens the repository, then backs up into it.
    async fn run(&self, scene: &Scene) -> Result<BackupReport, Error> {
        let repositories = open(retrying(self.fault.clone())).await?;
        scene.backup(&repositories, &options()).await
    }

    /// The set that was reported and nothing else is there, every byte of it is right, and it restores if asked for.
    async fn expect_set(&self, report: &BackupReport, when: &str, restore: Option<(&Scene, &str)>) {
        let repositories = open(self.memory.clone()).await.unwrap();
        let found = catalog(&repositories).await;
        let ids: Vec<_> = found.sets.iter().map(|set| &set.id).collect();
        assert_eq!(ids, [&report.receipt.manifest.set], "{when}");
        assert!(found.sets[0].is_good(), "{when}");
        let manifest = found.sets[0].manifest.clone().unwrap();
        if let Some((scene, target)) = restore {
            let receipt = scene.restore(&repositories, &manifest, target).await;
            let receipt = receipt.unwrap_or_else(|error| panic!("{when}: {}", words(&error)));
            assert!(receipt.comparison.is_equal(), "{when}");
        }
    }

    async fn expect_nothing(&self, when: &str) {
        let repositories = open(self.memory.clone()).await.unwrap();
        let found = catalog(&repositories).await;
        assert!(found.sets.is_empty(), "{when}: {:?}", found.sets);
    }
}

/// Several parts for each object of some size.
fn options() -> DumpOptions {
    let mut options = DumpOptions::new(stanza());
    options.codec = Codec::None;
    options.data_path = options.data_path.part_size(8 << 10);
    options
}

/// How a backup may end that meets this fault once and cannot get around it.
fn allowed(mishap: Mishap) -> &'static [Class] {
    let Mishap::Error(kind) = mishap else { return &[] };
    match kind {
        // They pass, and are repeated.
        ErrorKind::Temporary | ErrorKind::Throttled(_) => &[],
        ErrorKind::Checksum => &[Class::Data],
        ErrorKind::Full | ErrorKind::Failed => &[Class::Temporary],
        // Somebody has to change the permission or bring the disk back: running again does not help.
        ErrorKind::Denied | ErrorKind::Missing => &[Class::Usage],
        // Stores that contradict themselves.
        ErrorKind::AlreadyExists | ErrorKind::Conflict => &[Class::Conflict, Class::Temporary],
        ErrorKind::Absent => &[Class::Temporary, Class::Data],
        _ => unreachable!("a new kind of error"),
    }
}

/// The calls of a run without faults.
async fn undisturbed(scene: &Scene) -> (BackupReport, Vec<Operation>) {
    let trial = Trial::new(0).await;
    let report = trial.run(scene).await.unwrap();
    trial.expect_set(&report, "undisturbed", Some((scene, "undisturbed"))).await;
    (report, trial.fault.calls().iter().map(|call| call.operation).collect())
}

/// Whether this kind of fault means anything to this kind of call.
fn matters(mishap: Mishap, operation: Operation) -> bool {
    !matches!(mishap, Mishap::Cut { .. }) || matches!(operation, Operation::Get | Operation::List)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_changes_nothing_or_leaves_nothing() {
    let scene = Scene::start(400).await;
    let (reference, calls) = undisturbed(&scene).await;
    let kinds: BTreeSet<String> = calls.iter().map(|operation| format!("{operation:?}")).collect();
    assert!(
        kinds.contains("PutPart") && kinds.contains("CompleteUpload") && kinds.contains("Put"),
        "{kinds:?}"
    );
    let mut cases: Vec<(usize, Mishap)> = (0..calls.len())
        .flat_map(|at| MISHAPS.map(|mishap| (at, mishap)))
        .filter(|(at, mishap)| matters(*mishap, calls[*at]))
        .collect();
    cases.shuffle(&mut StdRng::seed_from_u64(SEED));
    if !soak() {
        cases.truncate(SAMPLE);
    }
    let outcomes = stream::iter(cases.iter().enumerate())
        .map(|(number, (at, mishap))| one_fault(&scene, &reference, number, *at, *mishap))
        .buffer_unordered(3);
    let outcomes: Vec<Result<bool, String>> = outcomes.collect().await;
    let wrong: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let succeeded = outcomes.iter().filter(|outcome| **outcome == Ok(true)).count();
    // Otherwise the faults were not met, or nothing is ever repeated.
    assert!(succeeded > outcomes.len() / 5 && succeeded < outcomes.len() * 4 / 5, "{succeeded}");
}

/// Whether the backup succeeded; or why it should not have ended as it did.
async fn one_fault(
    scene: &Scene,
    reference: &BackupReport,
    number: usize,
    at: usize,
    mishap: Mishap,
) -> Result<bool, String> {
    let trial = Trial::new(number as u64).await;
    trial.fault.on_call(at as u64 + 1, mishap);
    let outcome = trial.run(scene).await;
    let calls = trial.fault.calls();
    let when = format!("{mishap:?} at call {} ({:?})", at + 1, calls.get(at));
    if calls.len() <= at {
        let why = outcome.err().map(|error| words(&error));
        return Err(format!("{when}: never happened: {why:?}"));
    }
    match outcome {
        Ok(report) => {
            assert_eq!(report.facts.tables, reference.facts.tables, "{when}");
            // A restore takes longer than all the rest.
            let target = format!("again_{number}");
            let restore = (number % 6 == 0).then_some((scene, target.as_str()));
            trial.expect_set(&report, &when, restore).await;
            Ok(true)
        }
        Err(error) => {
            let class = error.class();
            if !allowed(mishap).contains(&class) {
                return Err(format!("{when}: {class:?}: {}", words(&error)));
            }
            assert!(words(&error).len() > 20, "{when}: says why");
            trial.expect_nothing(&when).await;
            Ok(false)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_stays_ends_in_one_error_and_no_set() {
    let scene = Scene::start(400).await;
    let lasting = [
        Mishap::Error(ErrorKind::Temporary),
        Mishap::Error(ErrorKind::Full),
        Mishap::Error(ErrorKind::Denied),
        Mishap::LostReply,
    ];
    let writing = [Operation::Put, Operation::StartUpload, Operation::PutPart, Operation::CompleteUpload];
    let visible = [Operation::Put, Operation::CompleteUpload];
    for operation in writing {
        for mishap in lasting {
            let trial = Trial::new(1).await;
            trial.fault.always(operation, mishap);
            let when = format!("{operation:?} always meets {mishap:?}");
            match trial.run(&scene).await {
                // What makes an object visible is looked for when its reply is lost, and there it is.
                Ok(report) if mishap == Mishap::LostReply && visible.contains(&operation) => {
                    trial.expect_set(&report, &when, None).await;
                }
                Ok(_) => panic!("{when}: succeeded"),
                Err(error) => {
                    let denied = mishap == Mishap::Error(ErrorKind::Denied);
                    let class = if denied { Class::Usage } else { Class::Temporary };
                    assert_eq!(error.class(), class, "{when}: {}", words(&error));
                    trial.expect_nothing(&when).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_a_store_turns_over_while_writing_is_caught_before_a_restore_begins() {
    let scene = Scene::start(400).await;
    let (_, calls) = undisturbed(&scene).await;
    let writes: Vec<_> =
        (0..calls.len()).filter(|at| matches!(calls[*at], Operation::Put | Operation::PutPart)).collect();
    assert!(writes.len() > 3, "{calls:?}");
    for at in writes {
        let trial = Trial::new(at as u64).await;
        trial.fault.on_call(at as u64 + 1, Mishap::Flip);
        let when = format!("bit turned over by call {} ({:?})", at + 1, calls[at]);
        let report = match trial.run(&scene).await {
            Ok(report) => report,
            Err(error) => {
                assert_eq!(error.class(), Class::Data, "{when}: {}", words(&error));
                trial.expect_nothing(&when).await;
                continue;
            }
        };
        let repositories = open(trial.memory.clone()).await.unwrap();
        let found = catalog(&repositories).await;
        let Some(manifest) = found.sets[0].manifest.clone() else {
            assert!(!found.sets[0].is_good(), "{when}");
            continue;
        };
        assert_eq!(manifest.set, report.receipt.manifest.set);
        let error = scene.restore(&repositories, &manifest, "never").await.unwrap_err();
        assert_eq!(error.class(), Class::Data, "{when}: {}", words(&error));
        let count = "select count(*) from pg_database where datname = 'never'";
        assert_eq!(scene.postgres.psql("postgres", count).unwrap(), "0", "{when}");
    }
}
