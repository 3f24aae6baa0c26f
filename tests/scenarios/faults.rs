//! Each kind of store fault at each call of a backup (into a directory and an S3 server) and of a restore (from a
//! directory): the same result as without, or one clear error, and no set and no database.
//!
//! A sample of the cases, or all of them with `BACKSTAY_SOAK` in the environment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::store::SharedStore;
use backstay_backup_core::verify::{Depth, VerifyOptions, verify_set};
use backstay_postgres_ops::{BackupReport, DumpOptions, Error};
use backstay_testkit::s3::S3Server;
use futures::TryStreamExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::s3_faults::{ADMIN, in_parts, s3_server, store};
use crate::scene::{Scene, catalog, open, retrying, soak, stanza, words};

/// Cases of each sweep that are tried in `make test`.
const SAMPLE: usize = 20;
const SEED: u64 = 20_261_122;
/// Calls that a storm of 503 hits.
const STORM: u64 = 5;

const MISHAPS: [Mishap; 15] = [
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
    Mishap::Flip,
    Mishap::Cut { after: 3, loud: true },
    Mishap::Cut { after: 3, loud: false },
    Mishap::Slow(Duration::from_millis(100)),
];

/// Faults from one call on.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    /// The first call that is hit, from 0.
    at: usize,
    mishap: Mishap,
    calls: u64,
}

impl Trouble {
    /// Each mishap that means anything at each of these calls, and a storm beginning there; shuffled.
    fn each(calls: &[Operation]) -> Vec<Self> {
        let single = (0..calls.len()).flat_map(|at| MISHAPS.map(|mishap| Self { at, mishap, calls: 1 }));
        let throttled = Mishap::Error(ErrorKind::Throttled(Duration::from_millis(10)));
        let storms = (0..calls.len()).map(|at| Self { at, mishap: throttled, calls: STORM });
        let mut all: Vec<_> =
            single.chain(storms).filter(|trouble| matters(trouble.mishap, calls[trouble.at])).collect();
        all.shuffle(&mut StdRng::seed_from_u64(SEED));
        if !soak() {
            all.truncate(SAMPLE);
        }
        all
    }

    fn plan(self, fault: &Fault) {
        let first = self.at as u64 + 1;
        (first..first + self.calls).for_each(|call| fault.on_call(call, self.mishap));
    }
}

/// Whether this kind of fault means anything to this kind of call. Flips on the way in have a test of their own; a
/// listing that merely ends is a lie that nobody can find out.
fn matters(mishap: Mishap, operation: Operation) -> bool {
    match mishap {
        Mishap::Flip | Mishap::Cut { loud: false, .. } => operation == Operation::Get,
        Mishap::Cut { loud: true, .. } => matches!(operation, Operation::Get | Operation::List),
        _ => true,
    }
}

/// How a run may end that meets this fault once and cannot get around it.
fn allowed(mishap: Mishap) -> &'static [Class] {
    let kind = match mishap {
        Mishap::Error(kind) => kind,
        Mishap::Flip | Mishap::Cut { .. } => return &[Class::Data],
        _ => return &[],
    };
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

/// Where repositories are made.
enum Ground {
    Directory,
    S3(S3Server),
}

impl Ground {
    /// Each with a database whose dump is several parts, as small as the store's parts allow.
    async fn both() -> [(Self, Scene); 2] {
        [
            (Self::Directory, Scene::start(400).await),
            (Self::S3(s3_server().await), Scene::start(90_000).await),
        ]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::S3(_) => "S3",
        }
    }

    fn options(&self) -> DumpOptions {
        let mut options = in_parts();
        options.codec = Codec::None;
        if matches!(self, Self::Directory) {
            options.data_path = options.data_path.part_size(8 << 10);
        }
        options
    }
}

/// A repository below which faults can be planned.
struct Trial {
    plain: SharedStore,
    fault: Arc<Fault>,
    _root: Option<tempfile::TempDir>,
}

impl Trial {
    /// With an empty repository.
    async fn new(ground: &Ground, number: usize) -> Self {
        let (plain, root): (SharedStore, _) = match ground {
            Ground::Directory => {
                let root = tempfile::tempdir().unwrap();
                (Arc::new(LocalStore::create(root.path().to_owned()).unwrap()), Some(root))
            }
            Ground::S3(server) => (store(server, &format!("trial-{number}"), ADMIN).await, None),
        };
        open(plain.clone()).await.unwrap();
        let fault = Arc::new(Fault::new(plain.clone(), number as u64));
        Self { plain, fault, _root: root }
    }

    /// The same repository with other faults.
    fn again(&self, number: usize) -> Self {
        let fault = Arc::new(Fault::new(self.plain.clone(), number as u64));
        Self { plain: self.plain.clone(), fault, _root: None }
    }

    /// What a program does: opens the repository, then backs up into it.
    async fn back_up(&self, scene: &Scene, options: &DumpOptions) -> Result<BackupReport, Error> {
        let repositories = open(retrying(self.fault.clone())).await?;
        scene.backup(&repositories, options).await
    }

    /// What a program does: opens the repository, chooses the only set, restores it. The classes are those of the
    /// error; a set that is not there to be chosen has none.
    async fn restore(&self, scene: &Scene, target: &str) -> Result<(), (Option<Class>, String)> {
        let refused = |error: Error| (Some(error.class()), words(&error));
        let repositories = open(retrying(self.fault.clone())).await.map_err(|error| refused(error.into()))?;
        let found = backstay_backup_core::catalog::Catalog::load(&repositories, &stanza()).await;
        let found = found.map_err(|error| refused(error.into()))?;
        let manifest = found.sets.first().and_then(|set| set.manifest.clone());
        let manifest = manifest.ok_or_else(|| (None, format!("no set: {:?}", found.sets)))?;
        let receipt = scene.restore(&repositories, &manifest, target).await.map_err(refused)?;
        assert!(receipt.comparison.is_equal());
        Ok(())
    }

    fn calls(&self) -> Vec<Operation> {
        self.fault.calls().iter().map(|call| call.operation).collect()
    }

    /// The set that was reported and nothing else is there, every byte of it is right, and it restores if asked for.
    async fn expect_set(&self, report: &BackupReport, when: &str, restore: Option<(&Scene, &str)>) {
        let repositories = open(self.plain.clone()).await.unwrap();
        let found = catalog(&repositories).await;
        let ids: Vec<_> = found.sets.iter().map(|set| &set.id).collect();
        assert_eq!(ids, [&report.receipt.manifest.set], "{when}");
        assert!(found.sets[0].is_good(), "{when}");
        let options = VerifyOptions::new(Depth::Full);
        let verified = verify_set(&repositories, &stanza(), &found.sets[0], &options).await;
        assert!(verified.is_clean() && verified.is_complete(), "{when}: {verified:?}");
        let manifest = found.sets[0].manifest.clone().unwrap();
        if let Some((scene, target)) = restore {
            let receipt = scene.restore(&repositories, &manifest, target).await;
            let receipt = receipt.unwrap_or_else(|error| panic!("{when}: {}", words(&error)));
            assert!(receipt.comparison.is_equal(), "{when}");
        }
    }

    async fn expect_nothing(&self, when: &str) {
        let repositories = open(self.plain.clone()).await.unwrap();
        let found = catalog(&repositories).await;
        assert!(found.sets.is_empty(), "{when}: {:?}", found.sets);
    }

    /// Gives its memory back.
    async fn clear(&self) {
        let all: Vec<_> = self.plain.list(&Prefix::root()).try_collect().await.unwrap();
        for object in all {
            self.plain.delete(&object.key).await.unwrap();
        }
    }
}

/// The calls of a run without faults.
async fn undisturbed(scene: &Scene, ground: &Ground) -> (Trial, BackupReport, Vec<Operation>) {
    let trial = Trial::new(ground, 999_999).await;
    let report = trial.back_up(scene, &ground.options()).await.unwrap();
    trial.expect_set(&report, "undisturbed", Some((scene, "undisturbed"))).await;
    let calls = trial.calls();
    (trial, report, calls)
}

/// Counts, and prints them for whoever asks for the output.
fn conclude(what: &str, calls: usize, outcomes: &[Result<bool, String>]) {
    let wrong: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    let succeeded = outcomes.iter().filter(|outcome| **outcome == Ok(true)).count();
    let (all, bad) = (outcomes.len(), wrong.len());
    eprintln!(
        "{what}: {calls} calls, {all} cases: {succeeded} as without faults, {bad} wrong, the rest refused"
    );
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
    // Otherwise the faults were not met, or nothing is ever repeated.
    assert!(succeeded > all / 5 && succeeded < all * 4 / 5, "{what}: {succeeded} of {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_backup_changes_nothing_or_leaves_nothing() {
    for (ground, scene) in &Ground::both().await {
        let (_trial, reference, calls) = undisturbed(scene, ground).await;
        let kinds: BTreeSet<String> = calls.iter().map(|operation| format!("{operation:?}")).collect();
        for kind in ["Put", "StartUpload", "PutPart", "CompleteUpload", "Get", "Head"] {
            assert!(kinds.contains(kind), "{kind}: {kinds:?}");
        }
        let cases = Trouble::each(&calls);
        let mut outcomes = Vec::new();
        for (number, trouble) in cases.iter().enumerate() {
            outcomes.push(one_backup(scene, ground, &reference, number, *trouble).await);
        }
        conclude(&format!("backup, {}", ground.name()), calls.len(), &outcomes);
    }
}

/// Whether the backup succeeded; or why it should not have ended as it did.
async fn one_backup(
    scene: &Scene,
    ground: &Ground,
    reference: &BackupReport,
    number: usize,
    trouble: Trouble,
) -> Result<bool, String> {
    let trial = Trial::new(ground, number).await;
    trouble.plan(&trial.fault);
    let outcome = trial.back_up(scene, &ground.options()).await;
    let calls = trial.fault.calls();
    let when = format!("{}: {trouble:?} ({:?})", ground.name(), calls.get(trouble.at));
    if calls.len() <= trouble.at {
        let why = outcome.err().map(|error| words(&error));
        return Err(format!("{when}: never happened: {why:?}"));
    }
    let succeeded = match outcome {
        Ok(report) => {
            assert_eq!(report.facts.tables, reference.facts.tables, "{when}");
            // A restore takes longer than all the rest.
            let target = format!("again_{number}");
            let restore = (number.is_multiple_of(10)).then_some((scene, target.as_str()));
            trial.expect_set(&report, &when, restore).await;
            true
        }
        Err(error) => {
            let class = error.class();
            if !allowed(trouble.mishap).contains(&class) {
                return Err(format!("{when}: {class:?}: {}", words(&error)));
            }
            assert!(words(&error).len() > 20, "{when}: says why");
            trial.expect_nothing(&when).await;
            false
        }
    };
    trial.clear().await;
    Ok(succeeded)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_restore_changes_nothing_or_makes_nothing() {
    let (ground, scene) = (Ground::Directory, Scene::start(400).await);
    let (trial, ..) = undisturbed(&scene, &ground).await;
    let first = trial.again(0);
    first.restore(&scene, "first").await.unwrap();
    let calls = first.calls();
    assert!(calls.contains(&Operation::Get) && calls.contains(&Operation::List), "{calls:?}");
    let mut outcomes = Vec::new();
    for (number, trouble) in Trouble::each(&calls).iter().enumerate() {
        outcomes.push(one_restore(&scene, &ground, &trial, number, *trouble).await);
    }
    conclude("restore, directory", calls.len(), &outcomes);
}

/// Whether the restore succeeded; or why it should not have ended as it did.
async fn one_restore(
    scene: &Scene,
    ground: &Ground,
    trial: &Trial,
    number: usize,
    trouble: Trouble,
) -> Result<bool, String> {
    let (trial, target) = (trial.again(number), format!("target_{number}_"));
    trouble.plan(&trial.fault);
    let outcome = trial.restore(scene, &target).await;
    let calls = trial.fault.calls();
    let when = format!("{}: {trouble:?} ({:?})", ground.name(), calls.get(trouble.at));
    if calls.len() <= trouble.at {
        return Err(format!("{when}: never happened: {outcome:?}"));
    }
    let left = scene.count_databases(&target);
    if left != "0" {
        return Err(format!("{when}: {left} databases are left: {outcome:?}"));
    }
    let Err((class, why)) = outcome else { return Ok(true) };
    // What cannot be read in the only repository is a damaged set, whatever the reason: class data.
    let (allowed, data) = (allowed(trouble.mishap), Class::Data);
    let fits = class.is_none_or(|class| allowed.contains(&class) || class == data) && !allowed.is_empty();
    if fits && why.len() > 20 { Ok(false) } else { Err(format!("{when}: {class:?}: {why}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_stays_ends_in_one_error_and_no_set() {
    let (ground, scene) = (Ground::Directory, Scene::start(400).await);
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
            let trial = Trial::new(&ground, 1).await;
            trial.fault.always(operation, mishap);
            let when = format!("{operation:?} always meets {mishap:?}");
            match trial.back_up(&scene, &ground.options()).await {
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
    for (ground, scene) in &Ground::both().await {
        let (_trial, _, calls) = undisturbed(scene, ground).await;
        let is_write = |at: &usize| matches!(calls[*at], Operation::Put | Operation::PutPart);
        let writes: Vec<_> = (0..calls.len()).filter(is_write).collect();
        assert!(writes.len() > 3, "{calls:?}");
        for at in writes {
            let trial = Trial::new(ground, at).await;
            trial.fault.on_call(at as u64 + 1, Mishap::Flip);
            let when = format!("bit turned over by call {} ({:?})", at + 1, calls[at]);
            turned_over(scene, ground, &trial, &when).await;
            trial.clear().await;
        }
    }
}

async fn turned_over(scene: &Scene, ground: &Ground, trial: &Trial, when: &str) {
    if let Err(error) = trial.back_up(scene, &ground.options()).await {
        assert_eq!(error.class(), Class::Data, "{when}: {}", words(&error));
        return trial.expect_nothing(when).await;
    }
    let repositories = open(trial.plain.clone()).await.unwrap();
    let found = catalog(&repositories).await;
    let verified =
        verify_set(&repositories, &stanza(), &found.sets[0], &VerifyOptions::new(Depth::Full)).await;
    assert!(!verified.is_clean(), "{when}: {verified:?}");
    let Some(manifest) = found.sets[0].manifest.clone() else {
        return assert!(!found.sets[0].is_good(), "{when}");
    };
    let error = scene.restore(&repositories, &manifest, "never").await.unwrap_err();
    assert_eq!(error.class(), Class::Data, "{when}: {}", words(&error));
    assert_eq!(scene.count_databases("never"), "0", "{when}");
}
