//! A real Redis server for one test: free loopback port, own directory, random password, nothing persisted unless
//! the test asks for it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache;
use crate::guard::{ProcessGuard, Signal, tail};
use crate::ports::{PortLease, random_word};
use crate::postgres::run;
use crate::{Account, Error, Result, ScratchDir};

/// Loading a large snapshot on a busy machine may take this long.
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How a [`TestRedis`] is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisOptions {
    /// The server program; the client is expected beside it.
    pub program: PathBuf,
    /// Lines for the configuration file, such as `("appendonly", "yes")`.
    pub settings: Vec<(String, String)>,
    /// Whether clients must give a password; they must by default.
    pub password: bool,
    /// The password; a random one without it.
    given: Option<String>,
}

/// A kind of server that tests need, and whether one is of it.
type Kind = (&'static str, fn(&RedisProgram) -> bool);

/// A server program, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RedisProgram {
    /// `redis-7.0.15`, `valkey-9.1.2`.
    pub name: String,
    /// The program; its client lies beside it.
    pub path: PathBuf,
    /// Its first number.
    pub major: u32,
}

impl RedisProgram {
    /// Whether it is Valkey.
    #[must_use]
    pub fn is_valkey(&self) -> bool {
        self.name.starts_with("valkey")
    }

    /// Whether fields of hashes can expire there.
    #[must_use]
    pub fn has_field_expiries(&self) -> bool {
        self.major >= if self.is_valkey() { 9 } else { 8 }
    }

    /// Options that start it.
    #[must_use]
    pub fn options(&self) -> RedisOptions {
        RedisOptions::default().program(&self.path)
    }

    fn at(path: PathBuf) -> Result<Self> {
        let words = run(Command::new(&path).arg("--version"))?;
        let version = words.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or_default();
        let product = if words.starts_with("Valkey") { "valkey" } else { "redis" };
        let major = version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        Ok(Self { name: format!("{product}-{version}"), path, major })
    }

    /// Every server that the tests are run with: the distribution's, and those that `scripts/setup.sh --redis` fetched.
    ///
    /// # Errors
    /// When one of the kinds is missing: a Redis before 7, the distribution's, a newer one, a Valkey.
    pub fn all() -> Result<Vec<Self>> {
        let mut found = vec![Self::at(PathBuf::from("/usr/bin/redis-server"))?];
        for folder in
            cache::candidates().into_iter().flat_map(|cache| [cache.join("redis-old"), cache.join("redis")])
        {
            let Ok(copies) = fs::read_dir(folder) else { continue };
            let programs = copies.flatten().map(|copy| copy.path().join("bin/redis-server"));
            for program in programs.filter(|program| program.is_file()) {
                found.push(Self::at(program)?);
            }
        }
        found.sort();
        found.dedup_by(|one, other| one.name == other.name);
        let kinds: [Kind; 3] = [
            ("a Redis before version 7", |it| !it.is_valkey() && it.major < 7),
            ("a Redis of version 8 or newer", |it| !it.is_valkey() && it.major >= 8),
            ("a Valkey of version 8 or newer", |it| it.is_valkey() && it.major >= 8),
        ];
        match kinds.iter().find(|(_, is)| !found.iter().any(is)) {
            None => Ok(found),
            Some((what, _)) => {
                let (what, command) = ((*what).to_owned(), "scripts/setup.sh --redis".to_owned());
                Err(Error::NotInstalled { what, command })
            }
        }
    }
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            program: PathBuf::from("/usr/bin/redis-server"),
            settings: vec![],
            password: true,
            given: None,
        }
    }
}

impl RedisOptions {
    /// Uses another server program, such as a newer Redis or Valkey.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Adds a line to the configuration file.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes the password of another server, so that both can follow each other.
    #[must_use]
    pub fn password_of(mut self, password: &str) -> Self {
        self.given = Some(password.to_owned());
        self
    }

    /// Sets whether clients must give a password.
    #[must_use]
    pub fn password(mut self, on: bool) -> Self {
        self.password = on;
        self
    }
}

/// A Redis server that lives as long as this handle.
#[derive(Debug)]
pub struct TestRedis {
    // Dropped in this order: the server, then its directory, then its port.
    server: Option<ProcessGuard>,
    scratch: ScratchDir,
    port: PortLease,
    account: Option<Account>,
    program: PathBuf,
    password: Option<String>,
}

impl TestRedis {
    /// Starts a server without blocking the runtime; it answers when this returns.
    ///
    /// # Errors
    /// See [`TestRedis::start_blocking`].
    ///
    /// # Cancel safety
    /// A dropped future leaves a start that runs to its end in the background and is then taken back at once.
    pub async fn start(options: RedisOptions) -> Result<Self> {
        match tokio::task::spawn_blocking(move || Self::start_blocking(&options)).await {
            Ok(started) => started,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::State("the runtime was shut down during the start")),
            },
        }
    }

    /// Starts a server; it answers when this returns.
    ///
    /// # Errors
    /// When Redis is not installed, refuses a setting or does not come up.
    pub fn start_blocking(options: &RedisOptions) -> Result<Self> {
        if !options.program.is_file() {
            let what = options.program.display().to_string();
            return Err(Error::NotInstalled { what, command: "scripts/setup.sh".to_owned() });
        }
        let account = Account::for_servers()?;
        let scratch = ScratchDir::create("redis", account.as_ref())?;
        scratch.subdirectory("data", account.as_ref())?;
        let port = PortLease::reserve()?;
        let password = match &options.given {
            Some(given) => Some(given.clone()),
            None => options.password.then(random_word).transpose()?,
        };
        let program = options.program.clone();
        let mut redis = Self { server: None, scratch, port, account, program, password };
        redis.write_configuration(options)?;
        redis.launch()?;
        Ok(redis)
    }

    fn write_configuration(&self, options: &RedisOptions) -> Result<()> {
        let mut lines = format!(
            "bind 127.0.0.1\nport {}\nunixsocket {}\ndir {}\nsave \"\"\n",
            self.port(),
            self.socket().display(),
            self.data_directory().display()
        );
        if let Some(password) = &self.password {
            lines.push_str(&format!("requirepass {password}\nmasterauth {password}\n"));
        }
        for (name, value) in &options.settings {
            lines.push_str(&format!("{name} {value}\n"));
        }
        let path = self.configuration();
        fs::write(&path, lines).map_err(Error::io("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(Error::io("protect", &path))?;
        self.account.as_ref().map_or(Ok(()), |account| account.give(&path))
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg(self.configuration()).current_dir("/");
        let server = ProcessGuard::spawn(&command, self.account.as_ref(), "KILL", &self.log())?;
        let (port, password) = (self.port(), self.password.as_deref());
        self.server.insert(server).wait_ready("Redis", START_PATIENCE, || answers(port, password))
    }

    /// The loopback port.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The address, with the password if there is one.
    pub fn url(&self) -> String {
        let password = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{password}127.0.0.1:{}", self.port())
    }

    /// The password clients must give.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.scratch.path().join("redis.sock")
    }

    /// The directory of snapshots and append-only files.
    pub fn data_directory(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// The configuration file, which also holds the password.
    pub fn configuration(&self) -> PathBuf {
        self.scratch.path().join("redis.conf")
    }

    /// The server's log file.
    pub fn log(&self) -> PathBuf {
        self.scratch.path().join("log")
    }

    /// The running server process, for its id and to freeze and thaw it; `None` when stopped.
    pub fn process(&self) -> Option<&ProcessGuard> {
        self.server.as_ref()
    }

    /// Runs `redis-cli` and returns what it printed.
    ///
    /// # Errors
    /// When the server cannot be reached or answers with an error.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.program.with_file_name("redis-cli"));
        // -e: an error answer becomes an error exit.
        command.args(["-e", "-p", &self.port().to_string()]).args(arguments).current_dir("/");
        match &self.password {
            Some(password) => command.env("REDISCLI_AUTH", password),
            None => command.env_remove("REDISCLI_AUTH"),
        };
        run(&mut command)
    }

    /// Stops the server in an orderly way; it writes what its settings tell it to.
    ///
    /// # Errors
    /// When it does not end within a minute. A server that has ended before is no error.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        server.signal(Signal::TERM);
        server.thaw();
        if server.wait_exit(STOP_PATIENCE).is_none() {
            let what = "the shutdown of Redis".to_owned();
            return Err(Error::Timeout { what, seconds: STOP_PATIENCE.as_secs(), log: tail(&self.log()) });
        }
        Ok(())
    }

    /// Kills the server with all its processes; what it had written stays for [`TestRedis::restart`].
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
        self.stop()?;
        self.launch()
    }

    /// Places a snapshot file for the next start; the server must be stopped.
    ///
    /// # Errors
    /// When the server runs or the file cannot be copied.
    pub fn place_snapshot(&self, snapshot: &Path) -> Result<()> {
        if self.server.is_some() {
            return Err(Error::State("a running Redis would overwrite the snapshot: stop it first"));
        }
        let target = self.data_directory().join("dump.rdb");
        fs::copy(snapshot, &target).map_err(Error::io("copy", snapshot))?;
        self.account.as_ref().map_or(Ok(()), |account| account.give(&target))
    }
}

/// Whether the server has loaded its data; `-LOADING` says that it has not. Who is asked for a password that nobody
/// knows here is content with `-NOAUTH`, which is also said while it loads.
fn answers(port: u16, password: Option<&str>) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        if let Some(password) = password {
            stream.write_all(format!("AUTH {password}\r\n").as_bytes())?;
            stream.read_exact(&mut [0; 5])?;
        }
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(matches!(&answer, b"+PONG\r\n" | b"-NOAUTH"))
    };
    ask().unwrap_or(false)
}
