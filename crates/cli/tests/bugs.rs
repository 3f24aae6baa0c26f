//! What a program with a bug leaves: its exit code, and word of it where that is configured.
#![cfg(feature = "notify")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use backstay_cli::{Arguments, Context, Exit};
use backstay_testkit::{Answer, HttpSink};
use clap::Parser;

/// Takes whatever a test program is started with.
#[derive(Debug, Parser)]
#[command(name = "backup-example", version)]
struct Args {
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    rest: Vec<String>,
}

impl Arguments for Args {}

const TEST: &str = "a_bug_is_told_as_a_failure_and_ends_as_a_bug";

/// What this program does when it is started by the test below.
fn child() -> ! {
    let code = backstay_cli::run(async |_: &Context, args: Args| {
        assert!(args.rest.is_empty(), "{} arguments are too many", args.rest.len());
        Ok(Exit::Done)
    });
    let bug = std::process::ExitCode::from(70);
    std::process::exit(if format!("{code:?}") == format!("{bug:?}") { 70 } else { 1 });
}

#[test]
fn a_bug_is_told_as_a_failure_and_ends_as_a_bug() {
    if std::env::var_os("BACKSTAY_CONFIG").is_some() {
        child();
    }
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start(|_, _| Answer::ok("")).unwrap();
    let configuration = format!(
        "[notify]\nstate = \"notices\"\n[notify.on]\nfailure = \"P1\"\n[[notify.channel]]\nname = \"hook\"\n\
         kind = \"webhook\"\nurl = \"{}\"\n",
        sink.url("/")
    );
    std::fs::write(folder.path().join("backstay.toml"), configuration).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .current_dir(folder.path())
        .env("BACKSTAY_CONFIG", "backstay.toml")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(70), "{stderr}");
    assert!(stderr.contains("error: internal error: 3 arguments are too many at "), "{stderr}");
    let told = sink.received();
    assert_eq!(told.len(), 1, "{stderr}");
    let json = told[0].json();
    assert_eq!(
        (&json["type"], &json["data"]["title"]),
        (&"backstay.task-failed".into(), &"backup-example failed".into())
    );
    let text = json["data"]["text"].as_str().unwrap();
    assert!(
        text.contains("internal error: 3 arguments are too many") && text.contains("(exit code 70)"),
        "{text}"
    );
}
