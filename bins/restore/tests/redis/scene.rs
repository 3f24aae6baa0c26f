//! A repository with an accident in it, and a server that is to be restored.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backstay_testkit::TestRedis;
use rand::distr::Alphanumeric;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::recorder::Recorder;
use crate::world::{World, ask, connect, digest, offset, server};

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) target: TestRedis,
    /// The data just before the accident.
    pub(crate) before: String,
}

pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with_values(3).await
    }

    /// With so many characters in each of its hundred values and in the last one, which is in the stream.
    pub(crate) async fn with_values(length: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(7);
        // Nothing that a server could compress.
        let mut value = || -> String { (0..length).map(|_| char::from(rng.sample(Alphanumeric))).collect() };
        let world = World::new().await;
        let source = server(&[]).await;
        let mut connection = connect(&source).await;
        for number in 0..100 {
            let _: redis::Value = ask(&mut connection, &format!("SET key:{number} {}", value())).await;
        }
        let recorder = Recorder::attach(&source);
        let _: redis::Value = ask(&mut connection, &format!("SET last {}", value())).await;
        let before = digest(&mut connection).await;
        let _: redis::Value = ask(&mut connection, "FLUSHALL").await;
        let _: redis::Value = ask(&mut connection, "SET after 1").await;
        world.set(&recorder).await;
        let end = offset(&mut connection).await;
        world.segments(recorder.id, recorder.start, recorder.until(end), [60, 60]).await;
        let mut target = server(&[("appendonly", "yes"), ("save", "3600 1")]).await;
        let mut old = connect(&target).await;
        let _: redis::Value = ask(&mut old, "SET mine 1").await;
        target.stop().unwrap();
        Self { world, target, before }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.target.data_directory()
    }

    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_restore-redis"));
        let folder = self.world.folder.path();
        std::fs::write(folder.join("backstay.toml"), "").unwrap();
        command
            .args(["--repository", "./repository"])
            .args(args)
            .current_dir(folder)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("BACKSTAY_CONFIG", "backstay.toml")
            .env("REDISCLI_AUTH", self.target.password().unwrap_or_default())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        let output = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    pub(crate) fn json(&self, args: &[&str]) -> (Ended, Value) {
        let ended = self.run(&[args, &["--json"]].concat());
        assert_eq!(ended.stdout.lines().count(), 1, "exactly one object: {}{}", ended.stdout, ended.stderr);
        let value = serde_json::from_str(&ended.stdout).unwrap();
        (ended, value)
    }

    pub(crate) fn configuration(&self) -> String {
        self.target.configuration().display().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.target.port())
    }
}

/// Names and contents of everything that a server may load.
pub(crate) fn loadable(data: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for name in ["appendonlydir", "dump.rdb", "appendonly.aof"] {
        let path = data.join(name);
        if path.is_dir() {
            for entry in std::fs::read_dir(&path).unwrap().flatten() {
                let below = format!("{name}/{}", entry.file_name().display());
                found.push((below, std::fs::read(entry.path()).unwrap()));
            }
        } else if path.exists() {
            found.push((name.to_owned(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}
