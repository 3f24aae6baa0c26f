//! How long a server takes to replay all segments, fetched by a tool.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use backstay_benches::processes::Burnt;
use backstay_benches::{Bar, Better, Shell, median, verdicts};
use backstay_testkit::{PostgresOptions, TestPostgres};

use crate::bench::{Bench, start_s3};
use crate::ways::{Site, Way};

/// The line of the server's log that ends a recovery.
const DONE: &str = "archive recovery complete";
const PATIENCE: Duration = Duration::from_secs(600);

/// One replay.
#[derive(Clone, Copy, Debug)]
struct Replay {
    wall: Duration,
    others: f64,
}

impl Bench {
    /// The table of replays.
    pub(crate) async fn replay(&self) -> String {
        let ways = self.replays();
        let mut results = vec![Vec::new(); ways.len()];
        for round in 0..self.rounds {
            for turn in 0..ways.len() {
                let next = (round + turn) % ways.len();
                let replay = self.replay_once(&ways[next]).await;
                // To watch; nobody reads it back.
                let seconds = replay.wall.as_secs_f64();
                let _ = writeln!(
                    io::stderr(),
                    "round {}: replay, {}: {seconds:.2} s",
                    round + 1,
                    ways[next].name
                );
                results[next].push(replay);
            }
        }
        self.replay_table(&ways, &results)
    }

    async fn replay_once(&self, way: &Way) -> Replay {
        let server = match way.s3 {
            None => None,
            Some(latency) => Some(start_s3(latency).await),
        };
        let folder = self.scratch.path().join("run");
        self.shell.folder(&folder);
        let port = server.as_ref().map(|server| server.address().port());
        let site = Site { shell: &self.shell, folder: &folder, programs: &self.programs, port };
        self.segments.play_field(&self.shell, &site.data(), true);
        site.prepare(&way.tool);
        self.fill(&site, &way.tool);
        let data = site.data();
        fs::remove_dir_all(&data).expect("the play field is ours");
        let copied = format!("cp -a {} {}", self.segments.base().display(), data.display());
        let _ = Shell::of(None).must(&copied);
        self.shell.write(&data.join("recovery.signal"), "");
        rustix::fs::sync();
        let replay = recover(&data, &site.get(&way.tool));
        if let Some(server) = server {
            server.stop().await;
        }
        replay
    }

    fn replay_table(&self, ways: &[Way], results: &[Vec<Replay>]) -> String {
        let mut text =
            "| way | replay s (min–max) | segments/s | others' CPU |\n|---|---|---|---|".to_owned();
        for (way, runs) in ways.iter().zip(results) {
            let walls: Vec<f64> = runs.iter().map(|run| run.wall.as_secs_f64()).collect();
            let count = f64::from(u32::try_from(self.segments.names().len()).expect("few"));
            let _ = write!(
                text,
                "\n| {} | {:.2} ({:.2}–{:.2}) | {:.1} | {:.2} |",
                way.name,
                median(&walls),
                walls.iter().copied().fold(f64::INFINITY, f64::min),
                walls.iter().copied().fold(0.0, f64::max),
                count / median(&walls),
                median(&runs.iter().map(|run| run.others).collect::<Vec<_>>()),
            );
        }
        let find = |name: &str| ways.iter().position(|way| way.name == name).map(|at| &results[at]);
        let pair = find("restore-wal from S3 with 50 ms").zip(find("restore-wal from disk"));
        let ratios = pair.map(|(far, near)| {
            near.iter().zip(far).map(|(near, far)| near.wall.as_secs_f64() / far.wall.as_secs_f64()).collect()
        });
        let bar = Bar {
            name: "speed of replay from S3 with 50 ms, of that from disk".to_owned(),
            peer: "restore-wal from disk".to_owned(),
            ratios: ratios.unwrap_or_default(),
            better: Better::More,
            wanted: 0.95,
            aim: 1.0,
        };
        format!("{text}\n\n{}", verdicts(&[bar]))
    }
}

/// From the start of the server to the end of its recovery.
fn recover(data: &Path, command: &str) -> Replay {
    let options = PostgresOptions::default()
        .setting("restore_command", command)
        .setting("archive_mode", "off")
        .setting("shared_buffers", "512MB")
        .setting("max_wal_size", "8GB")
        .existing(data, "unused");
    let (burnt, begin) = (Burnt::now(), Instant::now());
    let server = TestPostgres::start_blocking(&options).expect("the server recovers");
    let log = || fs::read_to_string(server.log()).unwrap_or_default();
    while !log().contains(DONE) {
        assert!(begin.elapsed() < PATIENCE, "recovery does not end: {}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let wall = begin.elapsed();
    let own = server.process().map(|process| backstay_benches::processes::cpu_of_tree(process.pid()));
    Replay { wall, others: burnt.by_others(own.unwrap_or_default(), wall) }
}
