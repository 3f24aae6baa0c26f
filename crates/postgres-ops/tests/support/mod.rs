//! What the tests against a real PostgreSQL share.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use backstay_postgres_ops::{ArchiveFacts, ArchiveScanner, RowFacts, ScanOptions};

pub(crate) mod server;
pub(crate) use server::Server;

/// Runs a program to its end, with bytes on its standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that ends early closes its input; its exit says why.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().unwrap()
    })
}

/// Like [`run`], for a program that must succeed; gives its standard output.
pub(crate) fn succeed(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let output = run(command, input);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Dumps a database down a pipe.
pub(crate) fn dump(server: &Server, database: &str, arguments: &[&str]) -> Vec<u8> {
    let mut command = server.client("pg_dump");
    succeed(command.args(["-Fc", "--dbname", database]).args(arguments), b"")
}

/// Scans an archive in pieces of that length, with digests.
pub(crate) fn scan(archive: &[u8], piece: usize) -> ArchiveFacts {
    let mut scanner = ArchiveScanner::new(ScanOptions::default().digests(true));
    archive.chunks(piece).for_each(|piece| scanner.push(piece).unwrap());
    scanner.finish().unwrap()
}

/// COPY text of a table as the server gives it.
pub(crate) fn copy_out(server: &Server, database: &str, sql: &str) -> Vec<u8> {
    let mut command = server.client("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database]);
    succeed(&mut command, format!("{sql};\n").as_bytes())
}

/// Facts of COPY text that has no end marker.
pub(crate) fn row_facts(text: &[u8]) -> RowFacts {
    let mut rows = backstay_postgres_ops::CopyRows::digesting();
    rows.push(text);
    rows.finish().unwrap()
}
