//! What a program writes, syncs and renames, in order, as `strace` sees it: no test can cut the power, but what was not synced
//! before the step that counts would be lost then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const CALLS: &str = "write,pwrite64,ftruncate,fsync,fdatasync,?rename,?renameat,renameat2,?unlink,unlinkat";

/// One call that succeeded.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    /// The open file, or the names that were given.
    pub paths: Vec<PathBuf>,
    /// Where it begins and ends among all.
    pub begin: usize,
    pub end: usize,
}

#[derive(Debug)]
pub struct Trace(Vec<Call>);

impl Trace {
    /// Runs a program to its end, which must be a good one.
    pub fn of(program: &Command, log: &Path) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-qq", "-s", "300", "-e"]).arg(format!("trace={CALLS}"));
        command.arg("-o").arg(log).arg("--").arg(program.get_program()).args(program.get_args()).env_clear();
        // Without an environment of its own a program has that of the test.
        command.env("PATH", "/usr/bin:/bin");
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = program.get_current_dir() {
            command.current_dir(folder);
        }
        let output = command.output().expect("strace is there: scripts/setup.sh installs it");
        assert!(output.status.success(), "{output:?}");
        Self::read(&String::from_utf8_lossy(&std::fs::read(log).unwrap()))
    }

    fn read(log: &str) -> Self {
        let (mut calls, mut begun) = (Vec::new(), BTreeMap::new());
        for (at, line) in log.lines().enumerate() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let call = call.trim_start();
            if call.starts_with("<... ") {
                if let Some(call) = begun.remove(thread).filter(|_| succeeded(line)) {
                    calls.push(Call { end: at, ..call });
                }
                continue;
            }
            let Some((name, arguments)) = call.split_once('(') else { continue };
            let call = Call { name: name.to_owned(), paths: paths(name, arguments), begin: at, end: at };
            if line.ends_with("<unfinished ...>") {
                begun.insert(thread.to_owned(), call);
            } else if succeeded(line) {
                calls.push(call);
            }
        }
        Self(calls)
    }

    /// Everything that got this name by renaming, in order.
    pub fn renamed(&self, is_it: impl Fn(&Path, &Path) -> bool) -> Vec<&Call> {
        let renames = self.0.iter().filter(|call| call.name.starts_with("rename"));
        renames.filter(|call| is_it(&call.paths[0], &call.paths[1])).collect()
    }

    /// Everything that was removed.
    pub fn removed(&self, is_it: impl Fn(&Path) -> bool) -> Vec<&Call> {
        self.0.iter().filter(|call| call.name.starts_with("unlink") && is_it(&call.paths[0])).collect()
    }

    fn changes(&self) -> impl Iterator<Item = &Call> {
        self.0.iter().filter(|call| matches!(&*call.name, "write" | "pwrite64" | "ftruncate"))
    }

    /// Asserts that a file or folder was synced in between: begun after one call, and done before another.
    #[track_caller]
    pub fn assert_synced(&self, path: &Path, after: usize, before: usize) {
        let is_sync = |call: &&Call| matches!(&*call.name, "fsync" | "fdatasync") && call.paths[0] == path;
        let mut syncs = self.0.iter().filter(is_sync);
        let is_synced = syncs.any(|call| call.begin > after && call.end < before);
        assert!(is_synced, "{} was not synced between calls {after} and {before}: {self:#?}", path.display());
    }

    /// Asserts that everything that was written to a file before a call was synced by then.
    #[track_caller]
    pub fn assert_durable(&self, path: &Path, before: usize) {
        let written = self.changes().filter(|call| call.paths[0] == path && call.begin < before);
        let last = written.map(|call| call.end).max().expect("it was written to");
        self.assert_synced(path, last, before);
    }
}

fn succeeded(line: &str) -> bool {
    line.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-'))
}

fn paths(name: &str, arguments: &str) -> Vec<PathBuf> {
    let open = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
    if !name.starts_with("rename") && !name.starts_with("unlink") {
        return vec![PathBuf::from(open.unwrap_or_default())];
    }
    let named: Vec<_> = arguments.split('"').skip(1).step_by(2).map(PathBuf::from).collect();
    // Below an open folder, unless it is absolute.
    let folder = open.unwrap_or_default();
    named.into_iter().map(|path| Path::new(folder).join(path)).collect()
}
