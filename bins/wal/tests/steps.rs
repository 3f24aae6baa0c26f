//! kill -9 of `archive-wal` and `restore-wal` at every step: a segment is in its place whole or not at all, what was
//! acknowledged is in every repository of the quorum, and the next call succeeds.
//!
//! At every call that changes files or talks to a store; with `BACKSTAY_SOAK` at every call to the kernel.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::bucket::Bucket;
use support::steps::{EVERYTHING, FILES, FILES_OF_THREADS, NETWORK, Run, Swept, kill_at_every_call};
use support::{Stage, ended, eventually, segment, segment_name};

fn calls(usual: &'static str) -> &'static str {
    if std::env::var_os("BACKSTAY_SOAK").is_some() { EVERYTHING } else { usual }
}

/// A stanza of its own for each run, so that each makes every folder and registers the cluster.
fn stanza(run: u64) -> String {
    format!("s.{run}")
}

fn archive(stage: &Stage, run: u64) -> Command {
    stage.command("archive-wal", &[&format!("pg_wal/{}", segment_name(3)), "--stanza", &stanza(run)])
}

/// Whether segment 3 is archived: whole, or not at all.
fn is_whole(stage: &Stage, run: u64) -> bool {
    let target = stage.path("fetched");
    let _ = fs::remove_file(&target);
    let place = target.to_str().unwrap();
    let args = [&segment_name(3), place, "--no-prefetch", "--standby", "--stanza", &stanza(run)];
    let fetched = ended(stage.command("restore-wal", &args));
    match fetched.code {
        0 => assert_eq!(fs::read(&target).unwrap(), segment(1, 3, 7), "run {run}"),
        // 202: not even the cluster is registered.
        1 | 202 => assert!(!target.exists(), "run {run}"),
        _ => panic!("run {run}: {fetched:?}"),
    }
    fetched.code == 0
}

/// No segment waits for a helper, which would be followed too.
fn nothing_else_to_do(stage: &Stage) {
    let note = format!("pg_wal/archive_status/{}.ready", segment_name(0));
    fs::remove_file(stage.data().join(note)).unwrap();
}

/// Kills `archive-wal` everywhere. Returns what was done, and in how many of the killed runs the segment was there.
fn kill_archiving(stage: &Stage, calls: &str, mut in_all: impl FnMut(u64) -> bool) -> (Swept, u64) {
    stage.put(3, 7);
    nothing_else_to_do(stage);
    // For `is_whole`: what a standby asks for is answered at once.
    fs::write(stage.data().join("standby.signal"), "").unwrap();
    // Makes the spool, which all runs share.
    assert_eq!(ended(archive(stage, 0)).code, 0);
    let mut present = 0;
    let swept = kill_at_every_call(
        calls,
        &stage.path("log"),
        |run| {
            // A registration is like an archived segment, call by call, and may hide it where threads share the work. So
            // every second stanza has its registration already, but not the first, whose steps are those to be killed at.
            if run.other_way {
                assert_eq!(stage.archive(&["--register", "--stanza", &stanza(run.number)]).code, 0);
            }
            (archive(stage, run.number), Stdio::null())
        },
        |run, code| {
            let is_there = is_whole(stage, run);
            match code {
                Some(code) => assert!(code == 0 && in_all(run), "run {run}: {code}"),
                None => present += u64::from(is_there),
            }
            let again = ended(archive(stage, run));
            assert_eq!(again.code, 0, "run {run}: {again:?}");
            assert!(is_whole(stage, run) && in_all(run), "run {run}");
        },
    );
    (swept, present)
}

#[test]
fn archiving_into_two_directories_is_killed_at_every_step() {
    let mut stage = Stage::new();
    // Of the same name: what is done to the one is the same step as to the other, which goes on beside it.
    fs::create_dir(stage.path("second")).unwrap();
    let second = stage.path("second/repository").display().to_string();
    stage.flags.extend(["--repository".to_owned(), second, "--option".to_owned(), "quorum=2".to_owned()]);
    stage.put(3, 7);
    assert_eq!(stage.archive(&["--register"]).code, 0);
    let object = |repository: &str, run| {
        let name = segment_name(3);
        let place = format!("{repository}/{}/wal/{}/00000001/00000000/{name}", stanza(run), support::SYSTEM);
        fs::read(stage.path(&place)).ok()
    };
    let in_both = |run| {
        let (one, other) = (object("repository", run), object("second/repository", run));
        one.is_some() && one == other
    };
    let (swept, present) = kill_archiving(&stage, calls(FILES_OF_THREADS), in_both);
    println!("{swept:?}, the segment was there after {present} of the kills");
    assert!(present > 0 && present < swept.kills, "{present} of {swept:?}");
    // Folders, registration, segment, and the notes in the spool.
    assert!(swept.steps > 20, "{swept:?}");
}

#[test]
fn archiving_into_a_bucket_is_killed_at_every_step() {
    let bucket = Bucket::start();
    let stage = bucket.stage();
    let (swept, present) = kill_archiving(&stage, calls(NETWORK), |_| true);
    println!("{swept:?}, the segment was there after {present} of the kills");
    assert!(present > 0 && present < swept.kills, "{present} of {swept:?}");
}

/// The lock that a helper is started with; it is in the spool of one stanza.
fn lock(stage: &Stage) -> PathBuf {
    let mut locks = stage.spooled("/push/");
    locks.retain(|path| path.ends_with("lock"));
    assert_eq!(locks.len(), 1, "{locks:?}");
    locks.remove(0)
}

#[test]
fn the_helper_is_killed_at_every_step_and_marks_nothing_that_is_absent() {
    let stage = Stage::new();
    nothing_else_to_do(&stage);
    stage.put(1, 7);
    assert_eq!(stage.push(1).code, 0);
    stage.note_done(1);
    let lock = lock(&stage);
    let swept = kill_at_every_call(
        // It looks for work until it is killed or idle, so not at every call.
        FILES_OF_THREADS,
        &stage.path("log"),
        |Run { number: run, .. }| {
            stage.put(2 * run, 7);
            stage.put(2 * run + 1, 7);
            let caller = format!("pg_wal/{}", segment_name(1));
            (stage.command("archive-wal", &[&*caller, "--helper"]), File::open(&lock).unwrap().into())
        },
        |run, code| {
            assert!(code.is_none_or(|code| code == 0), "run {run}: {code:?}");
            for number in [2 * run, 2 * run + 1] {
                let marks = stage.spooled(&format!("/{}.mark", segment_name(number)));
                assert!(code.is_none() || marks.len() == 1, "run {run}: {marks:?}");
                assert!(marks.is_empty() || stage.is_archived(number, 7), "run {run}: {marks:?}");
                let pushed = stage.archive(&[&format!("pg_wal/{}", segment_name(number)), "--no-look-ahead"]);
                assert_eq!(pushed.code, 0, "run {run}: {pushed:?}");
                assert!(stage.is_archived(number, 7), "run {run}");
                stage.note_done(number);
            }
        },
    );
    println!("{swept:?}");
    assert!(swept.steps >= 8, "{swept:?}");
}

/// What a server would find under the name, which must be whole.
fn expect_whole(stage: &Stage, number: u64, code: Option<i32>) -> bool {
    let target = stage.data().join("pg_wal/RECOVERYXLOG");
    let is_there = target.exists();
    assert!(is_there || code.is_none(), "{number}: {code:?}");
    assert!(!is_there || fs::read(&target).unwrap() == segment(1, number, 7), "{number}: {code:?}");
    let again = stage.restore(&segment_name(number), &["--deadline", "60s"]);
    assert_eq!(again.code, 0, "{number}: {again:?}");
    assert_eq!(fs::read(&target).unwrap(), segment(1, number, 7), "{number}");
    fs::remove_file(&target).unwrap();
    is_there
}

fn filled(segments: u64) -> Stage {
    let mut stage = Stage::new();
    stage.flags.extend(["--option".to_owned(), "wal.prefetch=4".to_owned()]);
    for number in 3..3 + segments {
        stage.put(number, 7);
        let pushed = stage.archive(&[&format!("pg_wal/{}", segment_name(number)), "--no-look-ahead"]);
        assert_eq!(pushed.code, 0, "{pushed:?}");
        stage.note_done(number);
    }
    stage
}

#[test]
fn fetching_is_killed_at_every_step() {
    let stage = filled(2);
    let mut whole = 0;
    let args = [&*segment_name(3), "pg_wal/RECOVERYXLOG", "--no-prefetch"];
    let swept = kill_at_every_call(
        calls(FILES),
        &stage.path("log"),
        |_| (stage.command("restore-wal", &args), Stdio::null()),
        |_, code| whole += u64::from(expect_whole(&stage, 3, code) && code.is_none()),
    );
    println!("{swept:?}, the file was there after {whole} of the kills");
    // Written, and named; the server syncs what has this name.
    assert!(whole > 0 && whole < swept.kills && swept.steps >= 2, "{whole} of {swept:?}");
}

#[test]
fn taking_what_was_prefetched_is_killed_at_every_step() {
    let stage = filled(40);
    let mut whole = 0;
    assert_eq!(stage.restore(&segment_name(3), &[]).code, 0);
    fs::remove_file(stage.data().join("pg_wal/RECOVERYXLOG")).unwrap();
    let number = |run| 3 + run;
    let swept = kill_at_every_call(
        FILES,
        &stage.path("log"),
        |Run { number: run, .. }| {
            // Else a helper would be started, which would be killed too, or waited for.
            eventually("it is fetched ahead", || {
                let mark = format!("{}.kept", segment_name(number(run)));
                stage.spooled("/get/").iter().any(|path| path.ends_with(&mark))
            });
            let args = [&*segment_name(number(run)), "pg_wal/RECOVERYXLOG"];
            (stage.command("restore-wal", &args), Stdio::null())
        },
        |run, code| whole += u64::from(expect_whole(&stage, number(run), code) && code.is_none()),
    );
    println!("{swept:?}, the file was there after {whole} of the kills");
    assert!(whole > 0 && whole < swept.kills && swept.steps >= 3, "{whole} of {swept:?}");
}
