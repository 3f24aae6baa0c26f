//! `archive-wal`: what it acknowledges, what it refuses, what it does ahead of the server.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::bucket::Bucket;
use support::{Stage, eventually, segment, segment_name};

#[test]
fn a_segment_is_archived_once_and_never_overwritten() {
    let stage = Stage::new();
    stage.put(3, 7);
    for _ in 0..3 {
        let ended = stage.push(3);
        assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{ended:?}");
    }
    stage.put(3, 8);
    for _ in 0..2 {
        let refused = stage.push(3);
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.stderr.contains("has another 000000010000000000000003"), "{refused:?}");
    }
    assert!(stage.is_archived(3, 7));
}

/// Each request of the three questions takes a round trip while the segment is compressed; only the last one adds to it.
#[test]
fn a_bucket_is_asked_three_questions_and_given_one_object() {
    let bucket = Bucket::start();
    let stage = bucket.stage();
    stage.put(3, 7);
    bucket.server.clear_access_log();
    let path = stage.segment_path(3);
    let pushed = stage.archive(&[path.to_str().unwrap(), "--no-look-ahead"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let asked: Vec<String> = bucket.server.access_log().into_iter().map(|record| record.operation).collect();
    assert_eq!(asked, ["GetObject", "ListObjectsV2", "GetObject", "PutObject"]);
}

#[test]
fn every_kind_of_file_is_taken_by_relative_and_by_absolute_path() {
    let stage = Stage::new();
    let wal = stage.data().join("pg_wal");
    fs::write(wal.join("00000002.history"), "1\t0/300000\tno recovery target specified\n").unwrap();
    fs::write(wal.join("000000010000000000000004.partial"), segment(1, 4, 7)).unwrap();
    fs::write(wal.join("000000010000000000000003.00000028.backup"), "START WAL LOCATION: 0/300028\n")
        .unwrap();
    stage.put(3, 7);
    let names = [
        "00000002.history",
        "000000010000000000000004.partial",
        "000000010000000000000003.00000028.backup",
        "000000010000000000000003",
    ];
    for name in names {
        assert_eq!(stage.archive(&[&format!("pg_wal/{name}")]).code, 0, "{name}");
        assert_eq!(stage.archive(&[wal.join(name).to_str().unwrap()]).code, 0, "{name}");
        assert_eq!(stage.restore(name, &["--no-prefetch"]).code, 0, "{name}");
        assert_eq!(fs::read(wal.join(name)).unwrap(), fs::read(wal.join("RECOVERYXLOG")).unwrap());
    }
    let report = stage.archive(&["pg_wal/00000002.history", "--json"]).stdout;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report["file"], report["present"].as_array().unwrap().len()),
        (&"00000002.history".into(), 1)
    );
}

#[test]
fn another_cluster_is_refused_until_it_is_registered() {
    let stage = Stage::new();
    stage.put(3, 7);
    assert_eq!(stage.push(3).code, 0);
    let mut other = segment(1, 4, 7);
    other[24..32].copy_from_slice(&9u64.to_le_bytes());
    fs::write(stage.segment_path(4), &other).unwrap();
    let foreign = stage.push(4);
    assert_eq!(foreign.code, 4, "a segment of another cluster in pg_wal: {foreign:?}");
    fs::remove_file(stage.segment_path(3)).unwrap();
    fs::write(stage.data().join("global/pg_control"), [&9u64.to_le_bytes()[..], &[0; 100]].concat()).unwrap();
    let refused = stage.push(4);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("belongs to the cluster with system identifier 7301234567890123456, not to 9")
    );
    assert!(refused.stderr.contains("hint: if this cluster takes the place"), "{refused:?}");
    let registered = stage.archive(&["--register"]);
    assert_eq!(
        (registered.code, registered.stdout.trim()),
        (0, "stanza main belongs to cluster 9 (registration 2)")
    );
    assert_eq!(stage.push(4).code, 0);
}

#[test]
fn what_is_no_repository_never_becomes_one_by_a_push() {
    let stage = Stage::bare();
    stage.put(3, 7);
    for make in [false, true] {
        if make {
            fs::create_dir(stage.path("repository")).unwrap();
        }
        let refused = stage.push(3);
        assert_eq!(refused.code, 2, "{refused:?}");
    }
    assert_eq!(fs::read_dir(stage.path("repository")).unwrap().count(), 0);
    assert_eq!(stage.archive(&["--register"]).code, 0);
    assert_eq!(stage.push(3).code, 0);
}

#[test]
fn bad_input_is_refused_with_the_usual_codes() {
    let stage = Stage::new();
    stage.put(3, 7);
    fs::write(stage.segment_path(4), segment(1, 3, 7)).unwrap();
    fs::write(stage.segment_path(5), [0; 100]).unwrap();
    for (args, code) in [
        (vec![], 2),
        (vec!["pg_wal/nonsense"], 2),
        (vec!["pg_wal/000000010000000000000003", "--no-such-flag"], 2),
        (vec!["pg_wal/000000010000000000000003", "--stanza", "a/b"], 2),
        (vec!["pg_wal/000000010000000000000009"], 5),
        (vec!["pg_wal/000000010000000000000004"], 3),
        (vec!["pg_wal/000000010000000000000005"], 3),
    ] {
        let ended = stage.archive(&args);
        assert_eq!(ended.code, code, "{args:?}: {ended:?}");
        assert!(!ended.stderr.is_empty());
    }
}

#[test]
fn the_quorum_is_never_lowered() {
    let mut stage = Stage::new();
    let second = stage.path("second").display().to_string();
    stage.flags.extend(["--repository".to_owned(), second, "--option".to_owned(), "quorum=2".to_owned()]);
    stage.put(3, 7);
    assert_eq!(stage.push(3).code, 2, "the second one does not exist");
    assert_eq!(stage.archive(&["--register"]).code, 0);
    assert_eq!(stage.push(3).code, 0);
    fs::set_permissions(stage.path("second/main/wal"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(stage.path("second/main/clusters/00001.json").exists());
}

#[test]
fn what_was_archived_ahead_is_acknowledged_at_once() {
    let stage = Stage::new();
    for number in 3..20 {
        stage.put(number, 7);
    }
    assert_eq!(stage.push(3).code, 0);
    stage.note_done(3);
    eventually("all are marked", || stage.spooled(".mark").len() == 16);
    stage.wait_for_helpers();
    // Nothing but the mark is looked at: the repository may be away.
    fs::rename(stage.path("repository"), stage.path("away")).unwrap();
    for number in 4..20 {
        let ended = stage.push(number);
        assert_eq!(ended.code, 0, "{ended:?}");
        stage.note_done(number);
    }
    assert_ne!(stage.push(3).code, 0, "without a mark");
    fs::rename(stage.path("away"), stage.path("repository")).unwrap();
    assert!((3..20).all(|number| stage.is_archived(number, 7)));
    assert!(
        fs::read_dir(stage.data().join("pg_wal/archive_status")).unwrap().count() == 18,
        "the server's notes"
    );
}

#[test]
fn a_mark_that_does_not_fit_acknowledges_nothing() {
    let stage = Stage::new();
    for number in [3, 4, 5, 6] {
        stage.put(number, 7);
    }
    assert_eq!(stage.push(3).code, 0);
    eventually("the others are marked", || stage.spooled(".mark").len() == 3);
    stage.wait_for_helpers();
    // Another file under the name: what is archived is something else.
    stage.put(4, 8);
    assert_eq!(stage.push(4).code, 4);
    // A torn mark: the segment is pushed, and is there already.
    let torn =
        stage.spooled(&segment_name(5)).into_iter().find(|path| path.extension().unwrap() == "mark").unwrap();
    let text = fs::read_to_string(&torn).unwrap();
    fs::write(&torn, &text[..text.len() / 2]).unwrap();
    fs::rename(stage.path("repository"), stage.path("away")).unwrap();
    assert_ne!(stage.push(5).code, 0);
    // The same file for another destination: not archived there.
    let elsewhere = stage.archive(&["pg_wal/000000010000000000000006", "--stanza", "other"]);
    assert_ne!(elsewhere.code, 0);
    assert_eq!(stage.push(6).code, 0, "the mark of this destination");
}

#[test]
fn without_look_ahead_nothing_is_left_behind() {
    let stage = Stage::new();
    for number in 3..6 {
        stage.put(number, 7);
    }
    let first = "pg_wal/000000010000000000000003";
    assert_eq!(stage.archive(&[first, "--no-look-ahead"]).code, 0);
    assert_eq!(stage.archive(&[first, "--option", "wal.look-ahead=0"]).code, 0);
    // Without a server there is nobody to work ahead of.
    fs::rename(stage.data().join("postmaster.pid"), stage.path("aside")).unwrap();
    assert_eq!(stage.push(3).code, 0);
    assert!(stage.helpers().is_empty() && !stage.path("spool").exists());
    fs::rename(stage.path("aside"), stage.data().join("postmaster.pid")).unwrap();
}

#[test]
fn a_spool_that_cannot_be_used_costs_the_look_ahead_and_a_warning() {
    let mut stage = Stage::new();
    stage.put(3, 7);
    stage.put(4, 7);
    for (spool, reason) in [("data/spool", "lies in the data directory"), ("backstay.toml", "no directory")] {
        stage.flags[3] = stage.path(spool).display().to_string();
        let ended = stage.push(3);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stderr.contains("no look-ahead") && ended.stderr.contains(reason), "{ended:?}");
    }
    assert!(stage.helpers().is_empty());
}

#[test]
fn the_lead_is_bounded() {
    let mut stage = Stage::new();
    stage.flags.extend(["--option".to_owned(), "wal.look-ahead=5".to_owned()]);
    for number in 3..30 {
        stage.put(number, 7);
    }
    assert_eq!(stage.push(3).code, 0);
    stage.note_done(3);
    stage.wait_for_helpers();
    assert_eq!(stage.spooled(".mark").len(), 5);
    for number in 4..30 {
        assert_eq!(stage.push(number).code, 0);
        stage.note_done(number);
    }
    stage.wait_for_helpers();
    assert!(stage.spooled(".mark").len() <= 5, "old marks are removed");
}

#[test]
fn double_pushes_of_the_program_race_and_nothing_is_overwritten() {
    let stage = Stage::new();
    let elsewhere = stage.path("elsewhere/pg_wal");
    fs::create_dir_all(&elsewhere).unwrap();
    for number in 1..=support::rounds(10, 300) {
        let other = if number % 2 == 0 { 7 } else { 8 };
        stage.put(number, 7);
        let path = elsewhere.join(segment_name(number));
        fs::write(&path, segment(1, number, other)).unwrap();
        let id = SYSTEM_ID.as_str();
        let mut calls = [stage.segment_path(number), path].map(|path| {
            stage
                .spawn("archive-wal", &[path.to_str().unwrap(), "--system-identifier", id, "--no-look-ahead"])
        });
        let codes = calls.each_mut().map(|call| call.wait().unwrap().code().unwrap());
        let expected: &[[i32; 2]] = if other == 7 { &[[0, 0]] } else { &[[0, 4], [4, 0]] };
        assert!(expected.contains(&codes), "{number}: {codes:?}");
        assert!(stage.is_archived(number, if codes[0] == 0 { 7 } else { other }));
    }
}

static SYSTEM_ID: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| support::SYSTEM.to_string());
