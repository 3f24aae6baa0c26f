//! Several sessions commit, roll back and prepare transactions at once; recovery to a random moment brings back exactly
//! what PostgreSQL's own `pg_waldump` says was committed by then.
//!
//! 4 recoveries, or 110 of PostgreSQL 15 and 17 each with `BACKSTAY_SOAK` in the environment.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod cluster;
mod restored;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use backstay_postgres_ops::cluster_restore::Outcome;
use backstay_postgres_ops::recovery::RecoveryTarget;
use backstay_testkit::{PostgresInstall, PostgresOptions};
use cluster::Cluster;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use restored::{Restored, archive_all, request};

const SESSIONS: u32 = 4;

/// What one record of the log says of a transaction, or the name of a restore point.
#[derive(Clone, Debug)]
enum Fate {
    Committed(u64),
    Aborted(u64),
    Named(String),
}

/// A record that ends a transaction or makes a restore point.
#[derive(Clone, Debug)]
struct Record {
    lsn: String,
    /// As `pg_waldump` prints it, in UTC; these compare as text. Restore points have none here.
    time: Option<String>,
    fate: Fate,
}

/// A script for psql: transactions that end in every way there is.
fn script(random: &mut StdRng, session: u32, transactions: u32) -> String {
    let mut sql = String::new();
    for number in 0..transactions {
        let _ = writeln!(sql, "BEGIN; SELECT pg_current_xact_id();");
        let insert = format!("INSERT INTO done VALUES ({session}, {number}, pg_current_xact_id())");
        match random.random_range(0..6) {
            0 => _ = writeln!(sql, "{insert}; ROLLBACK;"),
            1 => {
                let undone = format!("UPDATE done SET n = -1 WHERE session = {session}");
                let _ = writeln!(sql, "SAVEPOINT s; {undone}; ROLLBACK TO s; {insert}; COMMIT;");
            }
            kind @ (2 | 3) => {
                let end = if kind == 2 { "COMMIT" } else { "ROLLBACK" };
                let name = format!("'prepared {session} {number}'");
                let _ = writeln!(
                    sql,
                    "{insert}; PREPARE TRANSACTION {name}; SELECT pg_sleep(0.003); {end} PREPARED {name};"
                );
            }
            _ => _ = writeln!(sql, "SAVEPOINT s; {insert}; RELEASE s; COMMIT;"),
        }
        if random.random_range(0..8) == 0 {
            let _ = writeln!(sql, "SELECT pg_create_restore_point('point {session} {number}');");
        }
        let _ = writeln!(sql, "SELECT pg_sleep({});", f64::from(random.random_range(0..5)) / 1000.0);
    }
    sql
}

fn session(cluster: &Cluster, script: &str) -> Child {
    let mut psql = cluster.postgres.client("psql").unwrap();
    psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", "-"]);
    let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    child
}

/// Runs the load to its end and archives it.
async fn load(cluster: &Cluster, random: &mut StdRng) {
    cluster.psql("CREATE TABLE done (session int, n int, xid xid8)");
    cluster.back_up(&cluster.options()).await.unwrap();
    let scripts: Vec<String> = (0..SESSIONS).map(|number| script(random, number, 60)).collect();
    let mut sessions: Vec<Child> = scripts.iter().map(|script| session(cluster, script)).collect();
    cluster.psql("SELECT pg_switch_wal(), pg_sleep(0.1)");
    for child in &mut sessions {
        assert!(child.wait().unwrap().success());
    }
    archive_all(cluster).await;
}

/// The text behind a word of a line, up to the next comma or blank.
fn word<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    let rest = line.split_once(before)?.1.trim_start();
    rest.split([',', ' ', ';', ':']).next()
}

/// `2026-11-23 10:00:00.123456 UTC` out of the description of an end.
fn time_of(line: &str) -> Option<String> {
    let (before, _) = line.split_once(" UTC")?;
    Some(before[before.len() - 26..].to_owned())
}

fn record(line: &str) -> Option<Record> {
    let lsn = word(line, "lsn:")?.to_owned();
    let description = line.split_once("desc: ")?.1;
    let (what, rest) = description.split_once(' ')?;
    let xid = || match what.ends_with("_PREPARED") {
        true => rest.split(':').next()?.trim().parse().ok(),
        false => word(line, "tx:")?.parse().ok(),
    };
    let fate = match what {
        "COMMIT" | "COMMIT_PREPARED" => Fate::Committed(xid()?),
        "ABORT" | "ABORT_PREPARED" => Fate::Aborted(xid()?),
        "RESTORE_POINT" => Fate::Named(rest.trim().to_owned()),
        _ => return None,
    };
    Some(Record { lsn, time: time_of(line), fate })
}

/// What PostgreSQL's own reader finds in the archived log, in the order of the log.
fn records(cluster: &Cluster) -> Vec<Record> {
    let folder = cluster.postgres.scratch().path().join("wal");
    let is_segment = |name: &String| name.len() == 24 && Path::new(name).extension().is_none();
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let segments: BTreeSet<String> = entries.filter(is_segment).collect();
    let mut dump = Command::new(cluster.postgres.install().program("pg_waldump").unwrap());
    dump.arg("-p").arg(&folder).arg(segments.first().unwrap()).arg(segments.last().unwrap());
    let output = dump.env("TZ", "UTC").env("LC_ALL", "C").output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().filter_map(record).collect()
}

fn committed(records: &[Record]) -> BTreeSet<u64> {
    let xid = |record: &Record| match record.fate {
        Fate::Committed(xid) => Some(xid),
        Fate::Aborted(_) | Fate::Named(_) => None,
    };
    records.iter().filter_map(xid).collect()
}

/// A target, and what the log says is committed when recovery stops there.
fn random_target(
    random: &mut StdRng,
    records: &[Record],
    first: usize,
) -> (&'static str, RecoveryTarget, BTreeSet<u64>) {
    let at = random.random_range(first..records.len());
    let (record, inclusive) = (&records[at], random.random::<bool>());
    let until = |end: usize| committed(&records[..end]);
    let through = if inclusive { at + 1 } else { at };
    match (&record.fate, random.random_range(0..3)) {
        (Fate::Named(name), _) => ("name", RecoveryTarget::name(name).unwrap(), until(at + 1)),
        (_, 0) => ("LSN", RecoveryTarget::lsn(&record.lsn, inclusive).unwrap(), until(through)),
        (Fate::Committed(xid) | Fate::Aborted(xid), 1) => {
            ("xid", RecoveryTarget::xid(&xid.to_string(), inclusive).unwrap(), until(through))
        }
        _ => {
            let time = record.time.as_deref().unwrap();
            // PostgreSQL stops before the first end, of a commit or an abort, that is later.
            let later = |end: &Record| {
                end.time.as_deref().is_some_and(|other| if inclusive { other > time } else { other >= time })
            };
            // Without one, nothing in the log says that the moment has passed.
            let Some(end) = records.iter().position(later) else {
                return random_target(random, records, first);
            };
            let text = format!("{}Z", time.replace(' ', "T"));
            ("time", RecoveryTarget::time(&text, inclusive).unwrap(), until(end))
        }
    }
}

fn found(place: &Restored<'_>) -> BTreeSet<u64> {
    let rows = place.psql("postgres", "SELECT xid FROM done");
    rows.lines().map(|xid| xid.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_several_sessions_committed_by_a_moment_comes_back_and_nothing_else() {
    let soak = std::env::var_os("BACKSTAY_SOAK").is_some();
    let mut exact = BTreeMap::<&str, u32>::new();
    for (seed, major) in if soak { vec![(11, 15), (12, 17)] } else { vec![(13, 15)] } {
        let install = PostgresInstall::find(major).unwrap();
        let options = PostgresOptions::default().install(&install);
        let cluster = Cluster::start(options.setting("max_prepared_transactions", "20")).await;
        let mut random = StdRng::seed_from_u64(seed);
        load(&cluster, &mut random).await;
        let records = records(&cluster);
        let live: BTreeSet<u64> =
            cluster.psql("SELECT xid FROM done").lines().map(|xid| xid.parse().unwrap()).collect();
        let is_live = |record: &Record| matches!(record.fate, Fate::Committed(xid) if live.contains(&xid));
        let first = records.iter().position(is_live).unwrap();
        // Whoever reads the log must agree with the server before it may judge recoveries.
        assert_eq!(&committed(&records[first..]) & &live, live);
        for number in 0..if soak { 110 } else { 4 } {
            let (kind, target, mut expected) = random_target(&mut random, &records, first);
            expected.retain(|xid| live.contains(xid));
            let place = Restored::beside(&cluster.postgres, &format!("restored-{number}"));
            let receipt = place.recover(&cluster, &request(target.clone())).await;
            let receipt = receipt.unwrap_or_else(|error| panic!("seed {seed}, {number}, {target}: {error}"));
            let context = format!("seed {seed}, {number}, {target}: {receipt:#?}");
            assert_eq!(receipt.outcome, Outcome::Exact, "{context}");
            assert_eq!(found(&place), expected, "{context}");
            *exact.entry(kind).or_default() += 1;
        }
    }
    eprintln!("recovered exactly to what several sessions had committed: {exact:?}");
}
