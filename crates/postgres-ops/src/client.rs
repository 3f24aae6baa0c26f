//! Runs PostgreSQL's client programs.
//!
//! A thin layer over [`backstay_backup_core::process`]: it knows how these programs log in
//! ([`Server::child_login`]) and what their words mean for whoever started them.

use std::collections::BTreeMap;
use std::io::{PipeReader, PipeWriter};

use backstay_backup_core::process::{Child, CommandRunner, CommandSpec, ProcessError, SystemRunner};
use backstay_backup_core::{Class, Error as CoreError};
use tokio::task::JoinError;

use crate::error::Error;
use crate::server::{ChildLogin, Server};
use crate::tools::Tool;

/// A running client program; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Client {
    program: &'static str,
    child: Child,
    // The password file lives as long as the program.
    _login: ChildLogin,
}

impl Client {
    /// Starts a program that writes to a pipe and reads nothing.
    pub(crate) async fn start(
        program: &'static str,
        tool: &Tool,
        arguments: &[String],
        server: &Server,
    ) -> Result<Self, Error> {
        Self::spawn(program, spec(tool, arguments).pipe_stdout(), server).await
    }

    /// Starts a program that reads from a pipe.
    pub(crate) async fn start_with_input(
        program: &'static str,
        tool: &Tool,
        arguments: &[String],
        server: &Server,
    ) -> Result<Self, Error> {
        Self::spawn(program, spec(tool, arguments).pipe_stdin(), server).await
    }

    async fn spawn(program: &'static str, spec: CommandSpec, server: &Server) -> Result<Self, Error> {
        let login = server.child_login(program)?;
        let mut spec = login.environment.iter().fold(spec, |spec, (name, value)| spec.env(name, value));
        if let Some(password) = &server.password {
            spec = spec.hide(password.clone());
        }
        let spec = spec.env("LC_ALL", "C");
        let child = SystemRunner::new(&BTreeMap::new()).spawn(spec).await;
        let child = child.map_err(|error| process_error(program, error))?;
        Ok(Self { program, child, _login: login })
    }

    /// The end of the pipe that the program writes to.
    pub(crate) fn take_stdout(&mut self) -> Result<PipeReader, Error> {
        self.child.take_stdout().ok_or_else(|| self.no_pipe())
    }

    /// The end of the pipe that the program reads from.
    pub(crate) fn take_stdin(&mut self) -> Result<PipeWriter, Error> {
        self.child.take_stdin().ok_or_else(|| self.no_pipe())
    }

    fn no_pipe(&self) -> Error {
        Error::Spawn { program: self.program, source: std::io::Error::other("its pipe was taken already") }
    }

    /// Waits for a good end.
    ///
    /// # Errors
    /// [`Error::Tool`] with the program's own words for any other end.
    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        self.child.wait().await.map_err(|error| process_error(self.program, error))
    }

    /// Explains an error of the data path by the program's own end, if that was the reason.
    pub(crate) async fn blame(self, error: Error) -> Error {
        match &error {
            Error::Repository(CoreError::Source { .. }) => match self.finish().await {
                Err(reason) => reason,
                Ok(()) => error,
            },
            _ => error,
        }
    }
}

fn spec(tool: &Tool, arguments: &[String]) -> CommandSpec {
    let (program, first) = tool.command();
    CommandSpec::new(program).args(first).args(arguments)
}

fn process_error(program: &'static str, error: ProcessError) -> Error {
    match error {
        ProcessError::Failed { status, tail, .. } => {
            Error::Tool { program, status: status.to_string(), class: class_of(&tail), words: tail }
        }
        ProcessError::Io { source, .. } => Error::Spawn { program, source },
        other => Error::Spawn { program, source: std::io::Error::other(other) },
    }
}

/// What the words of a program mean for whoever started it.
fn class_of(words: &str) -> Class {
    const CHANGE_SOMETHING: [&str; 7] = [
        "permission denied",
        "must be superuser",
        "must be owner",
        "password authentication failed",
        "version mismatch",
        "does not exist",
        "is not available",
    ];
    // What a look beforehand did not find; nothing is replaced unasked.
    if words.contains("already exists") {
        return Class::Conflict;
    }
    if CHANGE_SOMETHING.iter().any(|text| words.contains(text)) { Class::Usage } else { Class::Temporary }
}

/// A thread of ours that panicked or was cancelled.
pub(crate) fn lost_thread(program: &'static str, error: &JoinError) -> Error {
    CoreError::Internal { what: format!("the thread that served {program} was lost: {error}") }.into()
}
