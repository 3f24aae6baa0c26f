//! A process that puts settings of a server back, however the one that changed them ends.
//!
//! ```text
//! we                                     the custodian (a program that calls keep_settings)
//! start it ── server, login, values ───▶ connects
//!          ◀── ready ──────────────────
//! change the settings, attach, let go ─▶ puts them back; again and again while the server cannot be reached
//!          ◀── what could not be put back
//! ```
//!
//! "Let go" is the end of a pipe that only we hold: the kernel closes it too when we are killed. The login travels
//! through that pipe, never on a command line. What this does not survive is a loss of the whole machine, or of its
//! whole control group at once.

use std::ffi::OsString;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::error::describe;
use backstay_backup_core::secret::Secret;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::error::Error;
use crate::server::Server;
use crate::source::{Address, Endpoint, Login, Tls};

/// Longest wait for an answer of the custodian; its own wait for the server is shorter.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it tries to reach a server that is gone.
const LIMIT: Duration = Duration::from_secs(600);
/// How often.
const AGAIN: Duration = Duration::from_millis(500);

/// How the process is started that puts settings back: a program that calls [`keep_settings`] with its stdin and stdout.
#[derive(Clone, Debug)]
pub struct Custodian {
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// A setting and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
}

/// A setting that is not as it was, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Left {
    pub(super) setting: Setting,
    pub(super) problem: String,
}

/// What the custodian is told.
#[derive(Serialize, Deserialize)]
struct Request {
    address: Address,
    tls: Option<Tls>,
    user: Option<String>,
    password: Option<String>,
    settings: Vec<Setting>,
}

impl Request {
    fn new(endpoint: &Endpoint, settings: &[Setting]) -> Self {
        let Endpoint { address, tls, login } = endpoint.clone();
        let password = login.password.map(|password| password.expose().clone());
        Self { address, tls, user: login.user, password, settings: settings.to_vec() }
    }

    fn endpoint(&self) -> Endpoint {
        let login = Login::new(self.user.clone(), self.password.clone().map(Secret::new));
        Endpoint::new(self.address.clone()).tls(self.tls.clone()).login(login)
    }
}

/// What it answers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ready,
    Failed(String),
    Left(Vec<Left>),
}

/// How a custodian ended.
pub(super) enum Released {
    /// It did what it could.
    Done(Vec<Left>),
    /// It goes on trying.
    Trying,
    /// It is gone, and nobody knows what it did.
    Gone,
}

impl Custodian {
    /// That program, without arguments.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts one over these settings. Once this returns they may be changed.
    pub(super) async fn keep(&self, endpoint: &Endpoint, settings: &[Setting]) -> Result<Kept, Error> {
        let failed = |source| {
            let path = self.program.display().to_string();
            Error::File { op: "have the server's settings put back by", path, source }
        };
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        // What ends a whole group, such as Ctrl-C, must not end it before it has done its work.
        let mut child = command.process_group(0).spawn().map_err(failed)?;
        let mut input = child.stdin.take().expect("it was asked for");
        let output = child.stdout.take().expect("it was asked for");
        let mut answers = tokio::io::BufReader::new(output);
        let mut line = serde_json::to_vec(&Request::new(endpoint, settings))
            .map_err(|error| failed(io::Error::other(error)))?;
        line.push(b'\n');
        input.write_all(&line).await.map_err(failed)?;
        match timeout(PATIENCE, answer(&mut answers)).await {
            Ok(Some(Answer::Ready)) => Ok(Kept { input, answers, child }),
            Ok(Some(Answer::Failed(words))) => Err(failed(io::Error::other(words))),
            Ok(_) => Err(failed(io::Error::other("it ended without a word"))),
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }
}

/// A custodian at work. Dropping this lets go as well, without waiting.
#[derive(Debug)]
pub(super) struct Kept {
    input: ChildStdin,
    answers: tokio::io::BufReader<ChildStdout>,
    child: Child,
}

impl Kept {
    /// Lets go, and waits until the settings are as they were.
    pub(super) async fn release(self) -> Released {
        let Self { input, mut answers, mut child } = self;
        drop(input);
        match timeout(PATIENCE, answer(&mut answers)).await {
            Ok(Some(Answer::Left(left))) => {
                // It ends now; a zombie would be ours.
                let _ = timeout(PATIENCE, child.wait()).await;
                Released::Done(left)
            }
            Ok(_) => Released::Gone,
            Err(_) => Released::Trying,
        }
    }
}

async fn answer(answers: &mut tokio::io::BufReader<ChildStdout>) -> Option<Answer> {
    let mut line = String::new();
    answers.read_line(&mut line).await.ok()?;
    serde_json::from_str(&line).ok()
}

/// The whole life of a custodian: learns from `input` what to put back where, waits for the end of `input`, does it, and
/// answers on `output`.
///
/// # Errors
/// A request that is none; settings that could not be put back when nobody listens any more.
///
/// # Cancel safety
/// A dropped call puts nothing back.
pub async fn keep_settings(input: impl Read + Send + 'static, mut output: impl Write) -> io::Result<()> {
    let (line, mut input) = blocking(move || {
        let (mut line, mut input) = (String::new(), io::BufReader::new(input));
        input.read_line(&mut line).map(|_| (line, input))
    })
    .await?;
    let request: Request = serde_json::from_str(&line)?;
    let endpoint = request.endpoint();
    let server = match Server::connect(&endpoint).await {
        Ok(server) => server,
        Err(error) => return say(&mut output, &Answer::Failed(describe(&error))),
    };
    say(&mut output, &Answer::Ready)?;
    // An error is an end as well.
    let _ = blocking(move || io::copy(&mut input, &mut io::sink())).await;
    let left = put_back(server, &endpoint, request.settings).await;
    let words: Vec<String> = left.iter().map(|left| left.words(&endpoint)).collect();
    match say(&mut output, &Answer::Left(left)) {
        Err(_) if !words.is_empty() => Err(io::Error::other(words.join("; "))),
        _ => Ok(()),
    }
}

impl Left {
    /// What there is to do, for the operator.
    pub(super) fn words(&self, endpoint: &Endpoint) -> String {
        let Self { setting: Setting { name, value }, problem } = self;
        format!("{endpoint} keeps a changed setting: put it back with CONFIG SET {name} {value} ({problem})")
    }
}

/// Tries as long as the server may come back. What could not be put back remains.
async fn put_back(server: Server, endpoint: &Endpoint, mut settings: Vec<Setting>) -> Vec<Left> {
    let deadline = Instant::now() + LIMIT;
    let mut server = Some(server);
    loop {
        let Err(error) = try_all(&mut server, endpoint, &mut settings).await else { return Vec::new() };
        if error.class() != Class::Temporary || Instant::now() >= deadline {
            let problem = describe(&error);
            let left = settings.into_iter().map(|setting| Left { setting, problem: problem.clone() });
            return left.collect();
        }
        server = None;
        sleep(AGAIN).await;
    }
}

/// Takes out what is done.
async fn try_all(
    connected: &mut Option<Server>,
    endpoint: &Endpoint,
    settings: &mut Vec<Setting>,
) -> Result<(), Error> {
    if connected.is_none() {
        *connected = Some(Server::connect(endpoint).await?);
    }
    let server = connected.as_mut().expect("it was just connected");
    while let Some(setting) = settings.last() {
        server.ask(&["CONFIG", "SET", &setting.name, &setting.value], "CONFIG SET").await?;
        settings.pop();
    }
    Ok(())
}

fn say(output: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
