//! Starting, stopping and losing PostgreSQL servers.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::HashSet;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backstay_testkit::{Error, PostgresInstall, PostgresOptions, StopMode, TestPostgres};

fn listening(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[tokio::test]
async fn a_server_answers_and_is_gone_after_its_handle() {
    let server = TestPostgres::start(PostgresOptions::default()).await.unwrap();
    assert_eq!(server.psql("postgres", "SELECT 6 * 7; SELECT 'a', NULL, 'b'").unwrap(), "42\na||b");
    let (port, scratch) = (server.port(), server.scratch().path().to_owned());
    let pid = server.process().unwrap().pid();
    drop(server);
    assert!(!listening(port));
    assert!(!scratch.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn four_servers_start_at_once_and_differ_in_everything_that_identifies_them() {
    let servers = tokio::join!(start_default(), start_default(), start_default(), start_default());
    let servers = [servers.0, servers.1, servers.2, servers.3];
    let identifier = "SELECT system_identifier FROM pg_control_system()";
    let distinct =
        |fact: &dyn Fn(&TestPostgres) -> String| servers.iter().map(fact).collect::<HashSet<_>>().len();
    assert_eq!(distinct(&|server| server.psql("postgres", identifier).unwrap()), 4);
    assert_eq!(distinct(&|server| server.password().to_owned()), 4);
    assert_eq!(distinct(&|server| server.port().to_string()), 4);
}

async fn start_default() -> TestPostgres {
    TestPostgres::start(PostgresOptions::default()).await.unwrap()
}

#[test]
fn every_installed_version_starts() {
    let installs = PostgresInstall::all();
    assert!(!installs.is_empty());
    for install in installs {
        let server = TestPostgres::start_blocking(&PostgresOptions::default().install(&install)).unwrap();
        let version = server.psql("postgres", "SHOW server_version_num").unwrap();
        assert_eq!(version.parse::<u32>().unwrap() / 10_000, install.major());
        assert_eq!(server.psql("postgres", "SHOW data_checksums").unwrap(), "on");
        println!("PostgreSQL {} starts: {}", install.major(), install.version().unwrap());
    }
}

#[test]
fn options_reach_the_server() {
    let options = PostgresOptions::default()
        .setting("wal_level", "logical")
        .setting("search_path", "\"it's\", public")
        .locale("C", "LATIN1")
        .data_checksums(false)
        .fsync(true)
        .initdb_arg("--wal-segsize=1");
    let server = TestPostgres::start_blocking(&options).unwrap();
    let shown = "SHOW wal_level; SHOW search_path; SHOW server_encoding; SHOW data_checksums; SHOW fsync; SHOW wal_segment_size;
        SELECT datcollate FROM pg_database WHERE datname = 'template1'";
    assert_eq!(server.psql("postgres", shown).unwrap(), "logical\n\"it's\", public\nLATIN1\noff\non\n1MB\nC");
}

#[test]
fn a_wrong_password_is_refused_and_the_passfile_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
    let mode = std::fs::metadata(server.passfile()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let url = server.url("postgres").replace(server.password(), "changed-before-use");
    let output = server.client("psql").unwrap().arg(url).args(["-c", "SELECT 1"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("password authentication failed"));
    let url = server.url("postgres");
    let output = server
        .client("psql")
        .unwrap()
        .env_remove("PGPASSFILE")
        .arg(url)
        .args(["-c", "SELECT 1"])
        .output()
        .unwrap();
    assert!(output.status.success());
}

#[test]
fn data_survive_stops_and_kills() {
    let mut server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
    let name = "we\"ird \n näme";
    server.create_database(name).unwrap();
    server.psql(name, "CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 1000)").unwrap();
    let port = server.port();
    server.stop(StopMode::Fast).unwrap();
    assert!(!listening(port) && !server.is_running());
    server.restart().unwrap();
    server.stop(StopMode::Immediate).unwrap();
    server.restart().unwrap();
    server.kill9();
    assert!(!listening(port) && !server.is_running());
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    assert_eq!(server.psql(name, "SELECT count(*) FROM t").unwrap(), "1000");
}

#[test]
fn a_killed_server_leaves_no_process_and_no_shared_memory() {
    let mut server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
    let mut client = server.client("psql").unwrap();
    let busy = "SELECT pg_backend_pid(); SELECT count(*) FROM generate_series(1, 100000000000::bigint)";
    let mut session = client
        .args(["-d", "postgres", "-c", busy])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let active = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()";
    let pid = wait_for(|| Some(server.psql("postgres", active).unwrap()).filter(|pid| !pid.is_empty()));
    let pid_file = std::fs::read_to_string(server.data_directory().join("postmaster.pid")).unwrap();
    let segment = pid_file.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    assert!(segments().contains(&segment));
    server.kill9();
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(status.is_empty() || status.contains(") Z "), "a backend outlived the kill: {status}");
    assert!(!session.wait().unwrap().success());
    drop(server);
    assert!(!segments().contains(&segment), "the segment is still there");
}

#[test]
fn a_frozen_server_is_taken_down_too() {
    let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
    let scratch = server.scratch().path().to_owned();
    server.process().unwrap().freeze();
    drop(server);
    assert!(!scratch.exists());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let refused = TestPostgres::start_blocking(&PostgresOptions::default().setting("no_such_setting", "1"));
    let Err(Error::NotStarted { log, .. }) = refused else { panic!("started: {refused:?}") };
    assert!(log.contains("no_such_setting"), "{log}");
    let refused = TestPostgres::start_blocking(&PostgresOptions::default().locale("xx_XX", "UTF8"));
    let Err(Error::Program { program, output, .. }) = refused else { panic!("started: {refused:?}") };
    assert!(["initdb", "setpriv"].contains(&program.as_str()), "{program}");
    assert!(output.contains("locale"), "{output}");
}

#[test]
fn a_missing_version_names_the_command_that_gets_it() {
    let error = PostgresInstall::find(9).unwrap_err();
    assert_eq!(error.to_string(), "PostgreSQL 9 is not installed; run: scripts/setup.sh --postgres 9");
}

#[test]
fn a_failing_statement_is_an_error_with_the_servers_words() {
    let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
    let error = server.psql("postgres", "SELECT 1; SELECT 1/0; SELECT 2").unwrap_err().to_string();
    assert!(error.contains("division by zero"), "{error}");
}

#[test]
fn an_existing_data_directory_runs_under_a_new_server() {
    let mut first = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
    first.psql("postgres", "CREATE TABLE kept AS SELECT 7 AS seven").unwrap();
    first.stop(StopMode::Fast).unwrap();
    let options = PostgresOptions::default().existing(first.data_directory(), first.password());
    let second = TestPostgres::start_blocking(&options).unwrap();
    assert_ne!(second.port(), first.port());
    assert_eq!(second.psql("postgres", "SELECT seven FROM kept").unwrap(), "7");
}

/// The ids of this machine's shared memory segments.
fn segments() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    table.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}
