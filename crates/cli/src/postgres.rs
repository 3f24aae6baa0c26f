//! Finds out which PostgreSQL server is meant: flags, then configuration, then PostgreSQL's own variables and files.
//!
//! ```text
//! --database-url, [postgres] url  >  --host …, [postgres] host …  >  service file  >  PGHOST …  >  defaults
//! password: URL, [postgres] password, PGPASSWORD, then the password file
//! ```

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backstay_backup_core::config::Setting;
use backstay_backup_core::secret::Secret;
use backstay_postgres_ops::{Server, ToolSearch, find_service};
use clap::Args;

use crate::context::Context;
use crate::failure::Failure;

/// Variables of libpq and the keywords they stand for.
const VARIABLES: [(&str, &str); 9] = [
    ("PGHOST", "host"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGDATABASE", "dbname"),
    ("PGPASSWORD", "password"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
];
/// Where servers of distributions keep their sockets.
const SOCKET_FOLDERS: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];
/// Keywords that a server is made of; a service file may hold more.
const KEYWORDS: [&str; 9] =
    ["host", "port", "user", "dbname", "password", "sslmode", "sslrootcert", "sslcert", "sslkey"];

/// Flags that say which server.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct PostgresArgs {
    /// postgresql://user@host:port/database (better without a password: use a password file)
    #[arg(long, value_name = "URL", env = "BACKSTAY_DATABASE_URL", hide_env_values = true, hide_env = true)]
    pub database_url: Option<String>,
    /// Host name, or folder of the Unix socket
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Port [default: 5432]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Role [default: the operating system's user]
    #[arg(long, value_name = "ROLE")]
    pub username: Option<String>,
    /// Folder of pg_dump and its companions
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,
}

impl PostgresArgs {
    /// The keys of the configuration that these flags set.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let text = |path: &PathBuf| path.display().to_string();
        let pairs = [
            ("postgres.url", self.database_url.clone(), "--database-url"),
            ("postgres.host", self.host.clone(), "--host"),
            ("postgres.port", self.port.map(|port| port.to_string()), "--port"),
            ("postgres.user", self.username.clone(), "--username"),
            ("postgres.bin-dir", self.bin_dir.as_ref().map(text), "--bin-dir"),
        ];
        pairs.into_iter().filter_map(|(key, value, flag)| Some(Setting::new(key, &value?, flag))).collect()
    }
}

impl Context {
    /// The server that arguments, configuration and environment mean, with its password where one is to be had.
    ///
    /// # Errors
    /// An address that cannot be understood, or a secret that cannot be had.
    pub async fn postgres(&self) -> Result<Server, Failure> {
        let config = &self.config.postgres;
        let mut settings = self.postgres_defaults()?;
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                settings.insert(name.to_owned(), value);
            }
        };
        set("host", config.host.clone());
        set("port", config.port.map(|port| port.to_string()));
        set("user", config.user.clone());
        set("dbname", config.database.clone());
        set("sslmode", config.ssl_mode.clone());
        set("sslrootcert", config.ssl_root_cert.as_ref().map(|path| path.display().to_string()));
        if let Some(password) = &config.password {
            set("password", Some(self.secret(password).await?.expose().clone()));
        }
        if let Some(url) = &config.url {
            let url = self.secret(url).await?;
            let server = Server::parse(url.expose(), &settings)?;
            return Ok(self.with_password(server));
        }
        if !settings.contains_key("host") {
            settings.insert("host".to_owned(), default_host(settings.get("port")));
        }
        Ok(self.with_password(Server::from_settings(&settings)?))
    }

    /// Where PostgreSQL's programs are looked for.
    #[must_use]
    pub fn postgres_tools(&self) -> ToolSearch {
        match &self.config.postgres.bin_dir {
            Some(folder) => ToolSearch::only(folder),
            None => {
                let path = self.environment().get("PATH").map(String::as_str).unwrap_or_default();
                ToolSearch::with_path(std::env::split_paths(path))
            }
        }
    }

    fn postgres_defaults(&self) -> Result<BTreeMap<String, String>, Failure> {
        let environment = self.environment();
        let mut settings = BTreeMap::new();
        let user = environment.get("USER").or_else(|| environment.get("LOGNAME"));
        settings.insert("user".to_owned(), user.cloned().unwrap_or_else(|| "postgres".to_owned()));
        for (variable, keyword) in VARIABLES {
            if let Some(value) = environment.get(variable).filter(|value| !value.is_empty()) {
                settings.insert(keyword.to_owned(), value.clone());
            }
        }
        let service = self.config.postgres.service.as_ref().or_else(|| environment.get("PGSERVICE"));
        if let Some(service) = service {
            settings.extend(self.service(service)?);
        }
        Ok(settings)
    }

    fn service(&self, name: &str) -> Result<BTreeMap<String, String>, Failure> {
        let given = self.config.postgres.service_file.clone();
        let variable = || self.environment().get("PGSERVICEFILE").map(PathBuf::from);
        let path = given.or_else(variable).or_else(|| self.in_home(".pg_service.conf"));
        let path = path.ok_or_else(|| Failure::usage("no service file: HOME is not set"))?;
        let content = std::fs::read_to_string(&path).map_err(|error| {
            Failure::usage(format!("cannot read service file {}: {error}", path.display()))
        })?;
        let service = find_service(&content, name)
            .map_err(|error| Failure::usage(format!("service file {}: {error}", path.display())))?;
        Ok(service
            .iter()
            .filter(|(key, _)| KEYWORDS.contains(key))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect())
    }

    fn in_home(&self, name: &str) -> Option<PathBuf> {
        Some(Path::new(self.environment().get("HOME")?).join(name))
    }

    /// Adds the password of the password file, unless one is known already.
    fn with_password(&self, server: Server) -> Server {
        let given = self.config.postgres.passfile.clone();
        let variable = || self.environment().get("PGPASSFILE").map(PathBuf::from);
        let Some(path) = given.or_else(variable).or_else(|| self.in_home(".pgpass")) else { return server };
        match read_private(&path) {
            Some(content) => server.with_passfile(content.expose()),
            None => server,
        }
    }
}

/// Reads a file that nobody else may read; PostgreSQL ignores others too.
fn read_private(path: &Path) -> Option<Secret<String>> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "password file ignored: others can read it; run chmod 600 on it");
        return None;
    }
    std::fs::read_to_string(path).ok().map(Secret::new)
}

fn default_host(port: Option<&String>) -> String {
    let socket = format!(".s.PGSQL.{}", port.map_or("5432", String::as_str));
    let folder = SOCKET_FOLDERS.iter().find(|folder| Path::new(folder).join(&socket).exists());
    folder.map_or("localhost", |folder| folder).to_owned()
}
