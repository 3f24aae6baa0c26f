//! Other programs as children that cannot outlive their purpose.
//!
//! A child gets an environment made for it, a process group of its own, large pipes, and nothing on its command line
//! that is secret. Whatever happens to us, its whole group ends:
//!
//! ```text
//! cancelled     SIGTERM to the group → grace → SIGKILL to the group
//! dropped       SIGKILL to the group
//! we are killed a guard (one `sh` blocked on a pipe that only we hold open) does the same as for "cancelled"
//! ```
//!
//! The tail of its stderr is kept, bounded and scrubbed, because a child's own words explain most failures. The data
//! itself goes through [`Child::take_stdin`] and [`Child::take_stdout`], which are plain blocking pipes.

mod child;
mod guard;
#[cfg(any(test, feature = "testing"))]
mod scripted;
mod system;
mod tail;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

pub use child::Child;
#[cfg(any(test, feature = "testing"))]
pub use scripted::{Script, ScriptedRunner};
pub use system::SystemRunner;
pub use tail::scrub;

use crate::error::{Class, Classified};
use crate::secret::Secret;

/// Starts programs.
#[async_trait]
pub trait CommandRunner: fmt::Debug + Send + Sync + 'static {
    /// Starts a program.
    ///
    /// # Errors
    /// [`ProcessError::NotFound`] when there is no such program, [`ProcessError::Io`] when it cannot be started.
    async fn spawn(&self, command: CommandSpec) -> Result<Child, ProcessError>;
}

/// Where a standard stream of a child leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pipe {
    /// Nowhere: reads end at once, writes vanish.
    #[default]
    Null,
    /// To us.
    Piped,
}

/// A program and everything it gets.
#[derive(Clone)]
#[non_exhaustive]
pub struct CommandSpec {
    /// Path, or a name that is looked up in `PATH` of the child's environment.
    pub program: PathBuf,
    /// Arguments; visible to every user of the machine, so never a secret.
    pub args: Vec<OsString>,
    /// Environment, on top of the little that the runner passes on.
    pub environment: BTreeMap<OsString, OsString>,
    /// Working directory.
    pub directory: Option<PathBuf>,
    /// Its stdin.
    pub stdin: Pipe,
    /// Its stdout.
    pub stdout: Pipe,
    /// Time between SIGTERM and SIGKILL; 10 seconds by default.
    pub grace: Duration,
    /// Texts that are taken out of its stderr before anybody sees it.
    pub secrets: Vec<Secret<String>>,
}

impl CommandSpec {
    /// A program without arguments.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            environment: BTreeMap::new(),
            directory: None,
            stdin: Pipe::Null,
            stdout: Pipe::Null,
            grace: Duration::from_secs(10),
            secrets: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Makes its stdin a pipe from us.
    #[must_use]
    pub fn pipe_stdin(mut self) -> Self {
        self.stdin = Pipe::Piped;
        self
    }

    /// Makes its stdout a pipe to us.
    #[must_use]
    pub fn pipe_stdout(mut self) -> Self {
        self.stdout = Pipe::Piped;
        self
    }

    /// Sets the time between SIGTERM and SIGKILL.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Takes a text out of its stderr.
    #[must_use]
    pub fn hide(mut self, secret: Secret<String>) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Name of the program without its folder.
    #[must_use]
    pub fn name(&self) -> String {
        self.program.file_name().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned()
    }
}

impl fmt::Debug for CommandSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of the environment stay out: passwords travel there.
        f.debug_struct("CommandSpec")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Why a child did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// There is no such program.
    #[error("program {program} was not found")]
    NotFound {
        /// The program as asked for.
        program: String,
    },
    /// It ended with an error.
    #[error("{program} {}{}", ended(status), last_words(tail))]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its stderr, scrubbed.
        tail: String,
    },
    /// It was stopped because we were told to stop.
    #[error("{program} was stopped")]
    Cancelled {
        /// The program.
        program: String,
    },
    /// It wrote more than it can have to say.
    #[error("{program} wrote more than {limit} bytes")]
    TooMuch {
        /// The program.
        program: String,
        /// The limit that was set.
        limit: usize,
    },
    /// The system refused something.
    #[error("cannot {op} {program}")]
    Io {
        /// The program.
        program: String,
        /// What was being done.
        op: &'static str,
        /// The reason.
        source: std::io::Error,
    },
}

impl ProcessError {
    /// Its class. What a failed program means, its caller knows better.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } => Class::Usage,
            Self::Failed { .. } | Self::Cancelled { .. } | Self::Io { .. } => Class::Temporary,
            Self::TooMuch { .. } => Class::Data,
        }
    }
}

/// The signals that end programs in practice.
const SIGNALS: [(i32, &str); 9] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (4, "SIGILL"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (15, "SIGTERM"),
];

/// How a child ended, in words.
fn ended(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => {
            let name = SIGNALS.iter().find(|(number, _)| *number == signal);
            name.map_or_else(
                || format!("was killed by signal {signal}"),
                |(_, name)| format!("was killed by {name}"),
            )
        }
        (None, None) => "ended".to_owned(),
    }
}

fn last_words(tail: &str) -> String {
    match tail.lines().count() {
        0 => String::new(),
        1 => format!(": {tail}"),
        _ => format!(":\n  {}", tail.replace('\n', "\n  ")),
    }
}

/// Runs a program to its end and returns what it wrote to stdout, at most `limit` bytes.
///
/// # Errors
/// As [`CommandRunner::spawn`] and [`Child::wait_or_cancel`]; [`ProcessError::TooMuch`] beyond the limit.
///
/// # Cancel safety
/// A dropped call kills the program.
pub async fn capture(
    runner: &dyn CommandRunner,
    command: CommandSpec,
    limit: usize,
    cancel: &CancellationToken,
) -> Result<Vec<u8>, ProcessError> {
    let program = command.name();
    let mut child = runner.spawn(command.pipe_stdout()).await?;
    let io = |source| ProcessError::Io { program: program.clone(), op: "read from", source };
    let mut content = Vec::new();
    if let Some(stdout) = child.take_async_stdout().map_err(io)? {
        let mut limited = stdout.take(limit as u64 + 1);
        tokio::select! {
            read = limited.read_to_end(&mut content) => { read.map_err(io)?; }
            () = cancel.cancelled() => {}
        }
    }
    if content.len() > limit {
        child.terminate().await;
        return Err(ProcessError::TooMuch { program, limit });
    }
    child.wait_or_cancel(cancel).await?;
    Ok(content)
}

impl Classified for ProcessError {
    fn class(&self) -> Class {
        self.class()
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { program } => Some(format!("install {program}, or add its folder to PATH")),
            _ => None,
        }
    }
}
