//! `send-notification` with a configuration, a state of its own and a webhook that it tells.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::clock::ManualClock;
use backstay_backup_core::config::NotifyPolicy;
use backstay_notify::channel::http::{self, Client};
use backstay_notify::channel::webhook::Webhook;
use backstay_notify::policy::Policy;
use backstay_notify::{Notifier, Setup};
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

/// The library over the same state as the program, at another time.
pub fn notifier(bench: &Bench, at: jiff::Timestamp) -> (Notifier, ManualClock) {
    let clock = ManualClock::at(at);
    let policy = Policy::new(&NotifyPolicy::default(), ["hook".to_owned()]);
    let mut setup = Setup::new(&bench.path("state"), policy, Arc::new(clock.clone()), "test");
    let client = Client::new(None, Duration::from_secs(10)).unwrap();
    let hook = Webhook::new(client, http::address(&bench.sink.url("/"), true).unwrap(), None).unwrap();
    setup.registry.channels.insert("hook".to_owned(), Arc::new(hook));
    setup.registry.per_minute.insert("hook".to_owned(), u32::MAX);
    (Notifier::open(setup).unwrap(), clock)
}
