//! A program that is killed at one of its system calls, and at each in turn.
//!
//! `strace` kills it as it enters the call, so every state between two changes is seen once: what the call would have
//! done is not done, and everything before it is. A thread counts its own calls of each name, so the number of a kill is
//! that of the first thread that comes so far; what was hit is read from the log and compared with a run that nobody kills.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// What changes files, and the end, which tells the server that all is well. `?`: not every machine has it.
pub const FILES: &str = "?mkdir,mkdirat,fchmod,?fchmodat,write,pwrite64,?rename,?renameat,renameat2,?link,linkat,?unlink,\
                         unlinkat,utimensat,ftruncate,fsync,fdatasync,exit_group";
/// The same without plain writes, which several threads do: of those that wake each other there are more than of those to
/// the note of a registration, which therefore might never be hit. Before its rename it is no note, whatever is in it.
pub const FILES_OF_THREADS: &str = "?mkdir,mkdirat,fchmod,?fchmodat,pwrite64,?rename,?renameat,renameat2,?link,linkat,?unlink,\
                                    unlinkat,utimensat,ftruncate,fsync,fdatasync,exit_group";
/// What goes over the network and comes back.
pub const NETWORK: &str = "connect,sendto,sendmsg,writev,write,recvfrom,recvmsg,exit_group";
/// Everything that a program asks of the kernel.
pub const EVERYTHING: &str = "all";
/// How often all kills are repeated for steps that other threads hid.
const SWEEPS: usize = 12;

/// What was done to a program.
#[derive(Debug, Default)]
pub struct Swept {
    /// Runs that were killed.
    pub kills: u64,
    /// Different steps among them, those of files.
    pub steps: usize,
}

/// A run that is to be prepared.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Counted from 1.
    pub number: u64,
    /// Whether a program that can begin in two ways begins in the other: every step is reached in both, from sweep to sweep.
    /// The number does not tell: where a sweep takes an even number of runs, the same ones are odd in each.
    pub other_way: bool,
}

/// Kills the programs that `prepare` gives with their standard input: at the first call of a name, then at the second, until
/// one ends by itself, and so for each name. `check` sees how each ended: `None` when it was killed.
pub fn kill_at_every_call(
    calls: &str,
    log: &Path,
    mut prepare: impl FnMut(Run) -> (Command, Stdio),
    mut check: impl FnMut(u64, Option<i32>),
) -> Swept {
    let mut run = 0;
    let mut once = |calls: &str, kill_at: Option<usize>, sweep: usize| {
        run += 1;
        let other_way = !(sweep + kill_at.unwrap_or_default()).is_multiple_of(2);
        let (program, input) = prepare(Run { number: run, other_way });
        let (status, entered) = traced(&program, input, calls, kill_at, log);
        assert!(status.code().is_some() || status.signal() == Some(9), "{status}");
        check(run, status.code());
        (status.code().is_none(), entered)
    };
    let (killed, entered) = once(calls, None, 0);
    assert!(!killed, "nobody killed it");
    let names: BTreeSet<&String> = entered.keys().map(|(_, name)| name).collect();
    let planned: BTreeSet<String> = entered.values().flatten().filter_map(|call| step(call)).collect();
    let (mut hit, mut kills) = (BTreeSet::new(), 0);
    for sweep in 0..SWEEPS {
        for name in &names {
            for number in 1.. {
                let (killed, entered) = once(name, Some(number), sweep);
                if !killed {
                    break;
                }
                kills += 1;
                hit.extend(entered.values().filter_map(|calls| step(calls.get(number - 1)?)));
            }
        }
        if planned.is_subset(&hit) {
            return Swept { kills, steps: hit.len() };
        }
    }
    let missed: Vec<_> = planned.difference(&hit).collect();
    panic!("never killed at {missed:?}, but {kills} times elsewhere");
}

/// Calls of each thread and name.
type Entered = BTreeMap<(u32, String), Vec<String>>;

/// Runs a program under `strace`, killed when a thread enters its call of that number.
fn traced(
    program: &Command,
    input: Stdio,
    calls: &str,
    kill_at: Option<usize>,
    log: &Path,
) -> (ExitStatus, Entered) {
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qq", "-s", "200", "-e"]).arg(format!("trace={calls}"));
    if let Some(number) = kill_at {
        command.arg("-e").arg(format!("inject={calls}:signal=KILL:when={number}"));
    }
    command.arg("-o").arg(log).arg("--").arg(program.get_program()).args(program.get_args()).env_clear();
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(program.get_current_dir().unwrap()).stdin(input);
    let output = command.output().expect("strace is there: scripts/setup.sh installs it");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("strace: "), "{stderr}");
    let mut entered = Entered::new();
    let log = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    for (thread, call) in log.lines().filter_map(|line| line.split_once(' ')) {
        // What is resumed, and ends of threads, begin otherwise.
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let of_name = entered.entry((thread.parse().unwrap(), name.to_owned())).or_default();
            of_name.push(call.trim_start().to_owned());
        }
    }
    (output.status, entered)
}

/// What a call does, without what differs from run to run; `None` for what does nothing to files.
fn step(call: &str) -> Option<String> {
    let (name, arguments) = call.split_once('(')?;
    if name == "exit_group" {
        return Some(name.to_owned());
    }
    if !FILES.split(',').any(|known| known.trim_start_matches('?') == name) {
        return None;
    }
    let opened = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
    if opened.is_some_and(|path| !path.starts_with('/') || path.starts_with("/dev/")) {
        return None;
    }
    let is_content = name == "write" || name == "pwrite64";
    let named = arguments.split('"').skip(1).step_by(2).filter(|_| !is_content);
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let words: Vec<_> = opened.into_iter().chain(named).map(|path| plain(&last(path))).collect();
    Some(format!("{name} {}", words.join(" ")))
}

/// A name whose numbers are left out.
fn plain(name: &str) -> String {
    let parts = name.split('.').map(|part| {
        let is_number = part.len() >= 5 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_number || part.bytes().all(|byte| byte.is_ascii_digit()) { "#" } else { part }
    });
    parts.collect::<Vec<_>>().join(".")
}
