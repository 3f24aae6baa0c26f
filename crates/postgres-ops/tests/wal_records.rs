//! What real servers of every version on this machine write to their log, against what they and `pg_waldump` say of it.
#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use backstay_postgres_ops::wal::{Lsn, Segment, SegmentSize, Xid};
use backstay_postgres_ops::wal_records::{
    Event, LogEnd, Outcome, Progress, Record, RecordReader, RecordSpan,
};
use backstay_testkit::{PostgresInstall, PostgresOptions, StopMode, TestPostgres};

/// Ends of transactions of every form, and restore points, on a server with segments of 1 MiB.
const WORKLOAD: &str = "
    CREATE TABLE t (id int PRIMARY KEY, wide text);
    CREATE TABLE known (xid xid8, at timestamptz);
    INSERT INTO t SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 4000) n;
    SELECT pg_create_restore_point('after the load');
    BEGIN; INSERT INTO t VALUES (-1, 'prepared'); PREPARE TRANSACTION 'one';
    BEGIN; INSERT INTO t VALUES (-2, 'given up'); PREPARE TRANSACTION 'two';
    COMMIT PREPARED 'one';
    ROLLBACK PREPARED 'two';
    BEGIN; INSERT INTO t VALUES (-3, 'rolled back'); ROLLBACK;
    BEGIN; SAVEPOINT a; INSERT INTO t VALUES (-4, 'sub'); SAVEPOINT b; INSERT INTO t VALUES (-5, 'subsub');
    RELEASE a; COMMIT;
    DO $$ BEGIN
        FOR n IN 1..500 LOOP
            BEGIN INSERT INTO t VALUES (10000 + n, 'x'); EXCEPTION WHEN division_by_zero THEN NULL; END;
        END LOOP;
    END $$;
    CREATE TABLE dropped AS SELECT * FROM t;
    DROP TABLE dropped;
    BEGIN; TRUNCATE t; PREPARE TRANSACTION 'truncated'; COMMIT PREPARED 'truncated';
    BEGIN; INSERT INTO known VALUES (pg_current_xact_id(), now()); COMMIT;
    SELECT pg_create_restore_point('ümlaut');
    CHECKPOINT;
    SELECT pg_switch_wal();
    INSERT INTO t SELECT n, 'more' FROM generate_series(1, 50) n;
    BEGIN; INSERT INTO known VALUES (pg_current_xact_id(), now()); COMMIT;
";

fn server(install: &PostgresInstall) -> TestPostgres {
    let options = PostgresOptions::default()
        .install(install)
        .initdb_arg("--wal-segsize=1")
        .setting("max_prepared_transactions", "10")
        .setting("track_commit_timestamp", "on")
        .setting("wal_keep_size", "10GB")
        .setting("autovacuum", "off")
        // Large records that continue over segments: whole pages, and a message below.
        .setting("full_page_writes", "on");
    TestPostgres::start_blocking(&options).unwrap()
}

/// The segments in `pg_wal`, by name; those that were made for later are among them.
fn segments(server: &TestPostgres) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(server.data_directory().join("pg_wal")).unwrap();
    let mut paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().len() == 24);
    paths.sort();
    paths
}

/// Everything that the log says from one of its segments on.
fn read(segments: &[PathBuf]) -> (Vec<Record>, RecordSpan, LogEnd) {
    let (mut reader, mut records) = (RecordReader::new(), Vec::new());
    for path in segments {
        let segment = std::fs::read(path).unwrap();
        if let Progress::End(end) = reader.read(&segment, &mut |record| records.push(record)).unwrap() {
            return (records, reader.last().unwrap(), end);
        }
    }
    panic!("a log that was just written ends");
}

/// What `pg_waldump` prints from a position on, and where it says that the log ends.
fn waldump(server: &TestPostgres, from: Lsn) -> (Vec<String>, Lsn) {
    let program = server.install().program("pg_waldump").unwrap();
    let pg_wal = server.data_directory().join("pg_wal");
    let mut command = Command::new(program);
    command.arg("-p").arg(pg_wal).args(["-s", &from.to_string()]).env("TZ", "UTC").env("LC_ALL", "C");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let end = said.split_whitespace().filter_map(|word| word.strip_suffix(':')?.parse().ok()).next_back();
    let lines = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    (lines, end.unwrap_or_else(|| panic!("{said}")))
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let rest = line.split_once(name).unwrap().1.trim_start();
    rest.split([',', ' ', ';']).next().unwrap()
}

/// `COMMIT 734 2024-01-01 …`, as the oracle has it; `None` for records that are none of ours.
fn expected(line: &str) -> Option<(Lsn, String)> {
    let start = field(line, "lsn:").parse().unwrap();
    let description = line.split_once("desc: ").unwrap().1;
    let text = match field(line, "rmgr:") {
        "Transaction" => {
            let (what, rest) = description.split_once(' ').unwrap();
            let mut rest = rest.split(';').next().unwrap();
            let mut xid = field(line, "tx:").to_owned();
            match what {
                "COMMIT" | "ABORT" => {}
                "COMMIT_PREPARED" | "ABORT_PREPARED" => {
                    let (prepared, time) = rest.split_once(": ").unwrap();
                    (xid, rest) = (prepared.to_owned(), time);
                }
                _ => return None,
            }
            format!("{what} {xid} {}", rest.trim_end_matches(" UTC"))
        }
        "XLOG" => match description.split_once(' ').unwrap_or((description, "")) {
            ("RESTORE_POINT", name) => format!("RESTORE_POINT {name}"),
            ("SWITCH", _) => "SWITCH".to_owned(),
            ("CHECKPOINT_ONLINE" | "CHECKPOINT_SHUTDOWN", rest) => {
                format!("CHECKPOINT {} {}", field(rest, "redo"), field(rest, "tli"))
            }
            _ => return None,
        },
        _ => return None,
    };
    Some((start, text))
}

fn found(record: &Record) -> Option<(Lsn, String)> {
    let text = match &record.event {
        Event::Transaction(transaction) => {
            let prepared = if transaction.prepared { "_PREPARED" } else { "" };
            let outcome = if transaction.outcome == Outcome::Commit { "COMMIT" } else { "ABORT" };
            let at = transaction.at.strftime("%Y-%m-%d %H:%M:%S.%6f");
            format!("{outcome}{prepared} {} {at}", transaction.xid)
        }
        Event::RestorePoint { name, .. } => format!("RESTORE_POINT {name}"),
        Event::Switch => "SWITCH".to_owned(),
        Event::NewTablespace { oid, path } => format!("TABLESPACE {oid} {path}"),
        Event::Checkpoint { redo, timeline, .. } => format!("CHECKPOINT {redo} {}", timeline.number()),
        _ => return None,
    };
    Some((record.span.start, text))
}

#[test]
fn events_are_those_that_pg_waldump_prints() {
    let installs: Vec<_> =
        PostgresInstall::all().into_iter().filter(|install| install.program("pg_waldump").is_ok()).collect();
    let majors: Vec<_> = installs.iter().map(PostgresInstall::major).collect();
    assert!(
        majors.contains(&15) && majors.iter().any(|major| *major >= 17),
        "{majors:?}: run scripts/setup.sh"
    );
    for install in installs {
        let mut server = server(&install);
        let first = segments(&server)[0].file_name().unwrap().to_str().unwrap().parse::<Segment>().unwrap();
        server.psql("postgres", WORKLOAD).unwrap();
        server.psql("postgres", "SELECT pg_logical_emit_message(false, 'x', repeat('y', 3000000))").unwrap();
        server.psql("postgres", "INSERT INTO t VALUES (99999, 'last')").unwrap();
        // Nothing is written to the log any more, and nothing of it is thrown away.
        server.stop(StopMode::Immediate).unwrap();
        let (records, last, end) = read(&segments(&server));
        // An older program reads no newer log, and version 14 comes without one.
        if !install.has("pg_waldump") {
            continue;
        }
        let (lines, ends_at) = waldump(&server, first.start(SegmentSize::new(1 << 20).unwrap()));
        let wanted: Vec<_> = lines.iter().filter_map(|line| expected(line)).collect();
        let have: Vec<_> = records.iter().filter_map(found).collect();
        let different = wanted.iter().zip(&have).find(|(wanted, have)| wanted != have);
        println!("PostgreSQL {}: {} records, {} events", install.major(), lines.len(), have.len());
        assert_eq!(different, None);
        assert_eq!(wanted.len(), have.len());
        assert_eq!(last.start, field(lines.last().unwrap(), "lsn:").parse().unwrap());
        assert_eq!(end.at, ends_at, "the log ends where the server says");
        for kind in
            ["COMMIT ", "ABORT ", "COMMIT_PREPARED ", "ABORT_PREPARED ", "RESTORE_POINT ümlaut", "SWITCH"]
        {
            assert!(have.iter().any(|(_, text)| text.starts_with(kind)), "{kind}");
        }
    }
}

#[test]
fn commits_are_those_that_the_server_reports() {
    for install in PostgresInstall::all() {
        let server = server(&install);
        server.psql("postgres", WORKLOAD).unwrap();
        let sql = "SELECT xid::text::bigint, to_char(pg_xact_commit_timestamp(xid::xid) AT TIME ZONE 'UTC',
            'YYYY-MM-DD HH24:MI:SS.US') FROM known ORDER BY 1";
        let known = server.psql("postgres", sql).unwrap();
        let (records, _, _) = read(&segments(&server));
        let mut commits = BTreeMap::new();
        let mut subtransactions = 0;
        for record in &records {
            if let Event::Transaction(end) = &record.event {
                if end.outcome == Outcome::Commit {
                    commits.insert(end.xid, end.at.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string());
                }
                subtransactions = subtransactions.max(end.subtransactions.len());
            }
        }
        assert_eq!(known.lines().count(), 2);
        for line in known.lines() {
            let (xid, at) = line.split_once('|').unwrap();
            let xid: Xid = xid.parse().unwrap();
            assert_eq!(commits.get(&xid).map(String::as_str), Some(at), "PostgreSQL {}", install.major());
        }
        assert_eq!(subtransactions, 500, "PostgreSQL {}", install.major());
    }
}

#[test]
fn reading_from_any_segment_on_finds_what_follows() {
    let server = server(&PostgresInstall::system().unwrap());
    server.psql("postgres", WORKLOAD).unwrap();
    let segments = segments(&server);
    let (all, last, _) = read(&segments);
    let ends_in = segments.len().min(4);
    for first in 1..ends_in {
        let (records, same_last, _) = read(&segments[first..]);
        assert!(all.ends_with(&records), "{first}");
        assert_eq!(last, same_last);
    }
}
