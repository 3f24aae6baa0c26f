//! A runner that plays a script, for tests of code that starts programs.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::child::Process;
use super::tail::Tail;
use super::{Child, CommandRunner, CommandSpec, Pipe, ProcessError};

/// What a program does when it is started.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Script {
    /// Name of the program that is expected.
    pub program: String,
    /// Whether there is no such program.
    pub missing: bool,
    /// What it writes to stdout.
    pub stdout: Vec<u8>,
    /// What it writes to stderr.
    pub stderr: String,
    /// Its exit code.
    pub code: i32,
}

impl Script {
    /// A program that ends well and says this.
    #[must_use]
    pub fn says(program: &str, stdout: impl Into<Vec<u8>>) -> Self {
        Self { program: program.to_owned(), stdout: stdout.into(), ..Self::default() }
    }

    /// A program that fails.
    #[must_use]
    pub fn fails(program: &str, code: i32, stderr: &str) -> Self {
        Self { program: program.to_owned(), code, stderr: stderr.to_owned(), ..Self::default() }
    }

    /// A program that does not exist.
    #[must_use]
    pub fn missing(program: &str) -> Self {
        Self { program: program.to_owned(), missing: true, ..Self::default() }
    }
}

/// One started program, as it was asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Started {
    /// The program and what it got.
    pub command: CommandSpec,
    /// What was written to its stdin.
    pub stdin: Vec<u8>,
}

/// Plays scripts in order and records what was started.
#[derive(Clone, Debug, Default)]
pub struct ScriptedRunner(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    scripts: VecDeque<Script>,
    started: Vec<Started>,
}

impl ScriptedRunner {
    /// A runner for these scripts, one for each program started.
    #[must_use]
    pub fn new(scripts: impl IntoIterator<Item = Script>) -> Self {
        let state = State { scripts: scripts.into_iter().collect(), started: Vec::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// What was started so far; stdin is complete once the program was waited for.
    #[must_use]
    pub fn started(&self) -> Vec<Started> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).started.clone()
    }
}

/// A script that plays.
#[derive(Debug)]
pub(super) struct Run {
    code: i32,
    stopped: bool,
    pipes: Vec<JoinHandle<()>>,
}

impl Run {
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        for pipe in self.pipes.drain(..) {
            pipe.await.map_err(io::Error::other)?;
        }
        let code = if self.stopped { 15 } else { self.code << 8 };
        Ok(ExitStatus::from_raw(code))
    }

    pub(super) fn terminate(&mut self) {
        self.stopped = true;
    }
}

#[async_trait]
impl CommandRunner for ScriptedRunner {
    async fn spawn(&self, command: CommandSpec) -> Result<Child, ProcessError> {
        let program = command.name();
        let failed =
            |problem: io::Error| ProcessError::Io { program: program.clone(), op: "start", source: problem };
        let (script, index) = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let script = state.scripts.pop_front().filter(|script| script.program == program);
            let script =
                script.ok_or_else(|| failed(io::Error::other("the script has something else here")))?;
            state.started.push(Started { command: command.clone(), stdin: Vec::new() });
            (script, state.started.len() - 1)
        };
        if script.missing {
            return Err(ProcessError::NotFound { program });
        }
        let tail = Tail::default();
        tail.push(script.stderr.as_bytes());
        let mut pipes = Vec::new();
        let mut stdin = None;
        let mut stdout = None;
        if command.stdin == Pipe::Piped {
            let (mut reader, writer) = io::pipe().map_err(failed)?;
            let state = Arc::clone(&self.0);
            stdin = Some(writer);
            pipes.push(tokio::task::spawn_blocking(move || {
                let mut content = Vec::new();
                let _ = reader.read_to_end(&mut content);
                state.lock().unwrap_or_else(PoisonError::into_inner).started[index].stdin = content;
            }));
        }
        if command.stdout == Pipe::Piped {
            let (reader, mut writer) = io::pipe().map_err(failed)?;
            stdout = Some(reader);
            // A reader that has enough closes the pipe, as with a real program.
            pipes.push(tokio::task::spawn_blocking(move || drop(writer.write_all(&script.stdout))));
        }
        let process = Process::Scripted(Run { code: script.code, stopped: false, pipes });
        Ok(Child { program, stdin, stdout, process, tail, secrets: command.secrets, grace: Duration::ZERO })
    }
}
