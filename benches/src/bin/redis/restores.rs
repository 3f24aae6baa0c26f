//! Restores beside what the server needs alone to load the same file.

use std::path::{Path, PathBuf};

use backstay_benches::{Bar, Better, Measured, Variant, measure_rounds, table, verdicts};
use backstay_testkit::{PortLease, ScratchDir, TestRedis};

use crate::{Programs, shell};

/// The server that is restored; it ends with this.
struct Target {
    scratch: ScratchDir,
    port: PortLease,
}

impl Target {
    fn new() -> Self {
        let target = Self {
            scratch: ScratchDir::create("bench", None).expect("a scratch folder"),
            port: PortLease::reserve().expect("a free port"),
        };
        let lines = format!(
            "bind 127.0.0.1\nport {}\ndir {}\nsave \"\"\ndaemonize yes\npidfile {}\nlogfile /dev/null\n",
            target.port.port(),
            target.data().display(),
            target.path("pid").display()
        );
        std::fs::create_dir_all(target.data()).expect("a folder");
        std::fs::write(target.configuration(), lines).expect("a configuration");
        target
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn configuration(&self) -> PathBuf {
        self.path("redis.conf")
    }

    /// Lines that start it and wait until it has loaded.
    fn start(&self) -> String {
        format!(
            "redis-server {}; until redis-cli -p {} PING 2>&1 | grep -q PONG; do sleep 0.02; done",
            self.configuration().display(),
            self.port.port()
        )
    }

    /// Lines that end it, if it runs, and empty its folder.
    fn reset(&self) -> String {
        let (pid, data) = (self.path("pid").display().to_string(), self.data().display().to_string());
        format!(
            "if [ -s {pid} ]; then p=$(cat {pid}); kill -9 $p || true; while kill -0 $p; do sleep 0.05; done 2>/dev/null; fi; \
             rm -rf {pid} {data}; mkdir {data}"
        )
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        shell(&self.reset());
    }
}

pub(crate) fn measure(server: &TestRedis, programs: &Programs, rounds: usize) -> String {
    let target = Target::new();
    let repository = target.path("repository");
    shell(&format!(
        "{} --no-progress --redis-url redis://127.0.0.1:{} --repository {} --tune-server >/dev/null",
        programs.path("backup-redis"),
        server.port(),
        repository.display()
    ));
    let dump = target.path("dump.rdb");
    let stored = format!("$(find {} -name 'main.rdb*')", repository.display());
    shell(&format!("zstd -qd {stored} -o {}; sync", dump.display()));
    let variants = variants(&target, programs, &repository, &dump, &stored);
    let results = measure_rounds(&variants, rounds, server.process().expect("it runs").pid());
    let ratios = |peer: usize| {
        let wall = |measured: &Measured| measured.wall.as_secs_f64();
        results[0].iter().zip(&results[peer]).map(|(ours, theirs)| wall(ours) / wall(theirs)).collect()
    };
    let bar = |peer: usize, wanted, aim| Bar {
        name: "restore, wall".to_owned(),
        peer: variants[peer].name.clone(),
        ratios: ratios(peer),
        better: Better::Less,
        wanted,
        aim,
    };
    let bars = [bar(1, 1.2, 1.1), bar(2, 1.0, 0.9)];
    format!("{}\n\n{}", table(&variants, &results, &[1]), verdicts(&bars))
}

fn variants(
    target: &Target,
    programs: &Programs,
    repository: &Path,
    dump: &Path,
    stored: &str,
) -> Vec<Variant> {
    let (data, dump) = (target.data().display().to_string(), dump.display().to_string());
    let configuration = target.configuration().display().to_string();
    let ours = format!(
        "{} --no-progress --repository {} --config-file {configuration} --no-proof --start-command 'redis-server {configuration}' \
         --redis-url redis://127.0.0.1:{}",
        programs.path("restore-redis"),
        repository.display(),
        target.port.port()
    );
    let reset = target.reset();
    let variant = |name: &str, before: String, command: String| Variant {
        name: name.to_owned(),
        before,
        command,
        output: target.data(),
    };
    vec![
        variant(
            "`restore-redis`: fetched, checked, synced, swapped, started, loaded, compared",
            reset.clone(),
            ours,
        ),
        variant(
            "the server alone: its file is there, started, loaded",
            format!("{reset}; cp {dump} {data}/dump.rdb"),
            target.start(),
        ),
        variant(
            "`zstd -d`, `sync`, started, loaded",
            reset.clone(),
            format!("zstd -qd {stored} -o {data}/dump.rdb; sync {data}/dump.rdb; {}", target.start()),
        ),
    ]
}
