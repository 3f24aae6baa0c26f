//! Runs the ways in turn and makes the tables.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use backstay_benches::{Bar, Better, PgBackRest, Shell, median, verdicts, wal_rus};
use backstay_testkit::s3::{Credential, Faults, S3Options, S3Server};
use backstay_testkit::{Account, ScratchDir};

use crate::Args;
use crate::archiver::{Play, Played, measure};
use crate::segments::Segments;
use crate::ways::{BUCKET, KEY, SECRET, Site, Tool, Way};

/// Everything a run needs.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) shell: Shell,
    pub(crate) scratch: ScratchDir,
    pub(crate) programs: PathBuf,
    pub(crate) segments: Segments,
    pub(crate) rounds: usize,
    only: Vec<String>,
    pgbackrest: Option<PgBackRest>,
    wal_rus: Option<PathBuf>,
}

impl Bench {
    /// Looks for the peers and makes the segments.
    pub(crate) fn open(args: &Args) -> Self {
        let account = Account::for_servers().expect("an account for servers");
        let scratch = ScratchDir::create("wal-bench", account.as_ref()).expect("a scratch folder");
        let folder = args.keep.clone().unwrap_or_else(|| scratch.path().join("segments"));
        let segments = Segments::take(&folder, args.segments);
        let program = std::env::current_exe().expect("this program has a path");
        let programs = program.parent().expect("and a folder").to_path_buf();
        let bench = Self {
            shell: Shell::of(account.as_ref()),
            scratch,
            programs,
            segments,
            rounds: args.rounds,
            only: args.only.clone(),
            pgbackrest: PgBackRest::newest(),
            wal_rus: wal_rus(),
        };
        bench.say_what_is_missing();
        bench
    }

    fn say_what_is_missing(&self) {
        let mut out = io::stderr();
        let mut missing = |there: bool, what: &str| {
            if !there {
                let _ = writeln!(out, "left out, because it is not here: {what}");
            }
        };
        missing(self.pgbackrest.is_some(), "pgBackRest (scripts/setup.sh --pgbackrest)");
        missing(self.wal_rus.is_some(), "wal-rus (scripts/setup.sh --wal-rus)");
        missing(self.has_ours(), "archive-wal and restore-wal beside this program");
    }

    pub(crate) fn has_ours(&self) -> bool {
        ["archive-wal", "restore-wal", "backstay-wal"].iter().all(|name| self.programs.join(name).is_file())
    }

    fn chosen(&self, ways: Vec<Way>) -> Vec<Way> {
        let wanted = |way: &Way| self.only.is_empty() || self.only.iter().any(|part| way.name.contains(part));
        ways.into_iter().filter(wanted).collect()
    }

    fn peers(&self, ways: &mut Vec<Way>, s3: Option<u64>) {
        if let Some(peer) = &self.pgbackrest {
            let mut add = |name: &str, codec, background, pause_ms| {
                let tool = Tool::PgBackRest { peer: peer.clone(), codec, background };
                ways.push(Way { name: format!("{} {name}", peer.name()), tool, s3, pause_ms });
            };
            add("sync, zst 3", "zst", false, 0);
            add("async with 2 processes, zst 3", "zst", true, 0);
            add("async, zst 3, a call every 200 ms", "zst", true, 200);
            if s3.is_none() {
                add("sync, lz4", "lz4", false, 0);
                add("async with 2 processes, lz4", "lz4", true, 0);
            }
        }
        if let Some(program) = &self.wal_rus {
            let name = "wal-rus, zstd 3".to_owned();
            ways.push(Way { name, tool: Tool::WalRus(program.clone()), s3, pause_ms: 0 });
        }
    }

    fn ours(&self, ways: &mut Vec<Way>, program: &str, s3: Option<u64>) {
        if !self.has_ours() {
            return;
        }
        let mut add = |name: &str, level, ahead, pause_ms| {
            let tool = Tool::Ours { level, ahead };
            ways.push(Way { name: format!("{program} {name}"), tool, s3, pause_ms });
        };
        add("one by one", 3, false, 0);
        add("ahead", 3, true, 0);
        add("ahead, a call every 200 ms", 3, true, 200);
        if s3.is_none() {
            add("one by one, zstd 1", 1, false, 0);
            add("ahead, zstd 1", 1, true, 0);
            add("ahead, zstd --fast=3", -3, true, 0);
        }
    }

    /// The table of pushes.
    pub(crate) async fn push(&self, s3: bool) -> String {
        let mut ways = Vec::new();
        let place = s3.then_some(0);
        if !s3 {
            let mut plain = |name: &str, tool| {
                ways.push(Way { name: name.to_owned(), tool, s3: None, pause_ms: 0 });
            };
            plain("an empty command", Tool::Nothing);
            plain("cp, fsync", Tool::Copy);
            plain("zstd -3, fsync", Tool::Zstd(3));
            plain("zstd -1, fsync", Tool::Zstd(1));
        }
        self.peers(&mut ways, place);
        self.ours(&mut ways, "archive-wal", place);
        if s3 {
            let slow = ways.iter().filter(|way| way.pause_ms == 0).cloned();
            let slow: Vec<Way> =
                slow.map(|way| Way { name: format!("{}, 20 ms", way.name), s3: Some(20), ..way }).collect();
            ways.extend(slow);
        }
        let ways = self.chosen(ways);
        let results = self.rounds(&ways, "push").await;
        let bars = if s3 { push_s3_bars(&ways, &results) } else { push_bars(&ways, &results) };
        format!("{}\n\n{}", table(&ways, &results), verdicts(&bars))
    }

    /// The ways whose replay is measured: ours and the peer's, from disk and from an S3 server that answers late.
    pub(crate) fn replays(&self) -> Vec<Way> {
        let mut ways = vec![Way { name: "cp from disk".to_owned(), tool: Tool::Copy, s3: None, pause_ms: 0 }];
        for s3 in [None, Some(50)] {
            let place = if s3.is_some() { "S3 with 50 ms" } else { "disk" };
            if let Some(peer) = &self.pgbackrest {
                let name = format!("{} async from {place}", peer.name());
                let tool = Tool::PgBackRest { peer: peer.clone(), codec: "zst", background: true };
                ways.push(Way { name, tool, s3, pause_ms: 0 });
            }
            if self.has_ours() {
                let tool = Tool::Ours { level: 3, ahead: true };
                ways.push(Way { name: format!("restore-wal from {place}"), tool, s3, pause_ms: 0 });
            }
        }
        self.chosen(ways)
    }

    /// The table of gets.
    pub(crate) async fn get(&self, s3: bool) -> String {
        let mut ways = Vec::new();
        let place = s3.then_some(0);
        if !s3 {
            ways.push(Way { name: "cp".to_owned(), tool: Tool::Copy, s3: None, pause_ms: 0 });
            ways.push(Way { name: "zstd -d".to_owned(), tool: Tool::Zstd(3), s3: None, pause_ms: 0 });
        }
        self.peers(&mut ways, place);
        self.ours(&mut ways, "restore-wal", place);
        ways.retain(|way| !way.name.ends_with("zstd 1") && !way.name.ends_with("zstd --fast=3"));
        let ways = self.chosen(ways);
        let results = self.rounds(&ways, "get").await;
        format!("{}\n\n{}", table(&ways, &results), verdicts(&get_bars(&ways, &results)))
    }

    async fn rounds(&self, ways: &[Way], mode: &str) -> Vec<Vec<Played>> {
        let mut results = vec![Vec::new(); ways.len()];
        for round in 0..self.rounds {
            for turn in 0..ways.len() {
                let next = (round + turn) % ways.len();
                let way = &ways[next];
                let played = self.run(way, mode).await;
                // To watch; nobody reads it back.
                let _ = writeln!(
                    io::stderr(),
                    "round {}: {mode} {}: {:.1}/s, p50 {:.0} ms, max {:.0} ms, {:.2} others",
                    round + 1,
                    way.name,
                    played.rate(),
                    played.quantile(0.5),
                    played.quantile(1.0),
                    played.others
                );
                results[next].push(played);
            }
        }
        results
    }

    async fn run(&self, way: &Way, mode: &str) -> Played {
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
        if mode == "get" {
            self.fill(&site, &way.tool);
            self.segments.play_field(&self.shell, &site.data(), false);
        }
        rustix::fs::sync();
        let command = if mode == "get" { site.get(&way.tool) } else { site.push(&way.tool) };
        let play = Play { mode: mode.to_owned(), data: site.data(), pause_ms: way.pause_ms, command };
        let repository = site.repository();
        let mut played = measure(self.shell.prefix(), &play, way.s3.is_none().then_some(&repository));
        match server {
            Some(server) => server.stop().await,
            // Then what this process did was measuring.
            None => played.server_cpu = Duration::ZERO,
        }
        played
    }

    /// Puts all segments into the repository, untimed.
    pub(crate) fn fill(&self, site: &Site<'_>, tool: &Tool) {
        let command = site.push(tool);
        let play = Play { mode: "push".to_owned(), data: site.data(), pause_ms: 0, command };
        let _ = measure(self.shell.prefix(), &play, None);
    }
}

/// A server with this latency, in milliseconds.
pub(crate) async fn start_s3(latency: u64) -> S3Server {
    let options =
        S3Options::memory().opaque_etags().bucket(BUCKET).credential(Credential::admin(KEY, SECRET));
    let server = S3Server::start(options).await.expect("the S3 server starts");
    server.faults().set(Faults::default().latency(Duration::from_millis(latency)));
    server
}

fn table(ways: &[Way], results: &[Vec<Played>]) -> String {
    let mut text =
        "| way | segments/s (min–max) | p50 ms | p95 ms | worst ms | CPU ms/segment client+server | PSS MiB \
                    | MB/segment | failed calls | others' CPU |\n\
                    |---|---|---|---|---|---|---|---|---|---|"
            .to_owned();
    for (way, runs) in ways.iter().zip(results) {
        let all = |of: &dyn Fn(&Played) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
        let calls = |run: &Played| f64::from(u32::try_from(run.calls.len()).expect("few"));
        let rates = all(&Played::rate);
        let _ = write!(
            text,
            "\n| {} | {:.1} ({:.1}–{:.1}) | {:.1} | {:.1} | {:.0} | {:.0}+{:.0} | {:.0} | {:.2} | {} | {:.2} |",
            way.name,
            median(&rates),
            rates.iter().copied().fold(f64::INFINITY, f64::min),
            rates.iter().copied().fold(0.0, f64::max),
            median(&all(&|run| run.quantile(0.5))),
            median(&all(&|run| run.quantile(0.95))),
            median(&all(&|run| run.quantile(1.0))),
            median(&all(&|run| run.cpu.as_secs_f64() * 1e3 / calls(run))),
            median(&all(&|run| run.server_cpu.as_secs_f64() * 1e3 / calls(run))),
            mebibytes(runs.iter().map(|run| run.memory).max().unwrap_or(0)),
            median(&all(&|run| mebibytes(run.stored) * 1.048_576 / calls(run))),
            runs.iter().map(|run| run.failed).sum::<u32>(),
            median(&all(&|run| run.others)),
        );
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "sizes in a table need three digits")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Ratios of one figure of ours to the best of some peers, round by round.
struct Compare<'a> {
    ways: &'a [Way],
    results: &'a [Vec<Played>],
}

impl Compare<'_> {
    fn runs(&self, name: &str) -> Option<&[Played]> {
        let found = self.ways.iter().position(|way| way.name.ends_with(name))?;
        Some(&self.results[found])
    }

    fn bar(
        &self,
        name: &str,
        (ours, peers): (&str, &[&str]),
        of: impl Fn(&Played) -> f64,
        (better, wanted, aim): (Better, f64, f64),
    ) -> Bar {
        let value = |runs: &[Played]| median(&runs.iter().map(&of).collect::<Vec<_>>());
        let peers = peers.iter().filter_map(|peer| Some((*peer, self.runs(peer)?)));
        let best = peers.max_by(|(_, one), (_, other)| match better {
            Better::More => value(one).total_cmp(&value(other)),
            Better::Less => value(other).total_cmp(&value(one)),
        });
        let ours = self.runs(ours);
        let ratios = ours.zip(best).map(|(ours, (_, theirs))| {
            ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect()
        });
        let peer = best.map_or("none", |(peer, _)| peer).to_owned();
        Bar { name: name.to_owned(), peer, ratios: ratios.unwrap_or_default(), better, wanted, aim }
    }
}

const SYNC: &str = "sync, zst 3";
const ASYNC: &str = "async with 2 processes, zst 3";
const PACED: &str = "async, zst 3, a call every 200 ms";
const WAL_RUS: &str = "wal-rus, zstd 3";

fn p50(run: &Played) -> f64 {
    run.quantile(0.5)
}

fn worst(run: &Played) -> f64 {
    run.quantile(1.0)
}

fn push_bars(ways: &[Way], results: &[Vec<Played>]) -> Vec<Bar> {
    let compare = Compare { ways, results };
    let lz4 = ["async with 2 processes, lz4"];
    let paced = "archive-wal ahead, a call every 200 ms";
    vec![
        compare.bar(
            "push, one command, p50",
            ("archive-wal one by one", &[SYNC, WAL_RUS]),
            p50,
            (Better::Less, 0.9, 0.8),
        ),
        compare.bar(
            "push, sustained, zstd 3",
            ("archive-wal ahead", &[ASYNC]),
            Played::rate,
            (Better::More, 1.05, 1.15),
        ),
        compare.bar(
            "push, sustained, zstd --fast=3 to lz4",
            ("archive-wal ahead, zstd --fast=3", &lz4),
            Played::rate,
            (Better::More, 1.2, 1.4),
        ),
        compare.bar("push, pushed ahead already, p50", (paced, &[ASYNC]), p50, (Better::Less, 0.3, 0.1)),
        compare.bar(
            "push, pushed ahead already, p50, the peer too",
            (paced, &[PACED]),
            p50,
            (Better::Less, 0.3, 0.1),
        ),
        compare.bar("push, worst call", ("archive-wal ahead", &[ASYNC]), worst, (Better::Less, 0.7, 0.5)),
    ]
}

fn push_s3_bars(ways: &[Way], results: &[Vec<Played>]) -> Vec<Bar> {
    let compare = Compare { ways, results };
    let (alone, slow) = ("archive-wal one by one", "archive-wal ahead, 20 ms");
    vec![
        compare.bar("push to S3, one command, p50", (alone, &[SYNC, WAL_RUS]), p50, (Better::Less, 0.8, 0.6)),
        compare.bar(
            "push to S3, sustained, 20 ms, of ours without",
            (slow, &["archive-wal ahead"]),
            Played::rate,
            (Better::More, 0.9, 0.95),
        ),
        compare.bar(
            "push to S3, sustained, 20 ms",
            (slow, &["async with 2 processes, zst 3, 20 ms"]),
            Played::rate,
            (Better::More, 1.05, 1.15),
        ),
    ]
}

fn get_bars(ways: &[Way], results: &[Vec<Played>]) -> Vec<Bar> {
    let compare = Compare { ways, results };
    let paced = "restore-wal ahead, a call every 200 ms";
    vec![
        compare.bar(
            "get, sustained",
            ("restore-wal ahead", &[ASYNC, SYNC]),
            Played::rate,
            (Better::More, 1.3, 1.8),
        ),
        compare.bar("get, prefetched, p50", (paced, &[ASYNC]), p50, (Better::Less, 0.4, 0.2)),
        compare.bar("get, prefetched, p50, the peer too", (paced, &[PACED]), p50, (Better::Less, 0.4, 0.2)),
    ]
}
