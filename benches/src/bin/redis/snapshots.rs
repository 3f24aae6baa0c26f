//! Snapshots beside `redis-cli --rdb` and the script that saves and copies: time, bytes, memory, and what the clients of the
//! server notice.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use backstay_benches::{Bar, Better, Measured, Variant, measure_rounds, median, table, verdicts};
use backstay_testkit::{ScratchDir, TestRedis};

use crate::{Programs, data, shell};

/// What the server is by default.
const DEFAULTS: &str = "rdbcompression yes repl-diskless-sync-delay 5";
/// What makes it fast.
const FAST: &str = "rdbcompression no repl-diskless-sync-delay 0";
/// Ours, the best pipe, the script: what bars compare.
const COMPARED: usize = 3;
const MEMORY: f64 = 64.0 * 1024.0 * 1024.0;

/// The ways to take a snapshot; only those that bars compare, or all.
fn variants(server: &TestRedis, scratch: &ScratchDir, programs: &Programs, all: bool) -> Vec<Variant> {
    let cli = format!("redis-cli -p {}", server.port());
    let output = scratch.path().join("out");
    let out = output.display().to_string();
    let dump = server.data_directory().join("dump.rdb").display().to_string();
    let running = format!("{cli} INFO persistence | grep -q rdb_bgsave_in_progress:1");
    let script = format!(
        "{cli} BGSAVE; while {running}; do sleep 0.1; done; cp {dump} {out}/dump.rdb; sync {out}/dump.rdb"
    );
    let ours = |flags: &str, level: u32| {
        format!(
            "{} --no-progress --redis-url redis://127.0.0.1:{} --repository {out}/repository \
             --option compression.level={level} {flags}",
            programs.path("backup-redis"),
            server.port()
        )
    };
    let pipe =
        |level: u32| format!("{cli} --rdb - | zstd -q -{level} -o {out}/dump.zst; sync {out}/dump.zst");
    let mut variants = vec![
        ("`backup-redis --tune-server`, level 1", DEFAULTS, ours("--tune-server", 1)),
        ("`redis-cli --rdb - \\| zstd -1`, no LZF, no delay", FAST, pipe(1)),
        ("`BGSAVE`, wait, `cp`, `sync`", DEFAULTS, script),
        ("`backup-redis --tune-server`, level 3", DEFAULTS, ours("--tune-server", 3)),
        ("`redis-cli --rdb - \\| zstd -3`, no LZF, no delay", FAST, pipe(3)),
        ("`backup-redis`, level 3, the server as it is", DEFAULTS, ours("", 3)),
        (
            "`redis-cli --rdb` to a file, the server as it is",
            DEFAULTS,
            format!("{cli} --rdb {out}/dump.rdb; sync {out}/dump.rdb"),
        ),
    ];
    variants.truncate(if all { variants.len() } else { COMPARED });
    let made = variants.into_iter().map(|(name, settings, command)| Variant {
        name: name.to_owned(),
        command,
        before: format!("rm -rf {out}; mkdir -p {out}; {cli} CONFIG SET {settings} >/dev/null"),
        output: output.clone(),
    });
    made.collect()
}

fn scratch() -> ScratchDir {
    ScratchDir::create("bench", None).expect("a scratch folder")
}

fn process(server: &TestRedis) -> u32 {
    server.process().expect("it runs").pid()
}

/// Time, bytes, memory.
pub(crate) fn measure(server: &TestRedis, programs: &Programs, rounds: usize, all: bool) -> String {
    let scratch = scratch();
    let variants = variants(server, &scratch, programs, all);
    let results = measure_rounds(&variants, rounds, process(server));
    let keys = server.cli(&["DBSIZE"]).expect("it answers");
    format!("{keys} keys\n\n{}\n\n{}", table(&variants, &results, &[0, 1, 2]), verdicts(&bars(&results)))
}

/// Ours beside the best pipe (1) and the script (2).
fn bars(results: &[Vec<Measured>]) -> Vec<Bar> {
    let wall = |measured: &Measured| measured.wall.as_secs_f64();
    let ratios = |peer: usize, of: &dyn Fn(&Measured) -> f64| {
        results[0].iter().zip(&results[peer]).map(|(ours, theirs)| of(ours) / of(theirs)).collect()
    };
    let size = |measured: &Measured| amount(measured.size);
    let memory = results[0].iter().map(|ours| amount(ours.together.max(ours.peak)) / MEMORY).collect();
    vec![
        bar("snapshot, wall", "redis-cli, zstd -1, no LZF, no delay", ratios(1, &wall), 1.05, 1.0),
        bar("snapshot, wall", "BGSAVE, wait, cp", ratios(2, &wall), 0.66, 0.6),
        bar("snapshot, bytes", "BGSAVE, wait, cp", ratios(2, &size), 0.35, 0.3),
        bar("snapshot, memory", "64 MiB", memory, 1.0, 0.625),
    ]
}

fn bar(name: &str, peer: &str, ratios: Vec<f64>, wanted: f64, aim: f64) -> Bar {
    Bar { name: name.to_owned(), peer: peer.to_owned(), ratios, better: Better::Less, wanted, aim }
}

#[expect(clippy::cast_precision_loss, reason = "sizes in a ratio need three digits")]
fn amount(bytes: u64) -> f64 {
    bytes as f64
}

/// Memory of ours, for servers of very different content.
pub(crate) fn memory(programs: &Programs) -> String {
    let servers: [(&str, &dyn Fn() -> TestRedis); 3] = [
        ("1 % of the keys", &|| data::filled(1)),
        ("30 % of the keys", &|| data::filled(30)),
        ("6 values of 100 MiB, noise", &data::with_huge_values),
    ];
    let mut text =
        "| content | RDB, MB | VmHWM of the largest process, MiB | PSS of all, MiB |\n|---|---|---|---|"
            .to_owned();
    for (name, make) in servers {
        let (server, scratch) = (make(), scratch());
        let ways = variants(&server, &scratch, programs, false);
        let run = measure_rounds(&ways[..1], 1, process(&server))[0][0];
        let dump = scratch.path().join("dump.rdb");
        shell(&format!(
            "zstd -qdc $(find {} -name 'main.rdb*') >{}",
            scratch.path().display(),
            dump.display()
        ));
        let plain = backstay_benches::size(&dump);
        text.push_str(&format!(
            "\n| {name} | {:.0} | {:.1} | {:.1} |",
            amount(plain) / 1e6,
            amount(run.peak) / f64::from(1 << 20),
            amount(run.together) / f64::from(1 << 20)
        ));
    }
    text
}

/// A load that runs until it is dropped.
struct Load(Child);

impl Load {
    fn on(server: &TestRedis) -> Self {
        let mut command = Command::new("redis-benchmark");
        command.args([
            "-p",
            &server.port().to_string(),
            "-t",
            "set,get",
            "-n",
            "1000000000",
            "-r",
            "100000",
            "-d",
            "100",
        ]);
        Self(command.stdout(Stdio::null()).spawn().expect("redis-benchmark comes with redis-cli"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What 50 clients that read and write get done meanwhile.
pub(crate) fn disturbance(server: &TestRedis, programs: &Programs, rounds: usize) -> String {
    let scratch = scratch();
    let mut ways = variants(server, &scratch, programs, false);
    let alone = Variant { name: "nothing".to_owned(), command: "sleep 5".to_owned(), ..ways[0].clone() };
    ways.insert(0, alone);
    let load = Load::on(server);
    let mut rates = vec![Vec::new(); ways.len()];
    let mut walls = rates.clone();
    for _ in 0..rounds {
        for (at, way) in ways.iter().enumerate() {
            shell(&way.before);
            let (before, begun) = (commands(server), Instant::now());
            shell(&format!("{{ {}; }} >/dev/null", way.command));
            let wall = begun.elapsed().as_secs_f64();
            rates[at].push((commands(server) - before) / wall);
            walls[at].push(wall);
        }
    }
    drop(load);
    let mut text =
        "| meanwhile | wall s | commands/s | of undisturbed (rounds) |\n|---|---|---|---|".to_owned();
    for (at, way) in ways.iter().enumerate() {
        let shares: Vec<f64> = rates[at].iter().zip(&rates[0]).map(|(rate, alone)| rate / alone).collect();
        let all: Vec<String> = shares.iter().map(|share| format!("{share:.2}")).collect();
        text.push_str(&format!(
            "\n| {} | {:.2} | {:.0} | {:.3} ({}) |",
            way.name,
            median(&walls[at]),
            median(&rates[at]),
            median(&shares),
            all.join(" ")
        ));
    }
    text
}

/// Commands that the server has run so far.
fn commands(server: &TestRedis) -> f64 {
    let info = server.cli(&["INFO", "stats"]).expect("it answers");
    let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    line.and_then(|number| number.trim().parse().ok()).expect("servers count commands")
}
