//! Each kind of store fault at each call of listing and choosing, verifying and pruning, in a directory and on an S3
//! server: the same result as without, or a clear error or report; no older set is taken for the newest, no set that is
//! kept is touched, and the next run puts everything right.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::catalog::{Catalog, CatalogReport, Filter};
use backstay_backup_core::clock::{Clock as _, ManualClock, SystemClock};
use backstay_backup_core::config::TimeSpan;
use backstay_backup_core::fault::{ErrorKind, Mishap, Operation};
use backstay_backup_core::id::SetId;
use backstay_backup_core::key::Key;
use backstay_backup_core::manifest::{Codec, SetKind};
use backstay_backup_core::prune::{PrunePolicy, PruneReport, plan_prune};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::retention::Rules;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetSpec, SetWriter};
use backstay_backup_core::store::{Attributes, SharedStore};
use backstay_backup_core::verify::{Depth, VerifyOptions, verify_set};
use backstay_backup_core::{Class, Error, hold};
use bytes::Bytes;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ground::{Ground, Trial};
use crate::scene::{catalog, chain, open, stanza};
use crate::sweep::{End, Ran, Sweep, Trouble, UNDISTURBED, allowed, refused_reading};

/// Plain bytes of the larger object of a set.
const BYTES: usize = 20_000;
/// S3 tells the time of an object in whole seconds: litter this old is old by any clock.
const OLD: Duration = Duration::from_millis(1_200);
/// Repositories that are getting old while others are pruned.
const AHEAD: usize = 24;

type Objects = Vec<(Key, Bytes)>;

/// The objects of a repository with so many sets, of which the oldest is held, proofs, and the remains of a run that
/// died.
async fn template(sets: usize) -> Objects {
    let trial = Trial::new(&Ground::Directory, 0).await;
    let clock = ManualClock::at(SystemClock.now() - SignedDuration::from_hours(12));
    let repository = Repository::open("only", trial.plain.clone()).await.unwrap();
    let repositories = Repositories::new(vec![repository], 1, Arc::new(clock.clone())).unwrap();
    for number in 0..sets {
        let writer = begin(&repositories).await;
        let objects = vec![
            object(&writer, "data", Codec::Zstd, BYTES).await,
            object(&writer, "notes", Codec::None, 300).await,
        ];
        let receipt = writer.commit(SetContents::new(clock.now(), objects)).await.unwrap();
        if number == 0 {
            hold::place(&repositories, &stanza(), &receipt.manifest.set, "for the audit").await.unwrap();
        }
        clock.advance(SignedDuration::from_hours(1));
    }
    verify(trial.plain.clone(), sets).await.unwrap();
    object(&begin(&repositories).await, "data", Codec::None, 300).await;
    trial.objects().await
}

async fn begin(repositories: &Repositories) -> SetWriter {
    let spec = SetSpec::new(SetKind::new("test"), stanza(), "test");
    SetWriter::begin(repositories, spec, DataPath::default()).await.unwrap()
}

async fn object(
    writer: &SetWriter,
    name: &str,
    codec: Codec,
    bytes: usize,
) -> backstay_backup_core::manifest::ObjectEntry {
    let body: Vec<u8> = (0..bytes).map(|at| (at * at % 251) as u8).collect();
    writer.object(name, codec, stream::iter([Ok(Bytes::from(body))])).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_listing_in_a_directory_hides_nothing_and_chooses_nothing_older() {
    listings(&Ground::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_listing_on_s3_hides_nothing_and_chooses_nothing_older() {
    listings(&Ground::s3().await).await;
}

/// What `list-backups` and the begin of `restore-database` do.
async fn list(store: SharedStore, now: Timestamp) -> Result<(CatalogReport, SetId), Error> {
    let repositories = open(store).await?;
    let found = Catalog::load(&repositories, &stanza()).await?;
    let chosen = found.newest_good(&Filter::default())?.id.clone();
    Ok((found.report(now), chosen))
}

async fn listings(ground: &Ground) {
    let (trial, now) = (Trial::with(ground, 0, &template(4).await).await, SystemClock.now());
    let reference = list(trial.plain.clone(), now).await.unwrap();
    assert_eq!(reference.0.sets.len(), 4);
    assert_eq!(reference.1, reference.0.sets[0].set, "the newest");
    let mut runs = Vec::new();
    for number in 0..UNDISTURBED {
        let run = trial.again(number);
        list(run.seen(), now).await.unwrap();
        runs.push(run.calls());
    }
    let sweep = Sweep::new(format!("list and choose, {}", ground.name()), &runs, 20);
    sweep.expect_calls(&[Operation::Get, Operation::List]);
    let run = async |number: usize, trouble: &Trouble| {
        let trial = trial.again(number);
        trouble.plan(&trial.fault);
        let end = match list(trial.seen(), now).await {
            Err(error) => refused_reading(trouble, error.class(), &chain(&error)),
            Ok(found) => judge_listing(trouble, &found, &reference),
        };
        Ran { fault: trial.fault, end }
    };
    sweep.run(run).await;
}

fn judge_listing(
    trouble: &Trouble,
    (found, chosen): &(CatalogReport, SetId),
    (reference, newest): &(CatalogReport, SetId),
) -> Result<End, String> {
    if chosen != newest {
        return Err(format!("{chosen} was chosen instead of {newest}"));
    }
    if found == reference {
        return Ok(End::Same);
    }
    for set in &reference.sets {
        let shown = found.sets.iter().find(|shown| shown.set == set.set);
        let shown = shown.ok_or_else(|| format!("{} is not shown", set.set))?;
        if shown != set && shown.problems.is_empty() {
            return Err(format!("{} differs without a word", set.set));
        }
    }
    if allowed(trouble.mishap).is_empty() { Err("differs".to_owned()) } else { Ok(End::Told) }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_verification_in_a_directory_is_never_called_good() {
    verifications(&Ground::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_verification_on_s3_is_never_called_good() {
    verifications(&Ground::s3().await).await;
}

/// What `verify-backups` does: every byte of every set, its content, and a proof beside it. The class is that of its
/// exit code, the text what it reports.
async fn verify(store: SharedStore, sets: usize) -> Result<(), (Class, String)> {
    let refused = |error: Error| (error.class(), chain(&error));
    let repositories = open(store).await.map_err(refused)?;
    let found = Catalog::load(&repositories, &stanza()).await.map_err(refused)?;
    // A set that is not even listed would be called good by saying nothing.
    assert_eq!(found.sets.len(), sets);
    let mut worst = Ok(());
    for set in &found.sets {
        let keys = backstay_backup_core::encryption::Identities::none();
        for options in [VerifyOptions::new(Depth::Full), VerifyOptions::new(Depth::Full).content(keys)] {
            let report = verify_set(&repositories, &stanza(), set, &options).await;
            let kept = report.store_proofs(&repositories, "test").await;
            if !report.is_clean() {
                return Err((Class::Data, format!("{report:?}")));
            }
            if !report.is_complete() {
                worst = Err((Class::Temporary, format!("{report:?}")));
            }
            worst = kept.map_err(refused).and(worst);
        }
    }
    worst
}

/// Whether the fault keeps an object of a set from being read, however often that is tried.
fn spoils_data(trouble: &Trouble) -> bool {
    let data = ["/data", "/notes"].iter().any(|name| trouble.spot.like.ends_with(name));
    // A body that ends early is read on, and one that did not arrive as it was sent is read again.
    let passes = matches!(trouble.mishap, Mishap::Cut { .. } | Mishap::Error(ErrorKind::Checksum));
    data && trouble.spot.operation == Operation::Get && !passes && !allowed(trouble.mishap).is_empty()
}

async fn verifications(ground: &Ground) {
    let objects = template(2).await;
    let mut runs = Vec::new();
    for number in 0..UNDISTURBED {
        let trial = Trial::with(ground, 900_000 + number, &objects).await;
        verify(trial.seen(), 2).await.unwrap();
        runs.push(trial.calls());
        trial.clear().await;
    }
    let sweep = Sweep::new(format!("verify, {}", ground.name()), &runs, 12);
    sweep.expect_calls(&[Operation::Get, Operation::List, Operation::Put]);
    let run = async |number: usize, trouble: &Trouble| {
        let trial = Trial::with(ground, number, &objects).await;
        trouble.plan(&trial.fault);
        let end = match verify(trial.seen(), 2).await {
            Ok(()) if spoils_data(trouble) => {
                Err("an object that could not be read was called good".to_owned())
            }
            Ok(()) => Ok(End::Same),
            Err((class, why)) => refused_reading(trouble, class, &why),
        };
        // Whatever was said of the sets, the next run finds them good.
        verify(trial.plain.clone(), 2).await.unwrap();
        let found = catalog(&open(trial.plain.clone()).await.unwrap()).await;
        assert!(found.sets.iter().all(|set| set.is_good()), "{trouble:?}: {:?}", found.sets);
        trial.clear().await;
        Ran { fault: trial.fault, end }
    };
    sweep.run(run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_pruning_in_a_directory_leaves_whole_sets_and_the_next_run_finishes() {
    prunings(&Ground::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_pruning_on_s3_leaves_whole_sets_and_the_next_run_finishes() {
    prunings(&Ground::s3().await).await;
}

/// What `prune-backups` does; at most one set, the newest, is kept by the rules.
async fn prune(store: SharedStore) -> Result<PruneReport, Error> {
    let rules = Rules::default().min_age(TimeSpan::from_secs(0)).last(1);
    let policy = PrunePolicy::new(rules).grace(TimeSpan::from_secs(0));
    let repositories = open(store).await?;
    let plan = plan_prune(&repositories, &stanza(), &policy).await?;
    plan.apply(&repositories, &CancellationToken::new()).await
}

/// Repositories that are old enough to have litter.
struct Cellar<'a> {
    ground: &'a Ground,
    objects: Objects,
    made: usize,
    waiting: VecDeque<(Trial, Instant)>,
}

impl<'a> Cellar<'a> {
    async fn new(ground: &'a Ground) -> Self {
        Self { ground, objects: template(3).await, made: 0, waiting: VecDeque::new() }
    }

    async fn take(&mut self) -> Trial {
        while self.waiting.len() < AHEAD {
            self.made += 1;
            let trial = Trial::with(self.ground, self.made, &self.objects).await;
            let litter = self.objects.iter().map(|(key, _)| key).find(|key| key.as_str().ends_with("/data"));
            trial.plain.start_upload(litter.unwrap(), &Attributes::default()).await.unwrap();
            self.waiting.push_back((trial, Instant::now()));
        }
        let (trial, made) = self.waiting.pop_front().unwrap();
        tokio::time::sleep_until(made + OLD).await;
        trial
    }
}

async fn prunings(ground: &Ground) {
    let mut cellar = Cellar::new(ground).await;
    let (mut runs, mut clean) = (Vec::new(), Vec::new());
    for _ in 0..UNDISTURBED {
        let trial = cellar.take().await;
        let report = prune(trial.seen()).await.unwrap();
        let done = &report.repositories[0];
        assert!(report.is_complete() && !done.removed.is_empty() && done.litter.len() == 2, "{report:?}");
        runs.push(trial.calls());
        clean = left(&trial).await;
        trial.clear().await;
    }
    let sweep = Sweep::new(format!("prune, {}", ground.name()), &runs, 12);
    sweep.expect_calls(&[Operation::Get, Operation::List, Operation::Delete, Operation::AbortUpload]);
    let cellar = tokio::sync::Mutex::new(cellar);
    let run = async |_, trouble: &Trouble| {
        let trial = cellar.lock().await.take().await;
        trouble.plan(&trial.fault);
        let end = match prune(trial.seen()).await {
            Err(error) => refused_reading(trouble, error.class(), &chain(&error)),
            Ok(report) => judge_pruning(trouble, &report, left(&trial).await == clean),
        };
        expect_sound(&trial, trouble, &clean).await;
        trial.clear().await;
        Ran { fault: trial.fault, end }
    };
    sweep.run(run).await;
}

/// All keys but those of clock probes and of leases.
async fn left(trial: &Trial) -> Vec<Key> {
    let mut keys = trial.keys().await;
    keys.retain(|key| !key.as_str().contains("/leases/"));
    keys
}

fn judge_pruning(trouble: &Trouble, report: &PruneReport, all_done: bool) -> Result<End, String> {
    let done = &report.repositories[0];
    let why = format!("{report:?}");
    if let Some(blocked) = &done.blocked {
        return refused_reading(trouble, blocked.class(), &why);
    }
    match (report.is_complete(), all_done) {
        (true, true) => Ok(End::Same),
        // Without the permission to write nobody knows the store's clock, and litter stays.
        (true, false) if matches!(trouble.mishap, Mishap::Error(_)) && done.litter.is_empty() => {
            Ok(End::Told)
        }
        (true, false) => Err(format!("not all was done, and nothing is said: {why}")),
        (false, _) if !done.damaged.is_empty() => refused_reading(trouble, Class::Data, &why),
        (false, _) if !done.denied.is_empty() => refused_reading(trouble, Class::Usage, &why),
        (false, _) => refused_reading(trouble, Class::Temporary, &why),
    }
}

/// Every set that lists is whole, what is kept is there, and the next run finishes.
async fn expect_sound(trial: &Trial, trouble: &Trouble, clean: &[Key]) {
    let keys = left(trial).await;
    assert!(clean.iter().all(|key| keys.contains(key)), "{trouble:?}: {keys:?}");
    let repositories = open(trial.plain.clone()).await.unwrap();
    for set in &catalog(&repositories).await.sets {
        assert!(set.is_good(), "{trouble:?}: {set:?}");
        let report = verify_set(&repositories, &stanza(), set, &VerifyOptions::new(Depth::Full)).await;
        assert!(report.is_clean() && report.is_complete(), "{trouble:?}: {report:?}");
    }
    let report = prune(trial.plain.clone()).await.unwrap();
    assert!(report.is_complete(), "{trouble:?}: {report:?}");
    assert_eq!(left(trial).await, clean, "{trouble:?}");
}
