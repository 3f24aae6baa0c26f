//! A server process that cannot outlive the process that started it.
//!
//! ```text
//! test process ──stdin pipe (lifeline)──▶ sh (supervise.sh) ──parent of──▶ server ──▶ its children
//! ```
//!
//! When the test process ends in whatever way, the kernel closes the pipe, the shell reads the end of its input and
//! stops the server: first with the signal that ends it together with its children (PostgreSQL: an immediate
//! shutdown, which also frees shared memory), after six seconds with `SIGKILL` for the whole tree. The simpler
//! `PR_SET_PDEATHSIG` will not do: it fires when the *thread* that started the server ends, and tests start servers
//! from short-lived threads.
//!
//! As root the shell stays root and the server runs as the given [`Account`].

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub(crate) use rustix::process::Signal;

use crate::account::copy_surroundings;
use crate::process_tree::Process;
use crate::{Account, Error, Result};

const SUPERVISE: &str = include_str!("supervise.sh");

/// How often a condition is looked at while waiting for it.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// A running server; dropping it kills the server with all its children.
#[derive(Debug)]
pub struct ProcessGuard {
    supervisor: Child,
    server: Process,
    log: PathBuf,
}

impl ProcessGuard {
    /// Starts `command` under supervision, its output appended to `log`.
    ///
    /// Program, arguments, environment and directory are taken from `command`. `stop` is the name of the signal
    /// (`QUIT`, `TERM` …) that makes this server end at once together with its children.
    ///
    /// # Errors
    /// When the log cannot be opened or the shell cannot be started. A program that does not exist shows up as a
    /// server that has ended, with the reason in the log.
    pub fn spawn(command: &Command, account: Option<&Account>, stop: &str, log: &Path) -> Result<Self> {
        let wrapped = account.map(|account| account.wrap(command));
        let command = wrapped.as_ref().unwrap_or(command);
        let output = File::options().create(true).append(true).open(log).map_err(Error::io("open", log))?;
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", SUPERVISE, "backstay-guard", stop])
            .arg(command.get_program())
            .args(command.get_args());
        shell.current_dir("/");
        copy_surroundings(command, &mut shell);
        let supervisor = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            .spawn()
            .map_err(Error::io("start", "setsid"))?;
        Self::adopt(supervisor, log)
    }

    fn adopt(mut supervisor: Child, log: &Path) -> Result<Self> {
        let mut line = String::new();
        let stdout = supervisor.stdout.take().expect("standard output was asked for as a pipe");
        let read = BufReader::new(stdout).read_line(&mut line).map_err(Error::io("read the id of", log));
        let server = read.and_then(|_| {
            let pid = line.trim().parse().ok();
            pid.and_then(Process::find).ok_or_else(|| Error::NotStarted {
                server: log.display().to_string(),
                status: "no process".to_owned(),
                log: tail(log),
            })
        });
        match server {
            Ok(server) => Ok(Self { supervisor, server, log: log.to_owned() }),
            Err(error) => {
                drop(supervisor.stdin.take());
                let _ = supervisor.wait();
                Err(error)
            }
        }
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.server.pid().unsigned_abs()
    }

    /// How the server ended; `None` while it runs.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        self.supervisor.try_wait().ok().flatten()
    }

    /// Waits for the server to end by itself, at most for `patience`.
    pub fn wait_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.try_exit() {
                None if Instant::now() < deadline => std::thread::sleep(POLL),
                ended => return ended,
            }
        }
    }

    /// Polls `ready` until it says yes.
    ///
    /// # Errors
    /// When the server ends first or `patience` runs out; both tell the end of the log.
    pub fn wait_ready(
        &mut self,
        name: &str,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !ready() {
            if let Some(status) = self.try_exit() {
                let (server, status, log) = (name.to_owned(), in_words(status), tail(&self.log));
                return Err(Error::NotStarted { server, status, log });
            }
            if Instant::now() > deadline {
                let what = format!("the start of {name}");
                return Err(Error::Timeout { what, seconds: patience.as_secs(), log: tail(&self.log) });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Sends a signal to the server alone.
    pub(crate) fn signal(&self, signal: Signal) {
        self.server.signal(signal);
    }

    /// Freezes the server's main process: it neither answers nor ends.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen server run on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the server and all its children at once, like a machine that loses power; returns when all are gone.
    pub fn kill9(&mut self) {
        self.server.kill_tree();
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

impl Drop for ProcessGuard {
    fn drop(&mut self) {
        // Also right when the server has ended: the process is told by its start time too.
        self.kill9();
    }
}

/// The end of a server's log, for error messages.
pub(crate) fn tail(log: &Path) -> String {
    const ENOUGH: u64 = 4096;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_or_else(|_| "no log".to_owned(), |bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// An exit status for people. The shell reports a server killed by a signal as 128 plus its number.
pub(crate) fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code @ 129..=192), _) => format!("signal {}", code - 128),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}
