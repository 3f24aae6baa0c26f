//! Starts the server of a restored cluster and waits until its recovery is over.
//!
//! `pg_ctl` starts it, so it outlives this process; whether it recovers still stands in its control file. No
//! connection is needed: the roles and the `pg_hba.conf` of the source decide who may connect, and a restore is not
//! asked. Where recovery ended stands in the history of the timeline that it began, to the byte.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::process::{self, SystemRunner};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::ClusterRestoreError;
use super::set_index::CONTROL;
use crate::account::{Account, command_as};
use crate::error::Error;
use crate::physical::ControlFile;
use crate::physical::control::ClusterState;
use crate::tools::{ToolSearch, find_tool};
use crate::wal::{Lsn, Timeline, TimelineHistory};

/// What the server says before a log collector takes over, and everything where there is none.
pub(super) const LOG: &str = "backstay-recovery.log";
/// The file that says where the log collector writes.
const CURRENT_LOGS: &str = "current_logfiles";
/// How often the state is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Longest time that `pg_ctl` waits; recovery ends by itself, or the server does.
const PATIENCE: &str = "31536000";
/// Everything `pg_ctl` says.
const MOST_WORDS: usize = 1 << 16;
/// Last words in bytes.
const LAST_WORDS: u64 = 3000;
/// What the server logs when it waits at its target.
const PAUSED: &str = "pausing at the end of recovery";

/// How a restored cluster is started.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct StartOptions {
    /// Where the server programs are; those of the very version of the source are needed.
    pub tools: ToolSearch,
    /// Settings of this start only, such as `port`.
    pub settings: Vec<(String, String)>,
    /// Variables of the server's environment, for its `restore_command`.
    pub environment: BTreeMap<String, String>,
}

impl fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of the environment stay out: credentials travel there.
        f.debug_struct("StartOptions")
            .field("tools", &self.tools)
            .field("settings", &self.settings)
            .field("environment", &self.environment.keys())
            .finish()
    }
}

impl StartOptions {
    /// With programs from there.
    #[must_use]
    pub fn new(tools: ToolSearch) -> Self {
        Self { tools, ..Self::default() }
    }

    /// Adds a setting of this start.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Until when to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// It is open for writing.
    Promoted,
    /// It waits at the target.
    Paused,
    /// It is open for reading.
    Standby,
}

impl Until {
    /// Settings without which the log would not tell what the server waits for: words in English, and for a pause, of
    /// which nothing but a line of the log tells, that line in a file.
    fn legible(self) -> &'static [(&'static str, &'static str)] {
        const ENGLISH: (&str, &str) = ("lc_messages", "C");
        match self {
            Self::Promoted | Self::Standby => &[ENGLISH],
            Self::Paused => &[ENGLISH, ("log_min_messages", "warning"), ("log_destination", "stderr")],
        }
    }
}

/// Where recovery ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RecoveryEnd {
    /// The end of the last record that was replayed.
    pub lsn: Lsn,
    /// The timeline that it is on.
    pub timeline: Timeline,
    /// The timeline that the server began there.
    pub new_timeline: Timeline,
    /// Why the server ended there, in its own words.
    pub reason: String,
}

/// A server that was started.
#[derive(Debug)]
pub(super) struct ClusterServer {
    data: PathBuf,
    pg_ctl: PathBuf,
    account: Option<Account>,
}

impl ClusterServer {
    /// Starts it, and waits until it is open for reading, which may be at once or after a long recovery.
    pub(super) async fn start(
        data: &Path,
        major: u32,
        account: Option<Account>,
        (options, until): (&StartOptions, Until),
        cancel: &CancellationToken,
    ) -> Result<Self, ClusterRestoreError> {
        let pg_ctl = find_exact(major, &options.tools).await?;
        let server = Self { data: data.to_owned(), pg_ctl, account };
        let given = options.settings.iter().map(|(name, value)| (&**name, &**value));
        let settings = given.chain(until.legible().iter().copied());
        let arguments: String =
            settings.map(|(name, value)| format!(" -c {}", shell_word(&format!("{name}={value}")))).collect();
        let log = data.join(LOG);
        let spec = command_as(&server.pg_ctl, account)
            .args(["start", "--silent", "--wait", "--timeout", PATIENCE, "--pgdata"])
            .arg(data)
            .arg("--log")
            .arg(&log)
            .arg(format!("--options={}", arguments.trim_start()));
        let variables = options.environment.iter();
        let spec = variables.fold(spec, |spec, (name, value)| spec.env(name, value));
        let runner = SystemRunner::new(&BTreeMap::new());
        match process::capture(&runner, spec, MOST_WORDS, cancel).await {
            Ok(_) => Ok(server),
            Err(_) if cancel.is_cancelled() => {
                server.stop().await;
                Err(CoreError::Cancelled.into())
            }
            Err(process::ProcessError::Failed { tail, .. }) => Err(server.failed("did not start", &tail)),
            Err(source) => Err(spawn_error(source).into()),
        }
    }

    /// Waits until recovery is over.
    pub(super) async fn wait(
        &self,
        until: Until,
        cancel: &CancellationToken,
    ) -> Result<(), ClusterRestoreError> {
        loop {
            match (self.process(), until) {
                (Some(_), Until::Promoted) if self.is_promoted() => return Ok(()),
                (Some(_), Until::Standby) => return Ok(()),
                (Some(_), Until::Paused) if self.is_promoted() => {
                    return Err(self.failed("was promoted instead of waiting at its target", ""));
                }
                (Some(_), Until::Paused) if self.words().contains(PAUSED) => return Ok(()),
                (Some(_), _) => {}
                (None, _) => return Err(self.failed("ended before its recovery did", "")),
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = cancel.cancelled() => {
                    self.stop().await;
                    return Err(CoreError::Cancelled.into());
                }
            }
        }
    }

    /// Ends it without waiting for anybody. What it recovered so far is not lost; it goes on at the next start.
    pub(super) async fn stop(&self) {
        let spec = command_as(&self.pg_ctl, self.account)
            .args(["stop", "--silent", "--mode=fast", "--timeout=60", "--pgdata"])
            .arg(&self.data);
        let runner = SystemRunner::new(&BTreeMap::new());
        let stopped = process::capture(&runner, spec, MOST_WORDS, &CancellationToken::new()).await;
        if let Err(error) = stopped {
            tracing::warn!(data = %self.data.display(), %error, "could not stop the restored server");
        }
    }

    /// Whether it is open for writing. A server that recovers says so in its control file before it replays anything, and
    /// `pg_ctl` waited for more than that.
    fn is_promoted(&self) -> bool {
        let content = std::fs::read(self.data.join(CONTROL)).unwrap_or_default();
        // Read while it is written it fails its checksum, and is read again.
        ControlFile::parse(&content).is_ok_and(|control| control.state == ClusterState::InProduction)
    }

    /// The living server's process; `None` when it does not live.
    fn process(&self) -> Option<rustix::process::Pid> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok().and_then(rustix::process::Pid::from_raw)?;
        let lives = rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH);
        lives.then_some(pid)
    }

    fn failed(&self, problem: &str, said: &str) -> ClusterRestoreError {
        let words = self.words();
        let words = if words.is_empty() { said.to_owned() } else { words };
        ClusterRestoreError::Server { problem: problem.to_owned(), words }
    }

    /// The end of its logs.
    fn words(&self) -> String {
        let mut words = tail(&self.data.join(LOG));
        let current = std::fs::read_to_string(self.data.join(CURRENT_LOGS)).unwrap_or_default();
        if let Some(collected) = current.lines().next().and_then(|line| line.split_once(' ')) {
            words.push('\n');
            words.push_str(&tail(&self.data.join(collected.1)));
        }
        words.trim().to_owned()
    }
}

/// Where the recovery of a cluster ended that was promoted: its newest timeline began there, and is newer than the one
/// that recovery followed.
pub(super) fn recovery_end(data: &Path, followed: Timeline) -> Result<RecoveryEnd, ClusterRestoreError> {
    let unknown = |problem: String| ClusterRestoreError::Server {
        problem: format!("does not say where its recovery ended: {problem}"),
        words: tail(&data.join(LOG)),
    };
    let timeline = newest_timeline(data).map_err(&unknown)?;
    if timeline <= followed {
        return Err(unknown(format!("it is still on timeline {}", followed.number())));
    }
    let path = data.join(format!("pg_wal/{timeline}.history"));
    let text =
        std::fs::read_to_string(&path).map_err(|error| unknown(format!("{}: {error}", path.display())))?;
    let history = TimelineHistory::parse(timeline, &text).map_err(|error| unknown(error.to_string()))?;
    let Some(last) = history.branches().last() else {
        return Err(unknown("its history is empty".to_owned()));
    };
    Ok(RecoveryEnd {
        lsn: last.end,
        timeline: last.timeline,
        new_timeline: timeline,
        reason: last.reason.clone(),
    })
}

fn newest_timeline(data: &Path) -> Result<Timeline, String> {
    let entries = std::fs::read_dir(data.join("pg_wal")).map_err(|error| error.to_string())?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let timelines = names.filter_map(|name| match name.parse() {
        Ok(crate::wal::WalFile::History(timeline)) => Some(timeline),
        _ => None,
    });
    timelines.max().ok_or_else(|| "it began no timeline".to_owned())
}

/// Ends the server of a data directory that is worthless, and waits until it is gone. Blocks; for a drop.
pub(super) fn stop_at_once(data: &Path) {
    let pid = || {
        let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok().and_then(rustix::process::Pid::from_raw)
    };
    let Some(pid) = pid() else { return };
    // An immediate shutdown: it ends its own children and frees its shared memory.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
    let begin = std::time::Instant::now();
    while rustix::process::test_kill_process(pid).is_ok() && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(POLL);
    }
}

/// `pg_ctl` of this very major version: others do not open the cluster.
async fn find_exact(major: u32, search: &ToolSearch) -> Result<PathBuf, ClusterRestoreError> {
    let search = search.clone();
    let finding =
        tokio::task::spawn_blocking(move || find_tool("pg_ctl", major, "the server of the set", &search));
    let tool = finding.await.map_err(|error| crate::client::lost_thread("pg_ctl", &error))??;
    if tool.major == major {
        return Ok(tool.path);
    }
    let searched = format!("version {} in {}", tool.major, tool.folder().display());
    Err(Error::NoTool { program: "pg_ctl", needed: major, searched }.into())
}

/// The end of a file, from the beginning of a line.
fn tail(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let whole = if bytes.len() as u64 == LAST_WORDS {
        text.split_once('\n').map_or(&*text, |it| it.1)
    } else {
        &text
    };
    whole.trim().to_owned()
}

/// A word as the shell that `pg_ctl` starts the server with reads it.
fn shell_word(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn spawn_error(source: process::ProcessError) -> Error {
    Error::Spawn { program: "pg_ctl", source: std::io::Error::other(source) }
}
