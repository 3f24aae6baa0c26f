use std::io;
use std::path::PathBuf;

/// Why a test server could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program or version is not on this machine.
    #[error("{what} is not installed; run: {command}")]
    NotInstalled {
        /// What was looked for.
        what: String,
        /// The command that installs it.
        command: String,
    },
    /// A file, directory or process could not be handled.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or program.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A program ran and reported an error.
    #[error("{program} ended with {status}: {output}")]
    Program {
        /// Its name.
        program: String,
        /// Its exit status in words.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A server ended while it should have started.
    #[error("{server} did not start ({status}): {log}")]
    NotStarted {
        /// Which server.
        server: String,
        /// Its exit status in words.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// Something took longer than it ever should.
    #[error("{what} took longer than {seconds} s: {log}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// The end of the server's log.
        log: String,
    },
    /// The call does not fit the server's state, for example SQL sent to a stopped server.
    #[error("{0}")]
    State(&'static str),
}

impl Error {
    /// Wraps an I/O error with what was tried and where.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
