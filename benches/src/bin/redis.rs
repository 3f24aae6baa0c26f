//! Snapshots of Redis beside `redis-cli --rdb` and the script that saves and copies.
//!
//! Everything ends durable (fsync). The data are sessions in JSON and hashes of ten fields; the server is the
//! distribution's. The binaries are those next to this one.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use backstay_benches::{Bar, Better, Measured, Variant, measure_rounds, table, verdicts};
use backstay_testkit::{RedisOptions, ScratchDir, TestRedis};
use clap::Parser;

/// Keys at 100 percent; a fifth of them are hashes.
const KEYS: u64 = 3_250_000;
/// What the server is by default.
const DEFAULTS: &str = "rdbcompression yes repl-diskless-sync-delay 5";
/// What makes it fast.
const FAST: &str = "rdbcompression no repl-diskless-sync-delay 0";

/// Measures snapshots of Redis; prints Markdown tables.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; every variant runs once in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Size of the data in percent of about 1 GB of memory.
    #[arg(long, default_value_t = 50)]
    percent: u64,
}

fn main() {
    let args = Args::parse();
    let server = TestRedis::start_blocking(&RedisOptions::default().password(false)).expect("Redis starts");
    fill(&server, KEYS * args.percent / 100);
    let scratch = ScratchDir::create("bench", None).expect("a scratch folder");
    let variants = variants(&server, &scratch);
    let keys = server.cli(&["DBSIZE"]).expect("it answers");
    println!("{keys} keys; {} rounds\n", args.rounds);
    let results = measure_rounds(&variants, args.rounds, server.process().expect("it runs").pid());
    println!("{}\n", table(&variants, &results, &[0, 2, 3]));
    println!("{}", verdicts(&bars(&results)));
}

fn fill(server: &TestRedis, keys: u64) {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &server.port().to_string(), "--pipe"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut pipe = command.spawn().expect("redis-cli is there");
    let mut input = std::io::BufWriter::with_capacity(1 << 20, pipe.stdin.take().expect("it was asked for"));
    for key in 0..keys {
        input.write_all(key_of(key).as_bytes()).expect("redis-cli reads");
    }
    drop(input);
    assert!(pipe.wait().expect("it is ours").success());
}

/// The command that makes one key. The same in every run.
fn key_of(number: u64) -> String {
    // The steps of a linear congruential generator: values that differ, and are not noise.
    let mixed = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let mut words = Vec::new();
    if number.is_multiple_of(5) {
        words.extend(["HSET".to_owned(), format!("cart:{number}")]);
        for field in 0..10_u64 {
            words.extend([
                format!("field{field}"),
                format!("item-{}", mixed.rotate_left(u32::try_from(field).unwrap_or(0)) % 100_000),
            ]);
        }
    } else {
        let session = format!(
            "{{\"user\":{},\"token\":\"{mixed:016x}\",\"roles\":[\"reader\",\"editor\"],\"language\":\"en\",\"seen\":{}}}",
            mixed % 1_000_000,
            1_700_000_000 + mixed % 10_000_000
        );
        words.extend(["SET".to_owned(), format!("session:{number}"), session]);
    }
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        let _ = write!(text, "${}\r\n{word}\r\n", word.len());
    }
    text
}

fn variants(server: &TestRedis, scratch: &ScratchDir) -> Vec<Variant> {
    let programs = std::env::current_exe().expect("this program has a path");
    let programs: PathBuf = programs.parent().expect("and a folder").to_path_buf();
    let cli = format!("redis-cli -p {}", server.port());
    let output = scratch.path().join("out");
    let out = output.display().to_string();
    let dump = server.data_directory().join("dump.rdb").display().to_string();
    let script = format!(
        "before=$({cli} LASTSAVE); sleep 1.1; {cli} BGSAVE; while [ $({cli} LASTSAVE) = $before ]; do sleep 0.1; done; \
         cp {dump} {out}/dump.rdb; sync {out}/dump.rdb"
    );
    let ours = |flags: &str| {
        format!(
            "{} --no-progress --redis-url redis://127.0.0.1:{} --repository {out}/repository {flags}",
            programs.join("backup-redis").display(),
            server.port()
        )
    };
    let pipe =
        |level: u32| format!("{cli} --rdb - | zstd -q -{level} -o {out}/dump.zst; sync {out}/dump.zst");
    let level = |level: u32| format!("--option compression.level={level}");
    [
        ("backup-redis --tune-server, level 1", DEFAULTS, ours(&format!("--tune-server {}", level(1)))),
        ("backup-redis --tune-server, level 3", DEFAULTS, ours(&format!("--tune-server {}", level(3)))),
        ("redis-cli --rdb - \\| zstd -1, no LZF, no delay", FAST, pipe(1)),
        ("BGSAVE, wait, cp, fsync", DEFAULTS, script),
        ("redis-cli --rdb - \\| zstd -3, no LZF, no delay", FAST, pipe(3)),
        ("backup-redis, level 3", DEFAULTS, ours(&level(3))),
        ("redis-cli --rdb file", DEFAULTS, format!("{cli} --rdb {out}/dump.rdb; sync {out}/dump.rdb")),
    ]
    .into_iter()
    .map(|(name, settings, command)| Variant {
        name: name.to_owned(),
        command,
        before: format!("rm -rf {out}; mkdir -p {out}; {cli} CONFIG SET {settings} >/dev/null"),
        output: output.clone(),
    })
    .collect()
}

/// Ours at level 1 beside the best pipe (2) and the script (3).
fn bars(results: &[Vec<Measured>]) -> Vec<Bar> {
    let wall = |measured: &Measured| measured.wall.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a ratio of sizes")]
    let size = |measured: &Measured| measured.size as f64;
    let ratios = |peer: usize, of: &dyn Fn(&Measured) -> f64| {
        results[0].iter().zip(&results[peer]).map(|(ours, theirs)| of(ours) / of(theirs)).collect()
    };
    let bar = |name: &str, peer: &str, ratios, wanted, aim| Bar {
        name: name.to_owned(),
        peer: peer.to_owned(),
        ratios,
        better: Better::Less,
        wanted,
        aim,
    };
    vec![
        bar("snapshot, wall", "redis-cli, zstd -1, no LZF, no delay", ratios(2, &wall), 1.05, 1.0),
        bar("snapshot, wall", "BGSAVE, wait, cp", ratios(3, &wall), 0.66, 0.6),
        bar("snapshot, bytes", "BGSAVE, wait, cp", ratios(3, &size), 0.35, 0.3),
    ]
}
