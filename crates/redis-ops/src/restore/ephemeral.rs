//! A server that exists only to load what is restored: to prove it, or to turn a stream into a snapshot.
//!
//! It works in a folder of its own, listens on nothing but a Unix socket there, saves nothing by itself, and is gone when
//! it is dropped, also when this process is killed. The socket is reached through the server's working directory, so that
//! the folder may lie as deep as it likes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::process::{self, Child, CommandRunner, CommandSpec, SystemRunner};
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::live::query;
use super::place::free_bytes;

const SOCKET: &str = "socket";
const LOG: &str = "server.log";
/// How often a loading server is asked.
const POLL: Duration = Duration::from_millis(10);
/// With less than that nobody works.
const LITTLE: u64 = 64 << 10;
/// Last words in bytes.
const LAST_WORDS: usize = 3000;
/// Longest answer to `--version`.
const MOST_WORDS: usize = 1 << 12;
/// Programs, in order of preference.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// A server program of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ServerProgram {
    /// Where it is.
    pub path: PathBuf,
    /// Its name and version, such as `redis 7.0.15`.
    pub version: ServerVersion,
}

/// Name and version of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
#[non_exhaustive]
pub struct ServerVersion {
    /// Whether it is Valkey.
    pub is_valkey: bool,
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    text: String,
}

impl From<ServerVersion> for String {
    fn from(version: ServerVersion) -> Self {
        version.to_string()
    }
}

impl std::fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.is_valkey { "valkey" } else { "redis" };
        write!(f, "{name} {}", self.text)
    }
}

impl ServerVersion {
    /// Reads `7.0.15`.
    #[must_use]
    pub fn parse(text: &str, is_valkey: bool) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| part.parse::<u32>());
        let (major, minor) = (numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0));
        Some(Self { is_valkey, major, minor, text: text.chars().take(40).collect() })
    }

    /// The newest version of a snapshot that it is known to load; `None` for servers that are newer than this program.
    #[must_use]
    pub fn newest_snapshot(&self) -> Option<u32> {
        match (self.is_valkey, self.major, self.minor) {
            (true, ..=8, _) => Some(11),
            (true, 9, _) => Some(80),
            (false, ..=4, _) => Some(8),
            (false, 5..=6, _) => Some(9),
            (false, 7, 0) => Some(10),
            (false, 7, 1..=3) => Some(11),
            (false, 7, _) | (false, 8, 0) => Some(12),
            _ => None,
        }
    }
}

impl ServerProgram {
    /// The program at that path, or the first of this machine.
    ///
    /// # Errors
    /// There is none, or it does not say what it is.
    pub async fn find(path: Option<&Path>, search: Option<&str>) -> Result<Self, RestoreError> {
        let candidates: Vec<PathBuf> = match path {
            Some(path) => vec![path.to_owned()],
            None => {
                let folders = search.unwrap_or("/usr/local/bin:/usr/bin:/bin");
                let in_folder = |folder: &str| PROGRAMS.map(|name| Path::new(folder).join(name));
                folders.split(':').flat_map(in_folder).collect()
            }
        };
        let Some(found) = candidates.iter().find(|path| path.is_file()) else {
            let wanted = path.map_or_else(|| PROGRAMS.join(" or "), |path| path.display().to_string());
            return Err(RestoreError::usage(
                format!("there is no server program ({wanted}) on this machine"),
                "install redis-server, or name the program with --server-program",
            ));
        };
        let spec = CommandSpec::new(found).arg("--version");
        let words = process::capture(&runner(), spec, MOST_WORDS, &CancellationToken::new()).await;
        let words = words.map_err(|error| RestoreError::Io {
            op: "start",
            path: found.clone(),
            source: std::io::Error::other(error),
        })?;
        let words = String::from_utf8_lossy(&words).into_owned();
        let version = read_version(&words).ok_or_else(|| {
            let problem = format!(
                "{} is no Redis or Valkey server: it says {:?}",
                found.display(),
                words.lines().next().unwrap_or_default()
            );
            RestoreError::usage(problem, "name the program with --server-program")
        })?;
        Ok(Self { path: found.clone(), version })
    }
}

/// `Redis server v=7.0.15 sha=…`, `Valkey server v=8.1.1 …`.
fn read_version(words: &str) -> Option<ServerVersion> {
    let text = words.split_whitespace().find_map(|word| word.strip_prefix("v="))?;
    ServerVersion::parse(text, words.starts_with("Valkey"))
}

/// A running server. Dropping it ends it; the folder stays.
#[derive(Debug)]
pub(super) struct Ephemeral {
    child: Child,
    connection: MultiplexedConnection,
    folder: PathBuf,
}

impl Ephemeral {
    /// Starts a server in a folder and waits until it has loaded what is there. `settings` come on top.
    ///
    /// # Errors
    /// It ends instead, with its last words.
    pub(super) async fn start(
        program: &ServerProgram,
        folder: &Path,
        settings: &[(&str, &str)],
        cancel: &CancellationToken,
    ) -> Result<Self, RestoreError> {
        let usual = [
            ("port", "0"),
            ("unixsocket", SOCKET),
            ("unixsocketperm", "700"),
            ("logfile", LOG),
            ("save", ""),
            ("daemonize", "no"),
            ("maxmemory", "0"),
            ("protected-mode", "yes"),
        ];
        let arguments = usual.iter().chain(settings);
        let arguments = arguments.flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]);
        // A replica expires nothing by itself and writes to no file: what was loaded stays as it was at the target. Its
        // primary is nobody.
        let spec = CommandSpec::new(&program.path)
            .args(arguments)
            .args(["--replicaof", "127.0.0.1", "1"])
            .directory(folder);
        let started = runner().spawn(spec).await;
        let mut child = started.map_err(|error| RestoreError::Io {
            op: "start",
            path: program.path.clone(),
            source: std::io::Error::other(error),
        })?;
        let process = child.id().unwrap_or_default();
        let socket = format!("redis+unix:///proc/{process}/cwd/{SOCKET}");
        tokio::select! {
            connection = connect(&socket) => Ok(Self { child, connection: connection?, folder: folder.to_owned() }),
            ended = child.wait() => {
                let words = last_words(&folder.join(LOG));
                let words = if words.is_empty() { child.stderr_tail() } else { words };
                if is_full(&words, folder) {
                    return Err(full(folder));
                }
                let how = ended.err().map_or_else(|| "ended".to_owned(), |_| "ended with an error".to_owned());
                Err(RestoreError::server(format!("({}) {how} while it loaded the data", program.version), words))
            }
            () = cancel.cancelled() => Err(CoreError::Cancelled.into()),
        }
    }

    pub(super) fn connection(&mut self) -> &mut MultiplexedConnection {
        &mut self.connection
    }

    /// Writes a snapshot of what it has, and ends. Gives the file.
    pub(super) async fn save(mut self, name: &str) -> Result<PathBuf, RestoreError> {
        let saved = query::<String>(&mut self.connection, &["SAVE"]).await;
        if let Err(error) = saved {
            let words = last_words(&self.folder.join(LOG));
            if is_full(&words, &self.folder) {
                return Err(full(&self.folder));
            }
            return Err(RestoreError::server(format!("could not write a snapshot: {error}"), words));
        }
        let file = self.folder.join(name);
        self.stop().await;
        Ok(file)
    }

    /// Ends it.
    pub(super) async fn stop(mut self) {
        self.child.terminate().await;
    }
}

/// Whether a server failed because its disk is full. It may have had no room to say so.
fn is_full(words: &str, folder: &Path) -> bool {
    words.contains("No space left on device") || free_bytes(folder).is_ok_and(|free| free < LITTLE)
}

fn full(folder: &Path) -> RestoreError {
    let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
    RestoreError::Io { op: "load the data in a throwaway server in", path: folder.to_owned(), source }
}

fn runner() -> SystemRunner {
    SystemRunner::new(&BTreeMap::new())
}

/// Connects as soon as the server listens, and waits until it has loaded.
async fn connect(socket: &str) -> Result<MultiplexedConnection, RestoreError> {
    let client = redis::Client::open(socket).map_err(|error| RestoreError::server(error.to_string(), ""))?;
    let mut connection = None;
    loop {
        if connection.is_none() {
            connection = client.get_multiplexed_async_connection().await.ok();
        }
        if let Some(open) = &mut connection {
            match query::<String>(open, &["PING"]).await {
                Ok(_) => return Ok(open.clone()),
                // It loads, or it ended; the latter is noticed elsewhere.
                Err(error) if error.is_io_error() => connection = None,
                Err(_) => {}
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The end of a log, from the beginning of a line.
pub(super) fn last_words(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let end = &bytes[bytes.len().saturating_sub(LAST_WORDS)..];
    let text = String::from_utf8_lossy(end);
    let whole = if end.len() < bytes.len() { text.split_once('\n').map_or(&*text, |it| it.1) } else { &text };
    whole.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_what_they_are() {
        let redis =
            read_version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc bits=64 build=1\n").unwrap();
        assert_eq!((redis.is_valkey, redis.major, redis.minor), (false, 7, 0));
        assert_eq!(redis.newest_snapshot(), Some(10));
        assert_eq!(redis.to_string(), "redis 7.0.15");
        let valkey = read_version("Valkey server v=8.1.1 sha=00000000:0").unwrap();
        assert_eq!((valkey.is_valkey, valkey.newest_snapshot()), (true, Some(11)));
        assert_eq!(ServerVersion::parse("99.1.0", false).unwrap().newest_snapshot(), None);
        assert!(read_version("bash 5").is_none());
    }
}
