//! Flags and context of the programs that talk to PostgreSQL.

use std::path::PathBuf;

use backstay_backup_core::config::Setting;
use backstay_postgres_ops::{Server, ToolSearch, find_server, tool_search};
use clap::Args;

use crate::context::Context;
use crate::failure::Failure;

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
        Ok(find_server(&self.config.postgres, self.secrets(), self.environment()).await?)
    }

    /// Where PostgreSQL's programs are looked for.
    #[must_use]
    pub fn postgres_tools(&self) -> ToolSearch {
        tool_search(&self.config.postgres, self.environment())
    }
}
