//! Starts real programs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::process::Stdio;

use async_trait::async_trait;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Pid;
use tokio::process::Command;

use super::child::{Group, Process};
use super::guard::Guard;
use super::tail::Tail;
use super::{Child, CommandRunner, CommandSpec, Pipe, ProcessError};

/// Size of the data pipes in bytes, the most an unprivileged Linux process gets by default: fewer context switches.
const PIPE_SIZE: usize = 1 << 20;

/// Variables that every child may have: where programs are, and which language and time zone it speaks.
const PASSED_ON: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "SHELL"];

/// Starts programs of this machine.
#[derive(Clone)]
pub struct SystemRunner {
    environment: BTreeMap<String, String>,
}

impl SystemRunner {
    /// Passes on the harmless part of an environment (`PATH`, `HOME`, locale, time zone); nothing else of it.
    #[must_use]
    pub fn new(environment: &BTreeMap<String, String>) -> Self {
        let harmless = |name: &str| PASSED_ON.contains(&name) || name.starts_with("LC_");
        let environment = environment.iter().filter(|(name, _)| harmless(name));
        Self { environment: environment.map(|(name, value)| (name.clone(), value.clone())).collect() }
    }

    fn command(&self, spec: &CommandSpec) -> Command {
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.args)
            .env_clear()
            .envs(&self.environment)
            .envs(&spec.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(directory) = &spec.directory {
            command.current_dir(directory);
        }
        command
    }
}

impl fmt::Debug for SystemRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemRunner").finish_non_exhaustive()
    }
}

#[async_trait]
impl CommandRunner for SystemRunner {
    async fn spawn(&self, spec: CommandSpec) -> Result<Child, ProcessError> {
        let program = spec.name();
        let failed = |source| ProcessError::Io { program: program.clone(), op: "start", source };
        let mut command = self.command(&spec);
        let mut stdin = None;
        let mut stdout = None;
        if spec.stdin == Pipe::Piped {
            let (reader, writer) = large_pipe().map_err(failed)?;
            command.stdin(reader);
            stdin = Some(writer);
        }
        if spec.stdout == Pipe::Piped {
            let (reader, writer) = large_pipe().map_err(failed)?;
            command.stdout(writer);
            stdout = Some(reader);
        }
        let mut leader = command.spawn().map_err(|source| match source.kind() {
            ErrorKind::NotFound if spec.directory.as_ref().is_none_or(|directory| directory.is_dir()) => {
                ProcessError::NotFound { program: spec.program.display().to_string() }
            }
            _ => failed(source),
        })?;
        // The command holds our copies of the child's ends: with them open, the pipes would never end.
        drop(command);
        let number = leader.id().expect("it was started and not waited for");
        let id = i32::try_from(number).ok().and_then(Pid::from_raw).expect("process ids are positive");
        let tail = Tail::default();
        let follower = leader.stderr.take().map(|stderr| tokio::spawn(tail.clone().follow(stderr)));
        let guard = Guard::over(number, spec.grace);
        let process = Process::System(Box::new(Group { leader, id, guard, follower, ended: None }));
        Ok(Child { program, stdin, stdout, process, tail, secrets: spec.secrets, grace: spec.grace })
    }
}

fn large_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    // Refused when the user's pipes hold too much already; the default size works too.
    let _ = fcntl_setpipe_size(writer.as_fd(), PIPE_SIZE);
    Ok((reader, writer))
}
