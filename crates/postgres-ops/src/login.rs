//! Finds the server that a configuration means, the way libpq would.
//!
//! ```text
//! url  >  other keys of [postgres]  >  service file  >  PG… variables  >  defaults of libpq
//! ```
//!
//! The password comes from these or, when none has one, from the password file. The environment is a map that is
//! handed in; files are read where the settings say they are.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backstay_backup_core::config::PostgresConfig;
use backstay_backup_core::secret::{SecretRef, SecretSource};

use crate::error::{ConnectError, Error};
use crate::server::{Server, url_settings};
use crate::service_file::find_service;
use crate::tools::ToolSearch;

/// libpq's keywords and their variables.
const VARIABLES: [(&str, &str); 9] = [
    ("host", "PGHOST"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("dbname", "PGDATABASE"),
    ("password", "PGPASSWORD"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
];
/// Where distributions put the Unix socket.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// Largest password or service file in bytes that is read.
const MAX_FILE: u64 = 1 << 20;

type Settings = BTreeMap<String, String>;

/// The server, database and role that a configuration means.
///
/// # Errors
/// [`ConnectError::Setting`] for settings that cannot be used and files that cannot be read, [`Error::Secret`] when a
/// secret cannot be had.
pub async fn find_server(
    config: &PostgresConfig,
    secrets: &dyn SecretSource,
    environment: &BTreeMap<String, String>,
) -> Result<Server, Error> {
    let given = given(config, secrets).await?;
    let (files, environment) = (config.clone(), environment.clone());
    let looked_up = tokio::task::spawn_blocking(move || look_up(given, &files, &environment)).await;
    looked_up.map_err(|_| invalid("looking up the server failed".to_owned()))?
}

/// Where client programs are looked for.
#[must_use]
pub fn tool_search(config: &PostgresConfig, environment: &BTreeMap<String, String>) -> ToolSearch {
    match &config.bin_dir {
        Some(folder) => ToolSearch::only(folder),
        None => {
            ToolSearch::with_path(std::env::split_paths(environment.get("PATH").map_or("", String::as_str)))
        }
    }
}

/// What the configuration itself says, in libpq's keywords.
async fn given(config: &PostgresConfig, secrets: &dyn SecretSource) -> Result<Settings, Error> {
    let mut settings = Settings::new();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            settings.insert(key.to_owned(), value);
        }
    };
    set("host", config.host.clone());
    set("port", config.port.map(|port| port.to_string()));
    set("user", config.user.clone());
    set("dbname", config.database.clone());
    set("sslmode", config.ssl_mode.clone());
    set("sslrootcert", config.ssl_root_cert.as_ref().map(|path| path.display().to_string()));
    set("password", resolve(config.password.as_ref(), secrets).await?);
    if let Some(url) = resolve(config.url.as_ref(), secrets).await? {
        settings.extend(url_settings(&url)?);
    }
    Ok(settings)
}

async fn resolve(reference: Option<&SecretRef>, secrets: &dyn SecretSource) -> Result<Option<String>, Error> {
    match reference {
        Some(reference) => Ok(Some(secrets.resolve(reference).await?.expose().clone())),
        None => Ok(None),
    }
}

/// Adds what service file, environment and defaults say. Blocks on small files.
fn look_up(
    mut settings: Settings,
    config: &PostgresConfig,
    environment: &BTreeMap<String, String>,
) -> Result<Server, Error> {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let home = |name: &str| variable("HOME").map(|home| Path::new(home).join(name));
    let mut passfile = config.passfile.clone();
    if let Some(service) = config.service.as_ref().or_else(|| variable("PGSERVICE")) {
        let named = config.service_file.clone().or_else(|| variable("PGSERVICEFILE").map(PathBuf::from));
        let path = named.or_else(|| home(".pg_service.conf"));
        let path = path.ok_or_else(|| invalid("there is no service file".to_owned()))?;
        let text =
            read(&path)?.ok_or_else(|| invalid(format!("service file {} does not exist", path.display())))?;
        let found = find_service(&text, service).map_err(|error| invalid(error.to_string()))?;
        passfile = passfile.or_else(|| found.get("passfile").map(PathBuf::from));
        fill_in(&mut settings, found.iter().filter(|(key, _)| *key != "passfile"));
    }
    let variables = VARIABLES.iter().filter_map(|(key, name)| Some((*key, variable(name)?.as_str())));
    fill_in(&mut settings, variables);
    if !settings.contains_key("user") {
        let user = variable("USER").or_else(|| variable("LOGNAME"));
        fill_in(&mut settings, user.map(|user| ("user", user.as_str())));
    }
    if !settings.contains_key("host") {
        let port = settings.get("port").map_or("5432", String::as_str);
        let socket =
            SOCKET_FOLDERS.iter().find(|folder| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists());
        fill_in(&mut settings, socket.map(|folder| ("host", *folder)));
    }
    let server = Server::from_settings(&settings)?;
    if server.password.is_some() {
        return Ok(server);
    }
    let content = match passfile {
        Some(path) => {
            let content = read(&path)?;
            Some(content.ok_or_else(|| invalid(format!("password file {} does not exist", path.display())))?)
        }
        None => match variable("PGPASSFILE").map(PathBuf::from).or_else(|| home(".pgpass")) {
            Some(path) => read(&path)?,
            None => None,
        },
    };
    Ok(content.map_or(server.clone(), |content| server.with_passfile(&content)))
}

fn fill_in<'a>(settings: &mut Settings, more: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (key, value) in more {
        settings.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
}

/// The content of a file, or nothing when there is none.
fn read(path: &Path) -> Result<Option<String>, Error> {
    let failed = |error: std::io::Error| invalid(format!("{} cannot be read: {error}", path.display()));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let facts = file.metadata().map_err(failed)?;
    if facts.is_file() && facts.mode() & 0o077 != 0 && path.extension().is_none() {
        tracing::warn!(file = %path.display(), "other users can read this file; chmod 600 makes it private");
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

fn invalid(problem: String) -> Error {
    ConnectError::Setting { problem }.into()
}

#[cfg(test)]
mod tests {
    use backstay_backup_core::config::{Config, Flags, Setting};
    use backstay_backup_core::secret_sources::Chain;

    use super::*;

    async fn find(settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Server, Error> {
        let settings = settings.iter().map(|(key, value)| Setting::new(key, *value, "--option")).collect();
        let environment: BTreeMap<String, String> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let flags = Flags { settings, ..Flags::default() };
        let config = Config::load(None, &environment, &flags).unwrap().config.postgres;
        find_server(&config, &Chain::local(environment.clone()), &environment).await
    }

    #[tokio::test]
    async fn every_layer_fills_in_what_those_above_leave_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("services"), "[shop]\nhost=from-service\nuser=from-service\nport=1\n").unwrap();
        std::fs::write(path("pass"), "*:*:*:*:from-passfile\n").unwrap();
        let settings = [
            ("postgres.url", "postgresql://from-url/"),
            ("postgres.user", "from-key"),
            ("postgres.service", "shop"),
            ("postgres.service-file", &path("services")),
            ("postgres.passfile", &path("pass")),
        ];
        let environment =
            [("PGHOST", "from-env"), ("PGPORT", "2"), ("PGDATABASE", "from-env"), ("PGSSLMODE", "disable")];
        let server = find(&settings, &environment).await.unwrap();
        assert_eq!((server.host.as_str(), server.user.as_str(), server.port), ("from-url", "from-key", 1));
        assert_eq!(server.database, "from-env");
        assert_eq!(server.password.unwrap().expose(), "from-passfile");
        assert_eq!(server.tls["sslmode"], "disable");
    }

    #[tokio::test]
    async fn the_account_is_the_default_role() {
        let server = find(&[("postgres.host", "h")], &[("USER", "alice")]).await.unwrap();
        assert_eq!((server.user.as_str(), server.database.as_str(), server.port), ("alice", "alice", 5432));
    }

    #[tokio::test]
    async fn files_that_were_named_must_exist() {
        let missing =
            [("postgres.host", "h"), ("postgres.user", "u"), ("postgres.passfile", "/no/such/file")];
        let error = find(&missing, &[]).await.unwrap_err().to_string();
        assert_eq!(error, "invalid connection setting: password file /no/such/file does not exist");
        let error =
            find(&[("postgres.service", "x")], &[("HOME", "/no/such")]).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid connection setting: service file /no/such/.pg_service.conf does not exist"
        );
    }
}
