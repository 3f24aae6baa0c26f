//! Files of physical sets: what is restored is what was there, whatever happens on the way.
#![allow(clippy::unwrap_used, missing_docs)]

mod physical_sets;

use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use backstay_backup_core::Class;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::error::Classified;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_postgres_ops::cluster_restore::{
    ClusterRestoreError, ClusterRestoreOptions, FilesPlan, FilesReceipt, RecoverySettings, RestoreMode,
    plan_files,
};
use backstay_postgres_ops::physical::{ClusterPath, IndexFile, IndexLine};
use backstay_postgres_ops::recovery::StopPoint;
use backstay_postgres_ops::wal::{Lsn, Timeline};
use physical_sets::{SetMaker, contents_of, noise, repositories, sample};
use serde_json::json;
use tokio_util::sync::CancellationToken;

struct Scene {
    folder: tempfile::TempDir,
    repositories: Repositories,
    identities: Identities,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        sample(&folder.path().join("source"));
        let repositories = repositories(&[folder.path().join("store")]).await;
        Self { folder, repositories, identities: Identities::none() }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn source(&self) -> PathBuf {
        self.path("source")
    }

    fn target(&self) -> PathBuf {
        self.path("target")
    }

    async fn set(&self) -> Manifest {
        SetMaker::new(&self.repositories).make(&self.source(), 10).await
    }

    fn options(&self) -> ClusterRestoreOptions {
        ClusterRestoreOptions::new(self.target())
    }

    async fn plan(
        &self,
        set: &Manifest,
        options: &ClusterRestoreOptions,
    ) -> Result<FilesPlan, ClusterRestoreError> {
        plan_files(&self.repositories, set, &self.identities, options).await
    }

    async fn restore(
        &self,
        set: &Manifest,
        options: &ClusterRestoreOptions,
    ) -> Result<FilesReceipt, ClusterRestoreError> {
        let plan = self.plan(set, options).await?;
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        plan.apply(&self.repositories, &self.identities, &recovery(), &progress, &cancel).await
    }

    /// Compares with the source, but for what a restore changes on purpose.
    #[track_caller]
    fn assert_equal(&self) {
        let (mut expected, mut found) = (contents_of(&self.source()), contents_of(&self.target()));
        for changed in ["postgresql.auto.conf", "recovery.signal"] {
            expected.remove(changed);
            assert!(found.remove(changed).is_some(), "{changed}");
        }
        expected.retain(|path, _| !path.starts_with("pg_wal/"));
        let names = |contents: &std::collections::BTreeMap<String, Vec<u8>>| {
            contents.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(&found), names(&expected));
        for (path, content) in expected {
            assert!(found[&path] == content, "{path}");
        }
    }
}

fn recovery() -> RecoverySettings {
    RecoverySettings::new(
        "restore-wal %f %p",
        StopPoint::Record { lsn: Lsn::new(0x200_0100), inclusive: true },
        Timeline::FIRST,
    )
}

#[tokio::test]
async fn a_restore_makes_every_file_and_prepares_the_recovery() {
    let scene = Scene::new().await;
    let set = scene.set().await;
    let plan = scene.plan(&set, &scene.options()).await.unwrap();
    assert_eq!((plan.mode, plan.removals), (RestoreMode::Fresh, 0));
    assert!(!scene.target().exists(), "a plan touches nothing");
    let receipt = scene.restore(&set, &scene.options()).await.unwrap();
    assert_eq!(receipt.reused_bytes, 8192, "the control file is put in place last");
    scene.assert_equal();
    let auto = std::fs::read_to_string(scene.target().join("postgresql.auto.conf")).unwrap();
    assert!(auto.contains("\nrestore_command = 'restore-wal %f %p'\n"), "{auto}");
    assert!(
        auto.contains("\narchive_mode = 'off'\n") && auto.contains("off: archive_command = 'cp"),
        "{auto}"
    );
    let modified = |folder: &Path| folder.join("base/5/2000").metadata().unwrap().modified().unwrap();
    let seconds = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds(modified(&scene.target())), seconds(modified(&scene.source())));
    assert!(scene.target().join("pg_notify").is_dir(), "directories without files are made too");
}

#[tokio::test]
async fn an_old_directory_is_made_right_by_the_blocks_that_differ() {
    let key = age::x25519::Identity::generate();
    for encrypted in [false, true] {
        let mut scene = Scene::new().await;
        let mut maker = SetMaker::new(&scene.repositories);
        if encrypted {
            maker.recipients = Recipients::parse([&*key.to_public().to_string()]).unwrap();
        }
        let set = maker.make(&scene.source(), 10).await;
        scene.identities = Identities::parse(key.to_string().expose_secret()).unwrap();
        scene.restore(&set, &scene.options()).await.unwrap();
        let target = scene.target();
        // Another byte in the third block, a file too long, one too short, one gone, a link, strangers, old WAL.
        let mut large = std::fs::read(target.join("base/5/2000")).unwrap();
        large[(2 << 20) + 77] ^= 1;
        std::fs::write(target.join("base/5/2000"), large).unwrap();
        std::fs::write(target.join("base/1/1001"), noise(1, 8192 + 100)).unwrap();
        std::fs::write(target.join("base/5/2000.1"), vec![0; 100]).unwrap();
        std::fs::remove_file(target.join("base/1/1002")).unwrap();
        std::fs::remove_file(target.join("base/1/1003")).unwrap();
        std::os::unix::fs::symlink(scene.source().join("base/1/1003"), target.join("base/1/1003")).unwrap();
        std::fs::create_dir_all(target.join("base/9/deep")).unwrap();
        std::fs::write(target.join("base/9/deep/file"), "x").unwrap();
        std::fs::write(target.join("pg_wal/000000010000000000000009"), "old").unwrap();

        let refused = scene.restore(&set, &scene.options()).await.unwrap_err();
        assert_eq!(refused.class(), Class::Conflict, "{refused}");
        let options = scene.options().delta(true);
        let plan = scene.plan(&set, &options).await.unwrap();
        assert_eq!((plan.mode, plan.removals), (RestoreMode::Delta, 6), "{plan:?}");
        let receipt = scene.restore(&set, &options).await.unwrap();
        assert!(receipt.written_bytes < 6 << 20, "{receipt:?}");
        scene.assert_equal();
        let source = contents_of(&scene.source());
        assert_eq!(source["base/1/1003"], noise(3, 8192 * 3), "nothing was written through the link");
        let again = scene.restore(&set, &options).await.unwrap();
        // The settings were written anew.
        assert!(again.written_bytes < 100, "{again:?}");
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_refused_and_left_as_it_is() {
    let scene = Scene::new().await;
    let set = scene.set().await;
    let target = scene.target();
    let refused = async |options: &ClusterRestoreOptions| {
        let error = scene.restore(&set, options).await.unwrap_err();
        assert_eq!(error.class(), Class::Conflict, "{error}");
        error.to_string()
    };
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join("letter"), "dear").unwrap();
    for options in [scene.options(), scene.options().delta(true)] {
        assert!(refused(&options).await.contains("it holds letter"));
    }
    assert_eq!(contents_of(&target).len(), 1);
    std::fs::remove_dir_all(&target).unwrap();
    scene.restore(&set, &scene.options()).await.unwrap();
    let delta = scene.options().delta(true);
    std::fs::write(target.join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
    assert!(refused(&delta).await.contains("its server runs as process"));
    std::fs::write(target.join("postmaster.pid"), "999999999\n").unwrap();
    scene.restore(&set, &delta).await.unwrap();
    assert!(!target.join("postmaster.pid").exists());
    // What only this directory has.
    let ready = target.join("pg_wal/archive_status/000000010000000000000007.ready");
    std::fs::create_dir_all(ready.parent().unwrap()).unwrap();
    std::fs::write(&ready, "").unwrap();
    let words = refused(&delta).await;
    assert!(words.contains("000000010000000000000007") && words.contains("never archived"), "{words}");
    std::fs::remove_file(&ready).unwrap();
    // Another cluster.
    let mut other = set.clone();
    other.facts["system"] = json!("7");
    let error = scene.plan(&other, &delta).await.unwrap_err();
    assert!(error.to_string().contains("and the set is of 7"), "{error}");
    scene.plan(&other, &delta.clone().other_cluster(true)).await.unwrap();
}

/// A file of an index under another name.
macro_rules! renamed {
    ($from:literal, $to:literal) => {
        |lines| file(lines, $from).path = ClusterPath::parse($to).unwrap()
    };
}

fn file<'a>(lines: &'a mut [IndexLine], name: &str) -> &'a mut IndexFile {
    let found = lines.iter_mut().find_map(|line| match line {
        IndexLine::File(file) if file.path.to_string() == name => Some(file),
        _ => None,
    });
    found.unwrap()
}

type Tweak = fn(&mut Vec<IndexLine>);

const LIES: [(&str, Tweak); 14] = [
    ("is there twice", renamed!("base/1/1001", "base/1/1002")),
    ("is below base/1/1002, a file", renamed!("base/1/1001", "base/1/1002/x")),
    ("is a file and a directory", renamed!("base/1/1001", "pg_notify")),
    ("has no global/pg_control", renamed!("global/pg_control", "global/other")),
    ("sets hold no WAL", renamed!("base/1/1002", "pg_wal/000000010000000000000001")),
    ("which no set holds", renamed!("base/1/1002", "standby.signal")),
    ("of a tablespace that the set does not describe", renamed!("base/1/1002", "pg_tblspc/77/x")),
    ("reaches beyond", |lines| file(lines, "base/5/2000.1").at += 1 << 30),
    ("reaches beyond", |lines| file(lines, "base/5/2000.1").at = u64::MAX - 1),
    ("overlaps", |lines| file(lines, "base/1/1002").at -= 600),
    ("digests for", |lines| file(lines, "base/1/1002").blocks.clear()),
    ("in pack 99", |lines| file(lines, "base/1/1002").pack = 99),
    ("it is cut off", |lines| drop(lines.pop())),
    ("holds", |lines| drop(lines.remove(20))),
];

#[tokio::test]
async fn an_index_that_lies_is_refused_before_anything_is_made() {
    let scene = Scene::new().await;
    for (expected, tweak) in LIES {
        let mut maker = SetMaker::new(&scene.repositories);
        maker.tweak = tweak;
        let set = maker.make(&scene.source(), 10).await;
        let error = scene.restore(&set, &scene.options()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.class(), Class::Data, "{error}");
        assert!(!scene.target().exists(), "{expected}");
    }
}

#[tokio::test]
async fn packs_that_are_not_what_the_index_says_leave_nothing_that_starts() {
    type Spoil = fn(&mut Vec<Vec<u8>>);
    let spoils: [(&str, Spoil); 3] = [
        ("has other content", |packs| {
            let middle = packs[4].len() / 2;
            packs[4][middle] ^= 1;
        }),
        ("plain bytes, its index says", |packs| packs[4].extend(vec![0; 64 << 20])),
        ("plain bytes, its index says", |packs| packs[4].truncate(1000)),
    ];
    for (expected, spoil) in spoils {
        let scene = Scene::new().await;
        let mut maker = SetMaker::new(&scene.repositories);
        maker.spoil = spoil;
        // Only packs and their own lengths: what files need is as it was.
        maker.tweak = if expected.starts_with("plain") { keep_old_length } else { |_| {} };
        let set = maker.make(&scene.source(), 10).await;
        let error = scene.restore(&set, &scene.options()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.class(), Class::Data, "{error}");
        assert!(!scene.target().join("global/pg_control").exists());
    }
}

/// The fifth pack is said to be as long as it was.
fn keep_old_length(lines: &mut Vec<IndexLine>) {
    let ends = lines.iter().filter_map(|line| match line {
        IndexLine::File(file) if file.pack == 5 => Some(file.at + file.size),
        _ => None,
    });
    let end = ends.max().unwrap();
    for line in lines {
        if let IndexLine::Pack(pack) = line
            && pack.number == 5
        {
            pack.plain = end.next_multiple_of(10240);
        }
    }
}

#[tokio::test]
async fn a_damaged_copy_is_replaced_by_another_and_without_one_nothing_starts() {
    let mut scene = Scene::new().await;
    scene.repositories = repositories(&[scene.path("store"), scene.path("second")]).await;
    let set = SetMaker::new(&scene.repositories).make(&scene.source(), 100).await;
    let pack = |store: &str| scene.path(store).join(format!("main/sets/{}/pack-00001.tar.zst", set.set));
    let flip = |path: &Path| {
        let mut content = std::fs::read(path).unwrap();
        let last = content.len() - 100;
        content[last] ^= 1;
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, content).unwrap();
    };
    assert!(pack("store").metadata().unwrap().len() > 4 << 20, "checked only at its end");
    flip(&pack("store"));
    scene.restore(&set, &scene.options()).await.unwrap();
    scene.assert_equal();
    // Whatever delta fetches by ranges is proven block by block, so it takes the good copy too.
    let mut large = std::fs::read(scene.target().join("base/5/2000")).unwrap();
    large.iter_mut().for_each(|byte| *byte ^= 1);
    std::fs::write(scene.target().join("base/5/2000"), large).unwrap();
    scene.restore(&set, &scene.options().delta(true)).await.unwrap();
    scene.assert_equal();

    flip(&pack("second"));
    std::fs::remove_dir_all(scene.target()).unwrap();
    let error = scene.restore(&set, &scene.options()).await.unwrap_err();
    assert_eq!(error.class(), Class::Data, "{error}");
    assert!(!scene.target().join("global/pg_control").exists());
    // The same command completes it once a copy is whole again.
    flip(&pack("second"));
    let plan = scene.plan(&set, &scene.options()).await.unwrap();
    assert_eq!(plan.mode, RestoreMode::Continue);
    let receipt = scene.restore(&set, &scene.options()).await.unwrap();
    assert!(receipt.reused_bytes > 1 << 20, "{receipt:?}");
    scene.assert_equal();
}

#[tokio::test]
async fn tablespaces_go_beside_the_target_and_never_into_living_ones() {
    let mut scene = Scene::new().await;
    let living = scene.path("living");
    let version = living.join("PG_15_202209061/5");
    std::fs::create_dir_all(&version).unwrap();
    std::fs::write(version.join("3000"), noise(3, 20_000)).unwrap();
    std::os::unix::fs::symlink(&living, scene.source().join("pg_tblspc/16385")).unwrap();
    let mut maker = SetMaker::new(&scene.repositories);
    maker.facts = physical_sets::facts(&json!([
        { "oid": 16385, "name": "fast", "location": living.to_str().unwrap(), "bytes": 20_000 }
    ]));
    let set = maker.make(&scene.source(), 10).await;
    let error = scene.plan(&set, &scene.options().original_tablespaces(true)).await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict, "{error}");
    let error = scene.plan(&set, &scene.options().tablespace("other", "/x")).await.unwrap_err();
    assert_eq!(error.class(), Class::Usage, "{error}");

    let before = contents_of(&living);
    scene.restore(&set, &scene.options()).await.unwrap();
    scene.assert_equal();
    let beside = scene.path("target.tablespaces/16385");
    assert_eq!(std::fs::read_link(scene.target().join("pg_tblspc/16385")).unwrap(), beside);
    // An old data directory whose link leads into the living one: the link is replaced, not followed.
    let link = scene.target().join("pg_tblspc/16385");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&living, &link).unwrap();
    std::fs::remove_dir_all(&beside).unwrap();
    std::fs::write(version.join("3000"), "changed since").unwrap();
    scene.restore(&set, &scene.options().delta(true)).await.unwrap();
    assert_eq!(std::fs::read_link(&link).unwrap(), beside);
    assert_eq!(
        std::fs::read(beside.join("PG_15_202209061/5/3000")).unwrap(),
        before["PG_15_202209061/5/3000"]
    );
    assert_eq!(std::fs::read(version.join("3000")).unwrap(), b"changed since");
    // With a directory by name.
    std::fs::remove_dir_all(scene.target()).unwrap();
    let named = scene.path("named");
    scene.restore(&set, &scene.options().tablespace("fast", &named)).await.unwrap();
    assert!(named.join("PG_15_202209061/5/3000").is_file());
    scene.identities = Identities::none();
}
