//! Finds the Redis that a configuration means.

use std::collections::BTreeMap;

use backstay_backup_core::config::RedisConfig;
use backstay_backup_core::secret::{Secret, SecretRef, SecretSource};
use redis::{ConnectionAddr, IntoConnectionInfo};

use crate::error::Error;
use crate::source::{Address, Login, Sentinel, Source, Tls};

/// Where `redis-cli` looks for a password too.
const PASSWORD_VARIABLE: &str = "REDISCLI_AUTH";

/// The Redis that a configuration means: the parts fill in what the address leaves out, and `127.0.0.1:6379` is the
/// default.
///
/// # Errors
/// [`Error::Setting`] for an address that is none, [`Error::Secret`] for a password that cannot be had.
pub async fn find_source(
    config: &RedisConfig,
    secrets: &dyn SecretSource,
    environment: &BTreeMap<String, String>,
) -> Result<Source, Error> {
    let url = resolve(config.url.as_ref(), secrets).await?;
    let from_url = url.as_ref().map(|url| parse_url(url.expose())).transpose()?;
    let from_url = from_url.unwrap_or_default();
    let mut addresses = Vec::new();
    for text in &config.addresses {
        addresses.push(Address::parse(text).map_err(|problem| invalid(format!("{text:?}: {problem}")))?);
    }
    addresses.extend(from_url.address);
    if addresses.is_empty() {
        addresses.push(Address::new("127.0.0.1", 6379));
    }
    let in_environment = environment.get(PASSWORD_VARIABLE).filter(|password| !password.is_empty());
    let password = match resolve(config.password.as_ref(), secrets).await? {
        Some(password) => Some(password),
        None => from_url.password.or_else(|| in_environment.cloned().map(Secret::new)),
    };
    let login = Login::new(config.user.clone().or(from_url.user), password);
    let mut source = Source::new(addresses).login(login);
    if config.tls || from_url.tls {
        source = source.tls(Some(tls(config)));
    }
    if let Some(master) = &config.sentinel {
        let password = resolve(config.sentinel_password.as_ref(), secrets).await?;
        let login = Login::new(config.sentinel_user.clone(), password);
        source = source.sentinel(Some(Sentinel::new(master, login)));
    }
    Ok(source)
}

fn tls(config: &RedisConfig) -> Tls {
    Tls {
        ca: config.tls_ca.clone(),
        certificate: config.tls_certificate.clone(),
        key: config.tls_key.clone(),
        server_name: config.tls_server_name.clone(),
    }
}

async fn resolve(
    reference: Option<&SecretRef>,
    secrets: &dyn SecretSource,
) -> Result<Option<Secret<String>>, Error> {
    match reference {
        Some(reference) => Ok(Some(secrets.resolve(reference).await?)),
        None => Ok(None),
    }
}

fn invalid(problem: String) -> Error {
    Error::Setting { problem }
}

/// What an address of the form `redis://user:password@host:port` holds.
#[derive(Default)]
struct Parts {
    address: Option<Address>,
    tls: bool,
    user: Option<String>,
    password: Option<Secret<String>>,
}

fn parse_url(url: &str) -> Result<Parts, Error> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let tls = match scheme {
        "redis" => false,
        "rediss" => true,
        _ => return Err(invalid("a Redis address is written as redis://user@host:port".to_owned())),
    };
    // The parser never sees that it is encrypted: the encryption is ours. Its errors may repeat the address.
    let parsed = format!("redis://{rest}").into_connection_info();
    let parsed = parsed.map_err(|_| invalid("the address of the Redis cannot be understood".to_owned()))?;
    let ConnectionAddr::Tcp(host, port) = parsed.addr() else {
        return Err(invalid("the address of the Redis has no host".to_owned()));
    };
    let settings = parsed.redis_settings();
    Ok(Parts {
        address: Some(Address::new(host.trim_matches(['[', ']']), *port)),
        tls,
        user: settings.username().map(str::to_owned),
        password: settings.password().map(|password| Secret::new(password.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use backstay_backup_core::secret_sources::Chain;

    use super::*;

    async fn found(config: &RedisConfig, environment: &[(&str, &str)]) -> Result<Source, Error> {
        let environment: BTreeMap<String, String> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        find_source(config, &Chain::local(environment.clone()), &environment).await
    }

    fn with_url(url: &str) -> RedisConfig {
        let mut config = RedisConfig::default();
        config.url = Some(SecretRef::Literal(url.to_owned()));
        config
    }

    #[tokio::test]
    async fn an_address_holds_everything() {
        let source = found(&with_url("rediss://backup:p%40ss@redis.example:7000"), &[]).await.unwrap();
        assert_eq!(source.addresses, [Address::new("redis.example", 7000)]);
        assert!(source.tls.is_some());
        assert_eq!(source.login, Login::new(Some("backup".to_owned()), Some(Secret::new("p@ss".to_owned()))));
    }

    #[tokio::test]
    async fn the_local_server_is_the_default_and_the_variable_of_redis_cli_its_password() {
        let source = found(&RedisConfig::default(), &[("REDISCLI_AUTH", "word")]).await.unwrap();
        assert_eq!(source.addresses, [Address::new("127.0.0.1", 6379)]);
        assert_eq!(source.login.password, Some(Secret::new("word".to_owned())));
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused_without_its_password() {
        for url in ["http://x", "redis://", "redis://:hunter2@host:99999999"] {
            let error = found(&with_url(url), &[]).await.unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let mut config = RedisConfig::default();
        config.addresses = vec!["host:0".to_owned()];
        assert!(found(&config, &[]).await.is_err());
    }

    #[tokio::test]
    async fn sentinels_have_a_login_of_their_own() {
        let mut config = RedisConfig::default();
        config.addresses = vec!["s1:26379".to_owned(), "s2:26379".to_owned()];
        config.sentinel = Some("shop".to_owned());
        config.sentinel_password = Some(SecretRef::Literal("word".to_owned()));
        let source = found(&config, &[]).await.unwrap();
        assert_eq!(source.addresses.len(), 2);
        let login = Login::new(None, Some(Secret::new("word".to_owned())));
        assert_eq!(source.sentinel, Some(Sentinel::new("shop", login)));
        assert_eq!(source.login.password, None);
    }
}
