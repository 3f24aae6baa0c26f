//! A running program.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::ProcessError;
use super::guard::Guard;
use super::tail::Tail;
use crate::secret::Secret;

/// How long the end of stderr is waited for after the program has ended. Somebody it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running program, with everything it started. Dropping it kills the whole group.
#[derive(Debug)]
pub struct Child {
    pub(super) program: String,
    pub(super) stdin: Option<PipeWriter>,
    pub(super) stdout: Option<PipeReader>,
    pub(super) process: Process,
    pub(super) tail: Tail,
    pub(super) secrets: Vec<Secret<String>>,
    pub(super) grace: Duration,
}

/// What runs.
#[derive(Debug)]
pub(super) enum Process {
    System(Box<Group>),
    #[cfg(any(test, feature = "testing"))]
    Scripted(super::scripted::Run),
}

/// A process and its group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) leader: tokio::process::Child,
    pub(super) id: Pid,
    pub(super) guard: Option<Guard>,
    pub(super) follower: Option<JoinHandle<()>>,
    pub(super) ended: Option<ExitStatus>,
}

impl Child {
    /// Its process id, which is also its group's.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        match &self.process {
            Process::System(group) => u32::try_from(group.id.as_raw_nonzero().get()).ok(),
            #[cfg(any(test, feature = "testing"))]
            Process::Scripted(_) => None,
        }
    }

    /// Its stdin, when it was piped: blocking writes. Drop it to end the input.
    pub fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.stdin.take()
    }

    /// Its stdout, when it was piped: blocking reads.
    pub fn take_stdout(&mut self) -> Option<PipeReader> {
        self.stdout.take()
    }

    /// Its stdin for asynchronous writes.
    ///
    /// # Errors
    /// The system refuses to make the pipe non-blocking.
    pub fn take_async_stdin(&mut self) -> io::Result<Option<pipe::Sender>> {
        self.stdin.take().map(|writer| pipe::Sender::from_owned_fd(OwnedFd::from(writer))).transpose()
    }

    /// Its stdout for asynchronous reads.
    ///
    /// # Errors
    /// The system refuses to make the pipe non-blocking.
    pub fn take_async_stdout(&mut self) -> io::Result<Option<pipe::Receiver>> {
        self.stdout.take().map(|reader| pipe::Receiver::from_owned_fd(OwnedFd::from(reader))).transpose()
    }

    /// The end of its stderr so far, scrubbed.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        self.tail.text(&self.secrets)
    }

    /// Waits until it ends. Pipes that nobody took are closed first.
    ///
    /// # Errors
    /// [`ProcessError::Failed`] for any end but exit code 0.
    ///
    /// # Cancel safety
    /// A dropped call can be repeated.
    pub async fn wait(&mut self) -> Result<(), ProcessError> {
        self.stdin = None;
        self.stdout = None;
        let status = self.process.wait().await;
        let status = status.map_err(|source| ProcessError::Io {
            program: self.program.clone(),
            op: "wait for",
            source,
        })?;
        if status.success() {
            return Ok(());
        }
        Err(ProcessError::Failed { program: self.program.clone(), status, tail: self.stderr_tail() })
    }

    /// Waits until it ends or is no longer wanted.
    ///
    /// # Errors
    /// As [`Child::wait`]; [`ProcessError::Cancelled`] after the token ended it.
    pub async fn wait_or_cancel(&mut self, cancel: &CancellationToken) -> Result<(), ProcessError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            ended = self.wait() => return ended,
        }
        self.terminate().await;
        Err(ProcessError::Cancelled { program: self.program.clone() })
    }

    /// Ends it and everything it started: SIGTERM, its grace, SIGKILL. Returns when it is gone.
    pub async fn terminate(&mut self) {
        self.stdin = None;
        self.stdout = None;
        self.process.terminate(self.grace).await;
    }
}

impl Process {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::System(group) => group.wait().await,
            #[cfg(any(test, feature = "testing"))]
            Self::Scripted(run) => run.wait().await,
        }
    }

    async fn terminate(&mut self, grace: Duration) {
        match self {
            Self::System(group) => group.terminate(grace).await,
            #[cfg(any(test, feature = "testing"))]
            Self::Scripted(run) => run.terminate(),
        }
    }
}

impl Group {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = match self.ended {
            Some(status) => status,
            None => self.leader.wait().await?,
        };
        self.ended = Some(status);
        if let Some(follower) = &mut self.follower {
            if timeout(LAST_WORDS, &mut *follower).await.is_err() {
                // A straggler holds stderr, so the group is not empty and its number cannot belong to others.
                self.signal(Signal::KILL);
            }
            if let Some(follower) = self.follower.take() {
                follower.abort();
            }
        }
        if let Some(guard) = self.guard.take() {
            guard.dismiss().await;
        }
        Ok(status)
    }

    async fn terminate(&mut self, grace: Duration) {
        if self.ended.is_none() {
            self.signal(Signal::TERM);
            match timeout(grace, self.leader.wait()).await {
                Ok(Ok(status)) => self.ended = Some(status),
                Ok(Err(_)) | Err(_) => self.signal(Signal::KILL),
            }
        }
        if let Err(error) = self.wait().await {
            tracing::debug!(%error, "cannot wait for a child that was ended");
        }
    }

    fn signal(&self, signal: Signal) {
        // The only error is that nobody is left, which is what was wanted.
        let _ = kill_process_group(self.id, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.dismiss_now();
        }
        if let Some(follower) = &self.follower {
            follower.abort();
        }
        if self.ended.is_none() {
            self.signal(Signal::KILL);
        }
    }
}
