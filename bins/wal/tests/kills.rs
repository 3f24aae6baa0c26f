//! kill -9 of calls and helpers at any moment: nothing is acknowledged that is absent, and nothing is overwritten.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use support::bucket::Bucket;
use support::{Stage, rounds, segment_name};

/// Segments of one life of the server.
const BATCH: u64 = 8;

fn kill(pid: i32) {
    // It may have ended a moment ago.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Archives as a server does, while calls and helpers are killed; returns what was acknowledged, and how many kills hit.
fn archive_under_fire(stage: &Stage, first: u64, random: &mut StdRng) -> u64 {
    let mut kills = 0;
    for number in first..first + BATCH {
        stage.put(number, 7);
    }
    for number in first..first + BATCH {
        loop {
            let mut call = stage.spawn("archive-wal", &[&format!("pg_wal/{}", segment_name(number))]);
            let patience = Duration::from_micros(random.random_range(0..60_000));
            let begin = Instant::now();
            let (whom, mut fired) = (random.random_range(0..3), false);
            let status = loop {
                if let Some(status) = call.try_wait().unwrap() {
                    break status;
                }
                if !fired && begin.elapsed() > patience {
                    fired = true;
                    if whom == 0 {
                        kill(i32::try_from(call.id()).unwrap());
                        kills += 1;
                    }
                    for helper in stage.helpers().into_iter().filter(|_| whom == 1) {
                        kill(helper);
                        kills += 1;
                    }
                }
                std::thread::sleep(Duration::from_micros(200));
            };
            if status.success() {
                break;
            }
            assert_eq!(status.code(), None, "only a killed call fails");
        }
        assert!(stage.is_archived(number, 7), "{number} was acknowledged");
        stage.note_done(number);
    }
    kills
}

fn fire(stage: &Stage, rounds: u64) {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut kills, mut round) = (0, 0);
    // On a fast machine most calls end before they are killed.
    while round < rounds || kills < rounds {
        assert!(round < 100 * rounds, "{kills} kills");
        kills += archive_under_fire(stage, 1 + round * BATCH, &mut random);
        round += 1;
    }
    println!("{kills} kills among {} acknowledged segments", round * BATCH);
    // A name that was acknowledged takes nothing else.
    stage.put(1, 8);
    assert_eq!(stage.push(1).code, 4);
}

#[test]
fn nothing_is_acknowledged_that_is_absent_from_a_directory() {
    fire(&Stage::new(), rounds(4, 60));
}

#[test]
fn nothing_is_acknowledged_that_is_absent_from_a_bucket() {
    let bucket = Bucket::start();
    fire(&bucket.stage(), rounds(3, 40));
}
