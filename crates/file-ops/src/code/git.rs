//! Runs git so that a repository is read, and decides nothing.
//!
//! Whoever can write into a repository writes its configuration, and git runs programs that are named there. So: no hook, no
//! monitor, no pager, no protocol, no fetching of what is missing, nobody else's configuration, a home of its own; an explicit
//! folder, so that nothing is looked for upwards and owners do not matter; and, for everything that reads more than names of
//! refs, a repository of our own that only borrows the objects (`shadow.rs`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::process::{Child, CommandRunner, CommandSpec, ProcessError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::error::CodeError;

/// Time for a command that reads names.
const QUICK: Duration = Duration::from_secs(600);
/// Most bytes that such a command may have to say: refs, files.
const LIMIT: usize = 256 << 20;

/// On every command line: stronger than any configuration of a repository.
const SETTINGS: [&str; 16] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.pager=cat",
    // Made beforehand by others, and believed: what they leave out would be left out.
    "core.commitGraph=false",
    "core.multiPackIndex=false",
    "core.logAllRefUpdates=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.quotePath=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "submodule.recurse=false",
    "safe.directory=*",
];

const ENVIRONMENT: [(&str, &str); 16] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_ALLOW_PROTOCOL", ""),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_LITERAL_PATHSPECS", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "false"),
    ("GIT_EDITOR", "false"),
    ("GIT_PAGER", "cat"),
    ("GIT_COMMITTER_NAME", "Backstay"),
    ("GIT_COMMITTER_EMAIL", "backstay@localhost"),
    ("LC_ALL", "C"),
];

/// Git, as it is run here.
#[derive(Clone, Debug)]
pub(super) struct Git {
    runner: Arc<dyn CommandRunner>,
    /// An empty folder of ours.
    home: PathBuf,
    limit: Duration,
    cancel: CancellationToken,
}

/// What a command said, however it ended.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) code: i32,
    pub(super) stdout: Vec<u8>,
    /// The end of its stderr.
    pub(super) words: String,
}

impl Said {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

impl Git {
    pub(super) fn new(
        runner: Arc<dyn CommandRunner>,
        home: &Path,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Self {
        Self { runner, home: home.to_owned(), limit, cancel: cancel.clone() }
    }

    /// A command outside of any repository.
    pub(super) fn bare_command<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> CommandSpec {
        self.compose(Vec::new(), args)
    }

    /// A command in a repository.
    pub(super) fn command<A: Into<OsString>>(
        &self,
        repository: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> CommandSpec {
        self.compose(vec![option("--git-dir=", repository)], args)
    }

    /// A command in a repository and its working tree.
    pub(super) fn command_with_tree<A: Into<OsString>>(
        &self,
        repository: &Path,
        tree: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> CommandSpec {
        let places = vec![option("--git-dir=", repository), option("--work-tree=", tree)];
        self.compose(places, args).directory(tree)
    }

    fn compose<A: Into<OsString>>(
        &self,
        places: Vec<OsString>,
        args: impl IntoIterator<Item = A>,
    ) -> CommandSpec {
        let mut command = CommandSpec::new("git").args(places);
        for setting in SETTINGS {
            command = command.arg("-c").arg(setting);
        }
        for (name, value) in ENVIRONMENT {
            command = command.env(name, value);
        }
        let home = &self.home;
        command.args(args).env("HOME", home).env("XDG_CONFIG_HOME", home).directory(home)
    }

    pub(super) async fn spawn(&self, command: CommandSpec) -> Result<Child, CodeError> {
        Ok(self.runner.spawn(command).await?)
    }

    /// Bounds the time of work for which git is needed throughout. Dropping what is run kills it.
    pub(super) async fn bounded<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, CodeError>>,
    ) -> Result<T, CodeError> {
        self.within(self.limit, what, work).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        work: impl Future<Output = Result<T, CodeError>>,
    ) -> Result<T, CodeError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(CodeError::cancelled()),
            ended = tokio::time::timeout(limit, work) => {
                ended.unwrap_or_else(|_| Err(CodeError::TimedOut { what: what.to_owned(), limit }))
            }
        }
    }

    /// Runs a command that says little and is done soon.
    pub(super) async fn say(&self, command: CommandSpec) -> Result<Said, CodeError> {
        self.say_to(command, &[]).await
    }

    /// The same, with something to read.
    pub(super) async fn say_to(&self, command: CommandSpec, input: &[u8]) -> Result<Said, CodeError> {
        let what = subcommand(&command);
        self.within(QUICK.min(self.limit), &what, self.talk(command, input)).await
    }

    /// As [`Git::say_to`], for commands that go through the whole repository.
    pub(super) async fn say_long(&self, command: CommandSpec, input: &[u8]) -> Result<Said, CodeError> {
        let what = subcommand(&command);
        self.bounded(&what, self.talk(command, input)).await
    }

    async fn talk(&self, command: CommandSpec, input: &[u8]) -> Result<Said, CodeError> {
        let mut child = self.spawn(command.pipe_stdin().pipe_stdout()).await?;
        let failed = |error| CodeError::io("talk to", Path::new("git"), error);
        let stdin = child.take_async_stdin().map_err(failed)?;
        let stdout = child.take_async_stdout().map_err(failed)?;
        let writing = async {
            // One that does not want to read more says why in the end.
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(input).await;
            }
        };
        let mut content = Vec::new();
        let reading = async {
            match stdout {
                Some(stdout) => stdout.take(LIMIT as u64 + 1).read_to_end(&mut content).await.map(|_| ()),
                None => Ok(()),
            }
        };
        let ((), read) = tokio::join!(writing, reading);
        read.map_err(failed)?;
        if content.len() > LIMIT {
            child.terminate().await;
            return Err(ProcessError::TooMuch { program: "git".to_owned(), limit: LIMIT }.into());
        }
        let (code, words) = ended(&mut child).await?;
        Ok(Said { code, stdout: content, words })
    }

    /// Runs a command that must succeed in a repository of others.
    pub(super) async fn ask(
        &self,
        repository: &Path,
        command: CommandSpec,
        input: &[u8],
    ) -> Result<Said, CodeError> {
        let what = subcommand(&command);
        let said = self.say_to(command, input).await?;
        if said.code == 0 { Ok(said) } else { Err(CodeError::of_repository(repository, &what, &said.words)) }
    }

    /// Runs a command that must succeed in a repository of ours.
    pub(super) async fn tell(&self, command: CommandSpec, input: &[u8]) -> Result<Said, CodeError> {
        let what = subcommand(&command);
        let said = self.say_long(command, input).await?;
        if said.code == 0 { Ok(said) } else { Err(CodeError::Git { what, problem: said.words }) }
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// The first word that is neither an option nor the value of one.
pub(super) fn subcommand(command: &CommandSpec) -> String {
    let mut args = command.args.iter().map(|arg| arg.to_string_lossy());
    while let Some(arg) = args.next() {
        if arg == "-c" {
            args.next();
        } else if !arg.starts_with('-') {
            return arg.into_owned();
        }
    }
    String::new()
}

/// Waits for a child: its exit code, and its last words. One that a signal ended has no code.
pub(super) async fn ended(child: &mut Child) -> Result<(i32, String), CodeError> {
    match child.wait().await {
        Ok(()) => Ok((0, child.stderr_tail())),
        Err(ProcessError::Failed { status, tail, .. }) if status.code().is_some() => {
            Ok((status.code().unwrap_or(-1), tail))
        }
        Err(error) => Err(error.into()),
    }
}
