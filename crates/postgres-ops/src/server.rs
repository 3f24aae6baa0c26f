//! Where a PostgreSQL server is and how to log in, resolved once and used the same way by our own connections and
//! by PostgreSQL's client programs.
//!
//! Programs get the address through `PG*` variables and the password through a password file that exists only in
//! memory ([`ChildLogin`]); it is never in an argument, in a variable, or on disk.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

use backstay_backup_core::secret::Secret;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use url::Url;

use crate::error::{ConnectError, Error};
use crate::ident::check_name;
use crate::passfile;

/// A server, a database on it, and a role that may log in.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// Host name or address, or the directory of a Unix socket (begins with `/`).
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Database.
    pub database: String,
    /// Password; without one the server must trust the role otherwise.
    pub password: Option<Secret<String>>,
    /// `sslmode` and its companions (`sslrootcert`, `sslcert`, `sslkey`), as libpq names them.
    pub tls: BTreeMap<String, String>,
    /// What sessions call themselves on the server (`application_name`).
    pub session_name: String,
    /// Whether client programs commit without waiting for the disk; see [`Server::with_hasty_programs`].
    hasty_programs: bool,
}

/// Name of sessions, unless they get one of their own.
const SESSION_NAME: &str = "backstay";

const TLS_SETTINGS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

impl Server {
    /// A server by its address; the database is named like the role.
    #[must_use]
    pub fn new(host: &str, port: u16, user: &str) -> Self {
        Self {
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            database: user.to_owned(),
            password: None,
            tls: BTreeMap::new(),
            session_name: SESSION_NAME.to_owned(),
            hasty_programs: false,
        }
    }

    /// Parses `postgresql://user:password@host:port/database?sslmode=…`; what it leaves open comes from `defaults`
    /// (libpq's keywords: `host`, `port`, `user`, `dbname`, `password`, `sslmode` …).
    ///
    /// # Errors
    /// [`ConnectError::Setting`], which never repeats the password.
    pub fn parse(url: &str, defaults: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut settings = defaults.clone();
        settings.extend(url_settings(url)?);
        Self::from_settings(&settings)
    }

    /// Builds a server from libpq's keywords alone.
    ///
    /// # Errors
    /// [`ConnectError::Setting`] for an unknown keyword or a bad port.
    pub fn from_settings(settings: &BTreeMap<String, String>) -> Result<Self, Error> {
        let get = |name: &str| settings.get(name).filter(|value| !value.is_empty()).cloned();
        let known = ["host", "port", "user", "dbname", "password", "application_name", "connect_timeout"];
        if let Some(odd) = settings.keys().find(|key| {
            let key = key.as_str();
            !known.contains(&key) && !TLS_SETTINGS.contains(&key)
        }) {
            return Err(invalid(format!("parameter {odd:?} is not supported")));
        }
        let port = match get("port") {
            None => 5432,
            Some(text) => text.parse().map_err(|_| invalid(format!("port {text:?} is not a number")))?,
        };
        let user = get("user").ok_or_else(|| invalid("no user is given".to_owned()))?;
        let tls = TLS_SETTINGS.iter().filter_map(|name| get(name).map(|value| ((*name).to_owned(), value)));
        Ok(Self {
            host: get("host").unwrap_or_else(|| "localhost".to_owned()),
            port,
            database: get("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: get("password").map(Secret::new),
            tls: tls.collect(),
            session_name: SESSION_NAME.to_owned(),
            hasty_programs: false,
        })
    }

    /// The same server and role, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// The same, with a session name that no other run has, so that what it left can be found and ended.
    #[must_use]
    pub(crate) fn with_own_session_name(&self) -> Self {
        Self { session_name: format!("{SESSION_NAME} {:016x}", rand::random::<u64>()), ..self.clone() }
    }

    /// The same, with client programs whose commits do not wait for the disk. Whoever uses it calls nothing done before a
    /// commit that does wait.
    #[must_use]
    pub(crate) fn with_hasty_programs(&self) -> Self {
        Self { hasty_programs: true, ..self.clone() }
    }

    /// The same, with this password.
    #[must_use]
    pub fn with_password(self, password: Option<Secret<String>>) -> Self {
        Self { password, ..self }
    }

    /// Takes the password from the content of a password file, if it has none yet.
    #[must_use]
    pub fn with_passfile(self, content: &str) -> Self {
        if self.password.is_some() {
            return self;
        }
        let host = if self.host.starts_with('/') { "localhost" } else { &self.host };
        let query =
            passfile::PassfileQuery { host, port: self.port, database: &self.database, user: &self.user };
        let password = passfile::find_password(content, query);
        self.with_password(password)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`Error::Connect`] or [`Error::NameTooLong`].
    pub async fn connect(&self) -> Result<PgConnection, Error> {
        let options = self.options()?;
        PgConnection::connect_with(&options).await.map_err(|source| self.connect_error(source).into())
    }

    fn options(&self) -> Result<PgConnectOptions, Error> {
        check_name("database", &self.database)?;
        check_name("role", &self.user)?;
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .application_name(&self.session_name);
        if self.host.starts_with('/') {
            options = options.socket(&self.host);
        }
        if let Some(password) = &self.password {
            options = options.password(password.expose());
        }
        let mode = self.tls.get("sslmode").map_or(Ok(PgSslMode::Prefer), |mode| mode.parse());
        options = options.ssl_mode(mode.map_err(|_| invalid("unknown sslmode".to_owned()))?);
        for (name, value) in &self.tls {
            options = match name.as_str() {
                "sslrootcert" => options.ssl_root_cert(value),
                "sslcert" => options.ssl_client_cert(value),
                "sslkey" => options.ssl_client_key(value),
                _ => options,
            };
        }
        Ok(options.disable_statement_logging())
    }

    fn connect_error(&self, source: sqlx::Error) -> ConnectError {
        let code = source.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        match code.as_str() {
            "3D000" => ConnectError::NoDatabase { server: self.address(), database: self.database.clone() },
            // Not the code of a server that is starting or has no session left; those are worth another try.
            "55000" => ConnectError::Closed { server: self.address(), database: self.database.clone() },
            "28P01" | "28000" => {
                ConnectError::Refused { server: self.to_string(), role: self.user.clone(), source }
            }
            _ => ConnectError::Unreachable { server: self.to_string(), source },
        }
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The environment that makes a client program reach the same server as the same role.
    ///
    /// # Errors
    /// [`Error::Spawn`] when the in-memory password file cannot be made.
    pub fn child_login(&self, program: &'static str) -> Result<ChildLogin, Error> {
        let mut environment = vec![
            ("PGHOST".to_owned(), self.host.clone()),
            ("PGPORT".to_owned(), self.port.to_string()),
            ("PGUSER".to_owned(), self.user.clone()),
            ("PGDATABASE".to_owned(), self.database.clone()),
            ("PGAPPNAME".to_owned(), self.session_name.clone()),
            // Texts are compared between servers, so every session prints values alike whatever the database sets.
            ("PGTZ".to_owned(), "UTC".to_owned()),
            ("PGOPTIONS".to_owned(), self.program_options()),
        ];
        environment.extend(
            self.tls.iter().map(|(name, value)| (format!("PG{}", name.to_uppercase()), value.clone())),
        );
        let passfile = match &self.password {
            None => None,
            Some(password) => {
                let spawn = |source: std::io::Error| Error::Spawn { program, source };
                let file = memory_file("backstay-passfile", passfile::render_line(password).as_bytes())
                    .map_err(spawn)?;
                environment.push(("PGPASSFILE".to_owned(), memory_path(&file)));
                Some(file)
            }
        };
        Ok(ChildLogin { environment, passfile })
    }

    fn program_options(&self) -> String {
        let commits = if self.hasty_programs { " -c synchronous_commit=off" } else { "" };
        format!("-c bytea_output=hex -c default_transaction_read_only=off{commits}")
    }
}

/// Environment of a client program, and the password file it points to, which must outlive the program.
#[derive(Debug)]
pub struct ChildLogin {
    /// Variables to set.
    pub environment: Vec<(String, String)>,
    passfile: Option<OwnedFd>,
}

impl ChildLogin {
    /// Whether a password goes along.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.passfile.is_some()
    }
}

/// A file that exists only in memory, readable by this process and its children as [`memory_path`].
pub(crate) fn memory_file(name: &str, content: &[u8]) -> std::io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, Mode};
    // No close-on-exec: the child opens it through its own inherited descriptor.
    let fd = rustix::fs::memfd_create(name, MemfdFlags::empty())?;
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::write(&fd, rest)?;
        rest = &rest[written..];
    }
    Ok(fd)
}

/// Path under which this process and its children can open a [`memory_file`].
pub(crate) fn memory_path(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn invalid(problem: String) -> Error {
    ConnectError::Setting { problem }.into()
}

pub(crate) fn url_settings(text: &str) -> Result<BTreeMap<String, String>, Error> {
    let url = Url::parse(text).map_err(|error| invalid(format!("the URL cannot be read: {error}")))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(invalid("the URL must begin with postgresql://".to_owned()));
    }
    let mut settings = BTreeMap::new();
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            settings.insert(name.to_owned(), value);
        }
    };
    set("host", url.host_str().map(decode).transpose()?.map(|host| host.trim_matches(['[', ']']).to_owned()));
    set("port", url.port().map(|port| port.to_string()));
    set("user", Some(decode(url.username())?));
    set("password", url.password().map(decode).transpose()?);
    set("dbname", Some(decode(url.path().trim_start_matches('/'))?));
    for (name, value) in url.query_pairs() {
        set(&name, Some(value.into_owned()));
    }
    Ok(settings)
}

/// Undoes percent encoding.
fn decode(text: &str) -> Result<String, Error> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(plain).map_err(|_| invalid("the URL is not UTF-8".to_owned()))
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({}@{self})", self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Server, Error> {
        let defaults = BTreeMap::from([("user".to_owned(), "postgres".to_owned())]);
        Server::parse(url, &defaults)
    }

    #[test]
    fn urls_in_all_their_forms() {
        let full = parse("postgresql://bob:p%40ss@db.example:6432/my%20shop?sslmode=require").unwrap();
        assert_eq!((full.host.as_str(), full.port, full.user.as_str()), ("db.example", 6432, "bob"));
        assert_eq!(full.database, "my shop");
        assert_eq!(full.password.unwrap().expose(), "p@ss");
        assert_eq!(full.tls["sslmode"], "require");
        let socket = parse("postgresql:///shop?host=/run/postgresql&port=5433").unwrap();
        assert_eq!((socket.host.as_str(), socket.port), ("/run/postgresql", 5433));
        assert_eq!(parse("postgres://h").unwrap().database, "postgres");
    }

    #[test]
    fn messages_never_hold_the_password() {
        for url in
            ["mysql://u:hunter2@h/d", "postgresql://u:hunter2@h/d?portt=1", "postgresql://u:hunter2@h:x/d"]
        {
            let error = parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let server = parse("postgresql://u:hunter2@h/d").unwrap();
        assert!(!format!("{server} {server:?}").contains("hunter2"));
    }
}
