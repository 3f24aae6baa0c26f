//! `restore-wal` ahead of the server: what is handed over is what was proven, or nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use backstay_testkit::s3::{Effect, FaultRule};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use support::bucket::Bucket;
use support::{MIB, Stage, eventually, incompressible, rounds, segment, segment_name};

/// A stage with segments from 3 on archived, that fetches four ahead.
fn archived(numbers: std::ops::Range<u64>) -> Stage {
    let mut stage = Stage::new();
    stage.flags.extend(["--option".to_owned(), "wal.prefetch=4".to_owned()]);
    for number in numbers {
        stage.put(number, 7);
        assert_eq!(stage.archive(&[&format!("pg_wal/{}", segment_name(number)), "--no-look-ahead"]).code, 0);
    }
    stage
}

/// Segments in the spool, whole or not.
fn spooled(stage: &Stage) -> Vec<PathBuf> {
    let mut found = stage.spooled("/get/");
    found.retain(|path| path.file_name().unwrap().to_string_lossy().len() == 24);
    found
}

/// Segments in the spool that have their mark.
fn prefetched(stage: &Stage) -> Vec<PathBuf> {
    let mut found = spooled(stage);
    found.retain(|path| mark_of(path).exists());
    found
}

fn mark_of(segment: &std::path::Path) -> PathBuf {
    segment.with_extension("kept")
}

/// The spooled file of a segment, once it is whole.
fn kept(stage: &Stage, number: u64) -> PathBuf {
    let found = || prefetched(stage).into_iter().find(|path| path.ends_with(segment_name(number)));
    eventually("it is fetched", || found().is_some());
    found().unwrap()
}

/// Calls for segment 3 and waits for those ahead of it; then the repository is out of reach, so that whatever a call
/// gives comes from the spool.
fn fetched_ahead() -> Stage {
    let stage = archived(3..9);
    assert_eq!(stage.restore(&segment_name(3), &[]).code, 0);
    eventually("four are fetched", || prefetched(&stage).len() == 4);
    fs::rename(stage.path("repository"), stage.path("away")).unwrap();
    stage
}

fn target(stage: &Stage) -> PathBuf {
    stage.data().join("pg_wal/RECOVERYXLOG")
}

/// A call that gets nothing, and says so above 125.
fn is_refused(stage: &Stage, number: u64) {
    let _ = fs::remove_file(target(stage));
    let ended = stage.restore(&segment_name(number), &["--deadline", "1s"]);
    assert_eq!(ended.code, 202, "{ended:?}");
    assert!(!target(stage).exists());
}

/// A call that gets the segment as it was archived.
fn is_given(stage: &Stage, number: u64) {
    let ended = stage.restore(&segment_name(number), &[]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(fs::read(target(stage)).unwrap(), segment(1, number, 7), "{number}");
}

/// When a recovery begins nobody has looked ahead; the first call then does not fetch alone.
#[test]
fn the_second_segment_is_asked_for_while_the_first_is_on_its_way() {
    let bucket = Bucket::start();
    let stage = bucket.stage();
    for number in 3..5 {
        stage.put(number, 7);
        assert_eq!(stage.archive(&[&format!("pg_wal/{}", segment_name(number)), "--no-look-ahead"]).code, 0);
    }
    let slow =
        FaultRule::on("GetObject", Effect::Delay(Duration::from_secs(3))).key_contains(segment_name(3));
    bucket.server.faults().add(slow);
    bucket.server.clear_access_log();
    is_given(&stage, 3);
    let log = bucket.server.access_log();
    let is_of = |number| {
        log.iter().any(|record| record.key.as_ref().is_some_and(|key| key.contains(&segment_name(number))))
    };
    assert!(is_of(3) && is_of(4), "{log:?}");
    is_given(&stage, 4);
}

#[test]
fn segments_are_fetched_ahead_and_bounded() {
    let stage = archived(3..20);
    is_given(&stage, 3);
    eventually("four are fetched", || prefetched(&stage).len() == 4);
    fs::rename(stage.path("repository"), stage.path("away")).unwrap();
    is_given(&stage, 4);
    fs::rename(stage.path("away"), stage.path("repository")).unwrap();
    for number in 5..20 {
        is_given(&stage, number);
        // One that a call fetched by itself meanwhile is removed a moment later.
        eventually("four at most", || spooled(&stage).len() <= 4);
    }
    let _ = fs::remove_file(target(&stage));
    assert_eq!(stage.restore(&segment_name(20), &[]).code, 1);
    // Absence is not remembered.
    stage.put(20, 7);
    assert_eq!(stage.push(20).code, 0);
    is_given(&stage, 20);
    fs::remove_file(stage.data().join("postmaster.pid")).unwrap();
    stage.wait_for_helpers();
    assert_eq!(spooled(&stage), Vec::<PathBuf>::new(), "nothing stays behind a server that is gone");
}

/// How far a process steps back, as the nineteenth word of its line says (`proc_pid_stat(5)`).
fn nice(pid: i32) -> i32 {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, words) = line.rsplit_once(") ").unwrap();
    words.split(' ').nth(16).unwrap().parse().unwrap()
}

#[test]
fn the_helper_lets_the_server_go_first() {
    let stage = fetched_ahead();
    let helpers = stage.helpers();
    let own = nice(i32::try_from(std::process::id()).unwrap());
    assert_eq!(helpers.into_iter().map(nice).collect::<Vec<_>>(), [(own + 5).min(19)]);
}

/// A server that has replayed everything asks for the last segment once more before it opens.
#[test]
fn the_last_segment_stays_until_a_later_one_is_there() {
    let stage = archived(3..6);
    is_given(&stage, 3);
    eventually("two are fetched", || prefetched(&stage).len() == 2);
    is_given(&stage, 4);
    is_given(&stage, 5);
    let _ = fs::remove_file(target(&stage));
    assert_eq!(stage.restore(&segment_name(6), &[]).code, 1);
    fs::rename(stage.path("repository"), stage.path("away")).unwrap();
    is_given(&stage, 5);
    // What the server did to the file it got is nothing to the one that stays.
    fs::write(target(&stage), "recycled").unwrap();
    is_given(&stage, 5);
    fs::rename(stage.path("away"), stage.path("repository")).unwrap();
    for number in 6..9 {
        stage.put(number, 7);
        assert_eq!(stage.push(number).code, 0);
    }
    is_given(&stage, 6);
    eventually("it is gone", || !spooled(&stage).iter().any(|path| path.ends_with(segment_name(5))));
    (7..9).for_each(|number| is_given(&stage, number));
}

/// Nor does it take room that is not there: where no copy can be written, the segment itself is handed over.
#[test]
fn the_last_segment_is_moved_where_no_copy_of_it_can_be_written() {
    let stage = archived(3..5);
    is_given(&stage, 3);
    let spooled = kept(&stage, 4);
    fs::rename(stage.path("repository"), stage.path("away")).unwrap();
    let in_the_way = stage.data().join("pg_wal/RECOVERYXLOG.backstay");
    fs::create_dir(&in_the_way).unwrap();
    is_given(&stage, 4);
    assert!(!spooled.exists());
    fs::remove_dir(&in_the_way).unwrap();
}

#[test]
fn one_bit_that_was_changed_afterwards_is_noticed_though_size_and_time_are_as_before() {
    let stage = fetched_ahead();
    let path = kept(&stage, 4);
    let before = fs::metadata(&path).unwrap();
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5000).unwrap();
    byte[0] ^= 1;
    let now = loop {
        file.write_all_at(&byte, 5000).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        let now = fs::metadata(&path).unwrap();
        // Not within the same tick of the kernel's clock.
        if (now.ctime(), now.ctime_nsec()) != (before.ctime(), before.ctime_nsec()) {
            break now;
        }
    };
    assert_eq!((now.len(), now.ino(), now.mtime_nsec()), (before.len(), before.ino(), before.mtime_nsec()));
    is_refused(&stage, 4);
    is_given(&stage, 5);
    fs::rename(stage.path("away"), stage.path("repository")).unwrap();
    is_given(&stage, 4);
}

#[test]
fn a_mark_of_another_file_is_none() {
    let stage = fetched_ahead();
    // Another inode with the same size and times, and one bit that differs.
    let path = kept(&stage, 4);
    let copy = path.with_extension("copy");
    assert!(Command::new("cp").arg("-p").args([&path, &copy]).status().unwrap().success());
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&copy).unwrap();
    file.write_all_at(&[1], 9000).unwrap();
    file.set_modified(modified).unwrap();
    fs::rename(&copy, &path).unwrap();
    is_refused(&stage, 4);
    // The file and the mark of another segment.
    let (fifth, sixth) = (kept(&stage, 5), kept(&stage, 6));
    fs::rename(&sixth, &fifth).unwrap();
    fs::rename(mark_of(&sixth), mark_of(&fifth)).unwrap();
    is_refused(&stage, 5);
    // A torn mark.
    let seventh = kept(&stage, 7);
    let text = fs::read_to_string(mark_of(&seventh)).unwrap();
    fs::write(mark_of(&seventh), &text[..text.len() / 2]).unwrap();
    is_refused(&stage, 7);
    fs::rename(stage.path("away"), stage.path("repository")).unwrap();
    (4..9).for_each(|number| is_given(&stage, number));
}

#[test]
fn a_file_whose_mark_was_never_written_is_no_segment() {
    let stage = fetched_ahead();
    // As a helper leaves it that is killed between the two.
    stage.helpers().into_iter().for_each(kill);
    stage.wait_for_helpers();
    fs::remove_file(mark_of(&kept(&stage, 4))).unwrap();
    is_refused(&stage, 4);
    assert_eq!(spooled(&stage).len(), 4, "it may be about to get its mark");
    is_given(&stage, 5);
    // That started a helper, which finds no repository.
    stage.wait_for_helpers();
    fs::rename(stage.path("away"), stage.path("repository")).unwrap();
    is_given(&stage, 4);
    // The next helper removes what is not whole.
    eventually("all are whole", || spooled(&stage).len() == 4 && prefetched(&stage).len() == 4);
    (5..9).for_each(|number| is_given(&stage, number));
}

fn kill(pid: i32) {
    // It may have ended a moment ago.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

#[test]
fn whatever_is_killed_a_call_gives_the_segment_or_fails() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let last = 3 + rounds(24, 400);
    let stage = archived(3..last);
    let mut kills = 0;
    for number in 3..last {
        let _ = fs::remove_file(target(&stage));
        loop {
            let mut call = stage.spawn("restore-wal", &[&segment_name(number), "pg_wal/RECOVERYXLOG"]);
            let (patience, begin) = (Duration::from_micros(random.random_range(0..40_000)), Instant::now());
            let (whom, mut fired) = (random.random_range(0..3), false);
            let status = loop {
                if let Some(status) = call.try_wait().unwrap() {
                    break status;
                }
                if !fired && begin.elapsed() > patience {
                    fired = true;
                    let doomed = match whom {
                        0 => vec![i32::try_from(call.id()).unwrap()],
                        1 => stage.helpers(),
                        _ => Vec::new(),
                    };
                    kills += doomed.len();
                    doomed.into_iter().for_each(kill);
                }
                std::thread::sleep(Duration::from_micros(200));
            };
            // Whole or absent, however the call ended.
            if let Ok(content) = fs::read(target(&stage)) {
                assert_eq!(content, segment(1, number, 7), "{number}");
            }
            if status.success() {
                break;
            }
            assert_eq!(status.code(), None, "only a killed call fails");
        }
        assert!(target(&stage).exists(), "{number}");
    }
    println!("{kills} kills among {} segments", last - 3);
    assert!(kills > 0);
}

#[test]
fn what_does_not_compress_is_fetched_by_calls_and_ahead_of_them() {
    let stage = Stage::new();
    for number in 3..7 {
        fs::write(stage.segment_path(number), incompressible(number, 16 * MIB)).unwrap();
        assert_eq!(stage.archive(&[&format!("pg_wal/{}", segment_name(number)), "--no-look-ahead"]).code, 0);
    }
    for number in 3..7 {
        let ended = stage.restore(&segment_name(number), &[]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let given = fs::read(target(&stage)).unwrap();
        assert!(given == incompressible(number, 16 * MIB), "{number}: {} bytes", given.len());
        if number == 3 {
            eventually("three are fetched", || prefetched(&stage).len() == 3);
            fs::rename(stage.path("repository"), stage.path("away")).unwrap();
        }
    }
}
