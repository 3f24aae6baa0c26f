//! Each kind of store fault at each call of a backup and of a restore, in a directory and on an S3 server: the same
//! result as without, or one clear error, and no set and no database.
//!
//! A sample of the cases, or all of them with `BACKSTAY_SOAK` in the environment.

use backstay_backup_core::Class;
use backstay_backup_core::catalog::{Catalog, Filter};
use backstay_backup_core::fault::{ErrorKind, Mishap, Operation};
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::verify::{Depth, VerifyOptions, verify_set};
use backstay_postgres_ops::{BackupReport, DumpOptions, Error};

use crate::ground::{Ground, Trial};
use crate::s3_faults::in_parts;
use crate::scene::{Scene, catalog, open, stanza, words};
use crate::sweep::{End, Ran, Sweep, Trouble, UNDISTURBED, allowed, refused_reading, spots};

/// Of how many backups one is restored: a restore takes longer than all the rest.
const RESTORED: usize = 10;
/// Calls that every backup makes.
const WRITING: [Operation; 6] = [
    Operation::Put,
    Operation::StartUpload,
    Operation::PutPart,
    Operation::CompleteUpload,
    Operation::Get,
    Operation::Head,
];

/// A database whose dump is several parts, as small as the store's parts allow.
async fn scene(ground: &Ground) -> Scene {
    Scene::start(if matches!(ground, Ground::Directory) { 400 } else { 90_000 }).await
}

fn options(ground: &Ground) -> DumpOptions {
    let mut options = in_parts();
    options.codec = Codec::None;
    if matches!(ground, Ground::Directory) {
        options.data_path = options.data_path.part_size(8 << 10);
    }
    options
}

impl Trial {
    /// What a program does: opens the repository, then backs up into it.
    async fn back_up(&self, scene: &Scene, options: &DumpOptions) -> Result<BackupReport, Error> {
        let repositories = open(self.seen()).await?;
        scene.backup(&repositories, options).await
    }

    /// What a program does: opens the repository, chooses the newest good set, restores it.
    async fn restore(&self, scene: &Scene, target: &str) -> Result<(), Error> {
        let repositories = open(self.seen()).await?;
        let found = Catalog::load(&repositories, &stanza()).await?;
        let chosen = found.newest_good(&Filter::default())?.manifest.clone();
        let manifest = chosen.expect("a good set has a manifest");
        let receipt = scene.restore(&repositories, &manifest, target).await?;
        assert!(receipt.comparison.is_equal());
        Ok(())
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
}

/// A run without faults.
async fn undisturbed(scene: &Scene, ground: &Ground, number: usize) -> (Trial, BackupReport) {
    let trial = Trial::new(ground, 900_000 + number).await;
    let report = trial.back_up(scene, &options(ground)).await.unwrap();
    trial.expect_set(&report, "undisturbed", Some((scene, "undisturbed"))).await;
    (trial, report)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_backup_into_a_directory_changes_nothing_or_leaves_nothing() {
    backups(&Ground::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_backup_into_s3_changes_nothing_or_leaves_nothing() {
    backups(&Ground::s3().await).await;
}

async fn backups(ground: &Ground) {
    let scene = scene(ground).await;
    let (mut runs, mut reference) = (Vec::new(), None);
    for number in 0..UNDISTURBED {
        let (trial, report) = undisturbed(&scene, ground, number).await;
        runs.push(trial.calls());
        reference = Some(report);
        trial.clear().await;
    }
    let (options, reference) = (options(ground), reference.unwrap());
    let sweep = Sweep::new(format!("backup, {}", ground.name()), &runs, 12);
    sweep.expect_calls(&WRITING);
    let run = async |number: usize, trouble: &Trouble| {
        let trial = Trial::new(ground, number).await;
        trouble.plan(&trial.fault);
        let outcome = trial.back_up(&scene, &options).await;
        let restore = number.is_multiple_of(RESTORED).then_some(&scene);
        let end = judge_backup(&trial, trouble, outcome, &reference, (number, restore)).await;
        trial.clear().await;
        Ran { fault: trial.fault, end }
    };
    sweep.run(run).await;
}

async fn judge_backup(
    trial: &Trial,
    trouble: &Trouble,
    outcome: Result<BackupReport, Error>,
    reference: &BackupReport,
    (number, restore): (usize, Option<&Scene>),
) -> Result<End, String> {
    let when = format!("{trouble:?}");
    match outcome {
        Ok(report) => {
            assert_eq!(report.facts.tables, reference.facts.tables, "{when}");
            let target = format!("again_{number}");
            trial.expect_set(&report, &when, restore.map(|scene| (scene, target.as_str()))).await;
            Ok(End::Same)
        }
        Err(error) => {
            let (class, why) = (error.class(), words(&error));
            trial.expect_nothing(&when).await;
            let fits = allowed(trouble.mishap).contains(&class) && why.len() > 20;
            if fits { Ok(End::Refused(class)) } else { Err(format!("{class:?}: {why}")) }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_restore_from_a_directory_changes_nothing_or_makes_nothing() {
    restores(&Ground::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_at_any_call_of_a_restore_from_s3_changes_nothing_or_makes_nothing() {
    restores(&Ground::s3().await).await;
}

async fn restores(ground: &Ground) {
    let scene = scene(ground).await;
    let (trial, _) = undisturbed(&scene, ground, 0).await;
    let mut runs = Vec::new();
    for number in 0..UNDISTURBED {
        let run = trial.again(number);
        run.restore(&scene, "first").await.unwrap();
        runs.push(run.calls());
    }
    let sweep = Sweep::new(format!("restore, {}", ground.name()), &runs, 8);
    sweep.expect_calls(&[Operation::Get, Operation::List]);
    let run = async |number: usize, trouble: &Trouble| {
        let (trial, target) = (trial.again(number), format!("target_{number}_"));
        trouble.plan(&trial.fault);
        let outcome = trial.restore(&scene, &target).await;
        let left = scene.count_databases(&target).await;
        let end = judge_restore(trouble, outcome, &left);
        Ran { fault: trial.fault, end }
    };
    sweep.run(run).await;
}

fn judge_restore(trouble: &Trouble, outcome: Result<(), Error>, left: &str) -> Result<End, String> {
    if left != "0" {
        return Err(format!("{left} databases are left: {outcome:?}"));
    }
    match outcome {
        Ok(()) => Ok(End::Same),
        Err(error) => refused_reading(trouble, error.class(), &words(&error)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_stays_ends_in_one_error_and_no_set() {
    let ground = Ground::Directory;
    let scene = scene(&ground).await;
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
            match trial.back_up(&scene, &options(&ground)).await {
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
    for ground in [Ground::Directory, Ground::s3().await] {
        let (ground, scene) = (&ground, &scene(&ground).await);
        let (trial, _) = undisturbed(scene, ground, 0).await;
        let mut writes = spots(&[trial.calls()]);
        writes.retain(|spot| matches!(spot.operation, Operation::Put | Operation::PutPart));
        assert!(writes.len() > 3, "{writes:?}");
        for (number, spot) in writes.into_iter().enumerate() {
            let trial = Trial::new(ground, number).await;
            let when = format!("bit turned over by {spot:?}");
            trial.fault.at(spot, 1, Mishap::Flip);
            turned_over(scene, ground, &trial, &when).await;
            assert_eq!(trial.fault.injected(), 1, "{when}");
            trial.clear().await;
        }
    }
}

async fn turned_over(scene: &Scene, ground: &Ground, trial: &Trial, when: &str) {
    if let Err(error) = trial.back_up(scene, &options(ground)).await {
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
    assert_eq!(scene.count_databases("never").await, "0", "{when}");
}
