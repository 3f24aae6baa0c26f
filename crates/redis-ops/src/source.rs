//! Which Redis is meant, and how to get in.

use std::fmt;
use std::path::PathBuf;

use backstay_backup_core::secret::Secret;
use serde::{Deserialize, Serialize};

/// The port of a Redis that says nothing else.
const REDIS_PORT: u16 = 6379;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// Host name or address; a text that begins with `/` is the path of a Unix socket.
    pub host: String,
    /// Port; without meaning for a Unix socket.
    pub port: u16,
}

impl Address {
    /// An address.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port }
    }

    /// Parses `host`, `host:port`, `[v6]:port`, or the path of a Unix socket.
    ///
    /// # Errors
    /// An empty host or a port that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::new(text, 0));
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or("an address in [ needs its ]")?;
                match rest.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if rest.is_empty() => (host, None),
                    None => return Err(format!("{rest:?} after ] is no port")),
                }
            }
            // More than one colon: an IPv6 address without brackets.
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return Err("a server needs a host".to_owned());
        }
        let port = match port {
            None => REDIS_PORT,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(format!("{port:?} is no port")),
                Ok(port) => port,
            },
        };
        Ok(Self::new(host, port))
    }

    /// The path, when it is a Unix socket.
    #[must_use]
    pub fn socket(&self) -> Option<&str> {
        self.host.starts_with('/').then_some(self.host.as_str())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket() {
            Some(path) => f.write_str(path),
            None if self.host.contains(':') => write!(f, "[{}]:{}", self.host, self.port),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Who one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Login {
    /// User of the access list; `default` when there is none.
    pub user: Option<String>,
    /// Password; without it nobody logs in.
    pub password: Option<Secret<String>>,
}

impl Login {
    /// A user with a password.
    #[must_use]
    pub fn new(user: Option<String>, password: Option<Secret<String>>) -> Self {
        Self { user, password }
    }
}

/// How a connection is encrypted. The server's certificate is always checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tls {
    /// File of certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// File of our own certificate, for servers that ask for one.
    pub certificate: Option<PathBuf>,
    /// File of its key.
    pub key: Option<PathBuf>,
    /// Name that the server's certificate must have, when it is not the host's.
    pub server_name: Option<String>,
}

/// One server, and how to get in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// Encryption; plain without it.
    pub tls: Option<Tls>,
    /// Who one is there.
    pub login: Login,
}

impl Endpoint {
    /// A server without encryption and password.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, tls: None, login: Login::default() }
    }

    /// Sets the encryption.
    #[must_use]
    pub fn tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    /// Sets the login.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.login = login;
        self
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.address, f)
    }
}

/// A primary that Sentinels watch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sentinel {
    /// What they call it.
    pub master: String,
    /// Who one is to the Sentinels.
    pub login: Login,
}

impl Sentinel {
    /// A primary of that name.
    #[must_use]
    pub fn new(master: &str, login: Login) -> Self {
        Self { master: master.to_owned(), login }
    }
}

/// A whole Redis: one server, a primary with its replicas, or a cluster. `server` finds out which.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Source {
    /// Servers, or Sentinels; any one that answers will do.
    pub addresses: Vec<Address>,
    /// Encryption; plain without it.
    pub tls: Option<Tls>,
    /// Who one is to the servers.
    pub login: Login,
    /// Set when `addresses` are Sentinels.
    pub sentinel: Option<Sentinel>,
}

impl Source {
    /// Servers without encryption and password.
    #[must_use]
    pub fn new(addresses: Vec<Address>) -> Self {
        Self { addresses, tls: None, login: Login::default(), sentinel: None }
    }

    /// Sets the encryption.
    #[must_use]
    pub fn tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    /// Sets the login.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.login = login;
        self
    }

    /// Says that the addresses are Sentinels.
    #[must_use]
    pub fn sentinel(mut self, sentinel: Option<Sentinel>) -> Self {
        self.sentinel = sentinel;
        self
    }

    /// One of its servers.
    #[must_use]
    pub fn endpoint(&self, address: &Address) -> Endpoint {
        Endpoint::new(address.clone()).tls(self.tls.clone()).login(self.login.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_and_print_the_same() {
        for (text, host, port, printed) in [
            ("redis.example", "redis.example", 6379, "redis.example:6379"),
            ("127.0.0.1:7000", "127.0.0.1", 7000, "127.0.0.1:7000"),
            ("[::1]:7000", "::1", 7000, "[::1]:7000"),
            ("::1", "::1", 6379, "[::1]:6379"),
            ("/run/redis.sock", "/run/redis.sock", 0, "/run/redis.sock"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
            assert_eq!(address.to_string(), printed);
            assert_eq!(Address::parse(&address.to_string()).unwrap(), address);
        }
        for bad in ["", ":6379", "host:", "host:0", "host:70000", "host:x", "[::1", "[::1]7"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_never_printed() {
        let login = Login::new(Some("backup".to_owned()), Some(Secret::new("hunter2".to_owned())));
        let source = Source::new(vec![Address::new("h", 1)]).login(login);
        assert!(!format!("{source:?} {:?}", source.endpoint(&source.addresses[0])).contains("hunter2"));
    }
}
