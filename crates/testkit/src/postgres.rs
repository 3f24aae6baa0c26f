//! A real PostgreSQL server for one test.
//!
//! The server listens on a free loopback port and on a Unix socket in its own directory, asks everybody for a
//! password (SCRAM), and has one superuser, `postgres`, with a random one. All functions block for as long as the
//! server or the client program takes (milliseconds, except a start); [`TestPostgres::start`] is the asynchronous form
//! of the one that takes long.

mod client;
mod install;
mod options;
mod template;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub use install::PostgresInstall;
pub(crate) use install::{finish, program_name, run};
pub use options::PostgresOptions;

use crate::guard::{ProcessGuard, Signal, tail};
use crate::ports::{PortLease, random_word};
use crate::{Account, Error, Result, ScratchDir};
use template::{Cluster, TEMPLATE_PASSWORD};

/// The superuser of every test server.
const SUPERUSER: &str = "postgres";

/// Crash recovery of a large test database on a busy machine may take this long.
const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopMode {
    /// Ends sessions, writes a checkpoint.
    Fast,
    /// Ends at once, without a checkpoint; the next start does crash recovery.
    Immediate,
}

/// A PostgreSQL server that lives as long as this handle.
#[derive(Debug)]
pub struct TestPostgres {
    // Dropped in this order: the server, then its directory, then its port.
    server: Option<ProcessGuard>,
    scratch: ScratchDir,
    port: PortLease,
    install: PostgresInstall,
    account: Option<Account>,
    data: PathBuf,
    password: String,
    shared_memory: Option<String>,
}

impl TestPostgres {
    /// Starts a server without blocking the runtime; it accepts connections when this returns.
    ///
    /// # Errors
    /// See [`TestPostgres::start_blocking`].
    ///
    /// # Cancel safety
    /// A dropped future leaves a start that runs to its end in the background and is then taken back at once.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        match tokio::task::spawn_blocking(move || Self::start_blocking(&options)).await {
            Ok(started) => started,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::State("the runtime was shut down during the start")),
            },
        }
    }

    /// Starts a server; it accepts connections when this returns.
    ///
    /// # Errors
    /// When the version is not installed, `initdb` refuses an option or the server does not come up.
    pub fn start_blocking(options: &PostgresOptions) -> Result<Self> {
        let account = Account::for_servers()?;
        let install = options.install.clone().map_or_else(PostgresInstall::system, Ok)?;
        let scratch = ScratchDir::create("pg", account.as_ref())?;
        scratch.subdirectory("socket", account.as_ref())?;
        let (data, password) = match &options.existing {
            Some((data, password)) => (template::adopt(data, account.as_ref())?, password.clone()),
            None => {
                let data = scratch.path().join("data");
                let cluster = Cluster { install: &install, options, account: account.as_ref() };
                cluster.create(&scratch, &data)?;
                (data, TEMPLATE_PASSWORD.to_owned())
            }
        };
        append(&data.join("postgresql.conf"), &options.configuration())?;
        let port = PortLease::reserve()?;
        let mut server =
            Self { server: None, scratch, port, install, account, data, password, shared_memory: None };
        server.write_passfile()?;
        server.launch()?;
        if options.existing.is_none() {
            server.renew_password()?;
        }
        Ok(server)
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(self.install.bin().join("postgres"));
        command.arg("-D").arg(&self.data);
        // On the command line, because a restored cluster brings the settings of the server it came from.
        let fixed = [
            format!("port={}", self.port()),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", self.socket_directory().display()),
            "logging_collector=off".to_owned(),
            "log_destination=stderr".to_owned(),
        ];
        for setting in fixed {
            command.args(["-c", &setting]);
        }
        client::forget_surroundings(&mut command);
        let name = format!("PostgreSQL {}", self.install.major());
        let server = ProcessGuard::spawn(&command, self.account.as_ref(), "QUIT", &self.log())?;
        let pid = server.pid().to_string();
        let pid_file = self.data.join("postmaster.pid");
        self.server.insert(server).wait_ready(&name, START_PATIENCE, || is_ready(&pid_file, &pid))?;
        self.shared_memory = shared_memory(&pid_file);
        Ok(())
    }

    /// Replaces the template's password.
    fn renew_password(&mut self) -> Result<()> {
        let password = random_word()?;
        self.psql("postgres", &format!("ALTER ROLE {SUPERUSER} PASSWORD '{password}'"))?;
        self.password = password;
        self.write_passfile()
    }

    /// The programs this server was started from.
    pub fn install(&self) -> &PostgresInstall {
        &self.install
    }

    /// The loopback port.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The directory of the Unix socket.
    pub fn socket_directory(&self) -> PathBuf {
        self.scratch.path().join("socket")
    }

    /// The data directory.
    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// A directory that this server's processes may write to and that goes away with it.
    pub fn scratch(&self) -> &ScratchDir {
        &self.scratch
    }

    /// The account the server runs as, when that is not the caller's.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// The server's log file.
    pub fn log(&self) -> PathBuf {
        self.scratch.path().join("log")
    }

    /// Whether the server process runs.
    pub fn is_running(&mut self) -> bool {
        self.server.as_mut().is_some_and(|server| server.try_exit().is_none())
    }

    /// The running server process, for its id and to freeze and thaw it; `None` when stopped.
    pub fn process(&self) -> Option<&ProcessGuard> {
        self.server.as_ref()
    }

    /// Stops the server and keeps its data for [`TestPostgres::restart`].
    ///
    /// # Errors
    /// When it does not end within a minute. A server that has ended before is no error.
    pub fn stop(&mut self, mode: StopMode) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        server.signal(match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        });
        server.thaw();
        if server.wait_exit(STOP_PATIENCE).is_none() {
            let what = "the server's shutdown".to_owned();
            return Err(Error::Timeout { what, seconds: STOP_PATIENCE.as_secs(), log: tail(&self.log()) });
        }
        Ok(())
    }

    /// Kills the server with all its processes at once; its data stay as they are for [`TestPostgres::restart`].
    pub fn kill9(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill9();
        }
    }

    /// Starts a stopped or killed server again, or stops a running one first; port, password and data stay.
    ///
    /// # Errors
    /// When it does not stop or does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.stop(StopMode::Fast)?;
        self.launch()
    }

    /// Lets the server read its configuration files again.
    pub fn reload(&self) {
        if let Some(server) = &self.server {
            server.signal(Signal::HUP);
        }
    }

    /// Adds lines to `postgresql.conf`; they count from the next [`TestPostgres::reload`] or restart.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append_configuration(&self, lines: &str) -> Result<()> {
        append(&self.data.join("postgresql.conf"), lines)
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // An immediate shutdown frees the shared memory, which a kill would leave behind.
            server.signal(Signal::QUIT);
            server.thaw();
            server.wait_exit(Duration::from_secs(8));
        }
        self.server = None;
        free_shared_memory(self.shared_memory.as_deref());
    }
}

/// The eighth line of the pid file is the server's state, the first its process.
fn is_ready(pid_file: &Path, pid: &str) -> bool {
    fs::read_to_string(pid_file).is_ok_and(|text| {
        let mut lines = text.lines();
        lines.next() == Some(pid)
            && lines.nth(6).is_some_and(|state| matches!(state.trim(), "ready" | "standby"))
    })
}

/// The id of the shared memory segment, from the seventh line of the pid file.
fn shared_memory(pid_file: &Path) -> Option<String> {
    let text = fs::read_to_string(pid_file).ok()?;
    text.lines().nth(6)?.split_whitespace().nth(1).map(str::to_owned)
}

/// Removes the segment of a killed server. It is usually gone; `ipcrm` then says so and nobody listens.
fn free_shared_memory(id: Option<&str>) {
    let Some(id) = id else { return };
    let listed = fs::read_to_string("/proc/sysvipc/shm").is_ok_and(|table| {
        table.lines().skip(1).any(|line| {
            let mut columns = line.split_whitespace().skip(1);
            // Columns: key, id, mode, size, creator, last user, attached processes. Only what nobody uses goes.
            columns.next() == Some(id) && columns.nth(4) == Some("0")
        })
    });
    if listed {
        let _ = Command::new("ipcrm").args(["-m", id]).output();
    }
}

fn append(path: &Path, lines: &str) -> Result<()> {
    let mut file = File::options().append(true).open(path).map_err(Error::io("open", path))?;
    file.write_all(lines.as_bytes()).map_err(Error::io("write", path))
}
