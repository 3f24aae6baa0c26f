//! Flags and context of the programs that talk to Redis.

use std::path::PathBuf;

use backstay_backup_core::config::Setting;
use backstay_redis_ops::Source;
use backstay_redis_ops::server::find_source;
use clap::Args;

use crate::context::Context;
use crate::failure::Failure;

/// Flags that say which Redis.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Redis")]
pub struct RedisArgs {
    /// redis://user@host:port, or rediss:// (better without a password: use redis.password or REDISCLI_AUTH)
    #[arg(long, value_name = "URL")]
    pub redis_url: Option<String>,
    /// host:port, or the path of a Unix socket; any node of a cluster; with --sentinel the Sentinels; repeatable
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Vec<String>,
    /// User of the access list
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Name of the primary that the Sentinels watch
    #[arg(long, value_name = "NAME")]
    pub sentinel: Option<String>,
    /// Encrypts the connections
    #[arg(long)]
    pub tls: bool,
    /// Certificates to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
}

impl RedisArgs {
    /// The keys of the configuration that these flags set.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let addresses = (!self.address.is_empty()).then(|| self.address.join(","));
        let pairs = [
            ("redis.url", self.redis_url.clone(), "--redis-url"),
            ("redis.addresses", addresses, "--address"),
            ("redis.user", self.username.clone(), "--username"),
            ("redis.sentinel", self.sentinel.clone(), "--sentinel"),
            ("redis.tls", self.tls.then(|| "true".to_owned()), "--tls"),
            ("redis.tls-ca", self.tls_ca.as_ref().map(|path| path.display().to_string()), "--tls-ca"),
        ];
        pairs.into_iter().filter_map(|(key, value, flag)| Some(Setting::new(key, &value?, flag))).collect()
    }
}

impl Context {
    /// The Redis that arguments, configuration and environment mean, with its password where one is to be had.
    ///
    /// # Errors
    /// An address that cannot be understood, or a secret that cannot be had.
    pub async fn redis(&self) -> Result<Source, Failure> {
        Ok(find_source(&self.config.redis, self.secrets(), self.environment()).await?)
    }
}
