//! A PostgreSQL server that exists only for one restore test.
//!
//! It is made with `initdb` in a folder of its own, listens on nothing but a Unix socket in that folder, writes
//! without fsync (it is worthless after the test), archives nothing, and is gone when the test ends, also when this
//! process is killed. PostgreSQL refuses to run as root, so root hands it to an unprivileged account.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstay_backup_core::process::{self, Child, CommandRunner, SystemRunner};
use sqlx::Connection;
use tokio_util::sync::CancellationToken;

use crate::account::{Account, command_as};
use crate::error::Error;
use crate::server::Server;
use crate::tools::{Tool, ToolSearch, find_tool};

/// Longest start of an empty server.
const START: Duration = Duration::from_secs(60);
/// Everything `initdb` says.
const MOST_WORDS: usize = 1 << 20;

/// What a throwaway server is made of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ThrowawayOptions {
    /// Major version that is needed at least.
    pub major: u32,
    /// Folder for its data; needs room for the restored database.
    pub scratch: PathBuf,
    /// Where server programs are.
    pub tools: ToolSearch,
    /// Memory for its cache and index builds in MiB.
    pub memory_mib: u32,
}

impl ThrowawayOptions {
    /// A server of at least that version below that folder.
    #[must_use]
    pub fn new(major: u32, scratch: impl Into<PathBuf>) -> Self {
        Self { major, scratch: scratch.into(), tools: ToolSearch::default(), memory_mib: 256 }
    }
}

/// A running throwaway server. Dropping it ends the server and removes its folder.
#[derive(Debug)]
pub struct Throwaway {
    child: Child,
    server: Server,
    // Removed last.
    folder: ScratchFolder,
}

/// A folder that removes itself.
#[derive(Debug)]
pub(crate) struct ScratchFolder(PathBuf);

impl ScratchFolder {
    /// Makes one that belongs to the account.
    pub(crate) fn make(scratch: &Path, account: Option<Account>) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("backstay-restore-test-{:016x}", rand::random::<u64>());
        // A socket path has at most 107 bytes, so the folder must not lie too deep.
        let path = scratch.join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Self(path);
        if let Some(Account { uid, gid }) = account {
            chown(&folder.0, Some(uid), Some(gid))?;
            std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o700))?;
        }
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "could not remove the test server's folder");
        }
    }
}

impl Throwaway {
    /// Makes and starts a server.
    ///
    /// # Errors
    /// [`Error::NoTool`] when this machine has no server programs of that version, [`Error::Tool`], [`Error::Spawn`].
    ///
    /// # Cancel safety
    /// A dropped call leaves no process and no folder.
    pub async fn start(options: &ThrowawayOptions) -> Result<Self, Error> {
        let (search, major) = (options.tools.clone(), options.major);
        let finding =
            tokio::task::spawn_blocking(move || find_tool("initdb", major, "the server of the set", &search));
        let initdb = finding.await.map_err(|error| crate::client::lost_thread("initdb", &error))??;
        let account = Account::for_servers().map_err(spawn_error)?;
        let folder = ScratchFolder::make(&options.scratch, account).map_err(spawn_error)?;
        let data = folder.0.join("data");
        init(&initdb, &data, account).await?;
        let child = launch(&initdb, &data, &folder.0, options, account).await?;
        let mut server = Server::new(&folder.0.display().to_string(), 5432, "postgres");
        "postgres".clone_into(&mut server.database);
        let mut running = Self { child, server, folder };
        running.wait_until_ready().await?;
        Ok(running)
    }

    /// How to reach it, as a superuser.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Ends it and removes its files.
    pub async fn stop(mut self) {
        self.child.terminate().await;
    }

    async fn wait_until_ready(&mut self) -> Result<(), Error> {
        let server = self.server.clone();
        let ready = async {
            loop {
                if let Ok(connection) = server.connect().await {
                    let _ = connection.close().await;
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = ready => Ok(()),
            ended = self.child.wait() => Err(match ended {
                Ok(()) => spawn_error(std::io::Error::other("the server ended at once")),
                Err(error) => spawn_error(std::io::Error::other(error)),
            }),
            () = tokio::time::sleep(START) => {
                Err(spawn_error(std::io::Error::other(format!("not ready after {} s", START.as_secs()))))
            }
        }
    }
}

async fn init(initdb: &Tool, data: &Path, account: Option<Account>) -> Result<(), Error> {
    let arguments = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"];
    let spec = command_as(&initdb.path, account).args(arguments).arg(format!("--pgdata={}", data.display()));
    let words = process::capture(&runner(), spec, MOST_WORDS, &CancellationToken::new()).await;
    words.map(|_| ()).map_err(|error| spawn_error(std::io::Error::other(error)))
}

async fn launch(
    initdb: &Tool,
    data: &Path,
    sockets: &Path,
    options: &ThrowawayOptions,
    account: Option<Account>,
) -> Result<Child, Error> {
    let memory = options.memory_mib.max(32);
    let settings = [
        "listen_addresses=".to_owned(),
        format!("unix_socket_directories={}", sockets.display()),
        "unix_socket_permissions=0700".to_owned(),
        "fsync=off".to_owned(),
        "full_page_writes=off".to_owned(),
        "synchronous_commit=off".to_owned(),
        "archive_mode=off".to_owned(),
        "wal_level=minimal".to_owned(),
        "max_wal_senders=0".to_owned(),
        "autovacuum=off".to_owned(),
        "logging_collector=off".to_owned(),
        "max_wal_size=4GB".to_owned(),
        format!("shared_buffers={memory}MB"),
        format!("maintenance_work_mem={memory}MB"),
    ];
    let mut spec = command_as(&initdb.folder().join("postgres"), account);
    spec =
        spec.arg("-D").arg(data).args(settings.iter().flat_map(|setting| ["-c".to_owned(), setting.clone()]));
    runner().spawn(spec).await.map_err(|error| spawn_error(std::io::Error::other(error)))
}

fn runner() -> SystemRunner {
    SystemRunner::new(&BTreeMap::new())
}

fn spawn_error(source: std::io::Error) -> Error {
    Error::Spawn { program: "the test server", source }
}
