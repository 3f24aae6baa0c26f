//! `send-notification` with a configuration, a state of its own and a webhook that it tells.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use backstay_testkit::{Answer, HttpSink};
use serde_json::Value;

pub struct Bench {
    pub directory: tempfile::TempDir,
    pub sink: HttpSink,
}

impl Bench {
    pub fn new(more: &str) -> Self {
        let bench = Self {
            directory: tempfile::tempdir().unwrap(),
            sink: HttpSink::start(|_, _| Answer::ok("")).unwrap(),
        };
        let file = format!(
            "[notify]\nstate = \"state\"\n{more}\n[[notify.channel]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"{}\"\n",
            bench.sink.url("/secret-path-of-hook")
        );
        std::fs::write(bench.path("backstay.toml"), file).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_send-notification"));
        command.args(arguments).arg("--config").arg(self.path("backstay.toml"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("USER", "ada")
            .env("HOME", self.directory.path());
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        ended(self.command(arguments).output().unwrap())
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    pub fn kinds(&self) -> Vec<String> {
        let kind = |request: &backstay_testkit::Received| {
            request.json()["type"].as_str().unwrap_or_default().replace("backstay.", "")
        };
        self.sink.received().iter().map(kind).collect()
    }
}

pub fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
