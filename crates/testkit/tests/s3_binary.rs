//! The server as a program: what it prints, how it ends, what survives, and whether a stock client likes it.

#![allow(clippy::unwrap_used, missing_docs)]

mod s3_client;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use backstay_testkit::s3::moto_server;
use s3_client::*;

/// Kills the program it holds.
struct Program {
    child: Child,
    endpoint: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_s3-server"))
            .args(["--access-key", ADMIN.0, "--secret-key", ADMIN.1, "--bucket", BUCKET])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["pid"], child.id());
        Self { endpoint: line["endpoint"].as_str().unwrap().to_owned(), child }
    }

    fn client(&self) -> Client {
        Client::from_conf(config(&self.endpoint, ADMIN).build())
    }

    fn signal(&mut self, name: &str) -> ExitStatus {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap()
    }
}

#[tokio::test]
async fn it_ends_cleanly_on_sigterm_and_sigint() {
    for name in ["TERM", "INT"] {
        let mut program = Program::start(&["--latency-ms", "1"]);
        let client = program.client();
        put(&client, "k", "x").await;
        // The client still holds its connection open.
        let status = tokio::task::spawn_blocking(move || program.signal(name)).await.unwrap();
        assert_eq!(status.code(), Some(0), "{name}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--dir", folder.path().to_str().unwrap(), "--object-lock"];
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let mut program = Program::start(&arguments);
        let client = program.client();
        let written = Arc::new(AtomicUsize::new(0));
        let writers = (0..4).map(|writer| {
            let (client, written) = (client.clone(), Arc::clone(&written));
            tokio::spawn(async move {
                let mut done = Vec::new();
                for n in 0.. {
                    let key = format!("{round}/{writer}/{n}");
                    let body = noise(100_000 + n);
                    let create = client.put_object().bucket(BUCKET).key(&key).if_none_match("*");
                    if create.body(ByteStream::from(body)).send().await.is_err() {
                        break;
                    }
                    written.fetch_add(1, Ordering::Relaxed);
                    done.push((key, 100_000 + n));
                }
                done
            })
        });
        let writers: Vec<_> = writers.collect();
        // Meanwhile further writes are under way, each somewhere else.
        let enough = async {
            while written.load(Ordering::Relaxed) < 10 + 3 * round {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), enough).await.unwrap();
        tokio::task::spawn_blocking(move || program.signal("KILL")).await.unwrap();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
    }
    assert!(acknowledged.len() >= 4 * 10, "only {} writes", acknowledged.len());
    let program = Program::start(&arguments);
    let client = program.client();
    for (key, len) in &acknowledged {
        assert!(read(&client, key).await == noise(*len), "{key}");
    }
    // The rest is at most the one write each writer had under way, whole or not at all.
    let mut pages = client.list_objects_v2().bucket(BUCKET).into_paginator().send();
    let mut listed = 0;
    while let Some(page) = pages.next().await {
        listed += page.unwrap().contents().len();
    }
    assert!((acknowledged.len()..=acknowledged.len() + 16).contains(&listed), "{listed}");
}

#[test]
fn bad_arguments_end_with_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (arguments, expected) in [
        (["--listen", address.as_str()], "error: cannot listen on"),
        (["--bucket", "No_Bucket"], "error: `No_Bucket` is not a bucket name"),
        (["--dir", "/dev/null/x"], "error: cannot use /dev/null/x/data"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_s3-server")).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.starts_with(expected) && text.lines().count() == 1, "{text}");
    }
}

/// s5cmd comes with the comparison server; it signs, lists and splits in its own way.
#[test]
fn a_stock_client_round_trips() {
    let server = moto_server().unwrap_or_else(|missing| panic!("{missing}"));
    let s5cmd = server.with_file_name("s5cmd");
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(&["--dir", folder.path().join("store").to_str().unwrap()]);
    let run = |arguments: &[&str]| run(&s5cmd, &program.endpoint, arguments);
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let body = noise(21_000_000);
    std::fs::write(path("up"), &body).unwrap();
    run(&[
        "cp",
        "--part-size",
        "5",
        "--concurrency",
        "4",
        path("up").to_str().unwrap(),
        "s3://bucket/dir/big file",
    ]);
    run(&[
        "cp",
        "--part-size",
        "5",
        "--concurrency",
        "4",
        "s3://bucket/dir/big file",
        path("down").to_str().unwrap(),
    ]);
    assert!(std::fs::read(path("down")).unwrap() == body);
    assert!(run(&["ls", "s3://bucket/dir/*"]).contains("21000000"));
    run(&["rm", "s3://bucket/dir/*"]);
    assert!(!run(&["ls", "s3://bucket/"]).contains("dir"));
}

fn run(s5cmd: &Path, endpoint: &str, arguments: &[&str]) -> String {
    let output = Command::new(s5cmd)
        .args(["--endpoint-url", endpoint])
        .args(arguments)
        .env("AWS_ACCESS_KEY_ID", ADMIN.0)
        .env("AWS_SECRET_ACCESS_KEY", ADMIN.1)
        .env("AWS_REGION", "us-east-1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
