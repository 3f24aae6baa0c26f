//! Asks Sentinels where the primary is.

use crate::error::Error;
use crate::source::{Address, Endpoint, Sentinel, Source};

use super::connection::Server;

/// The primary that the first Sentinel to answer names.
pub(super) async fn primary_of(source: &Source, sentinel: &Sentinel) -> Result<Address, Error> {
    let mut last = None;
    for address in &source.addresses {
        let endpoint = Endpoint::new(address.clone()).tls(source.tls.clone()).login(sentinel.login.clone());
        match ask(&endpoint, &sentinel.master).await {
            Ok(Some(primary)) => return Ok(primary),
            Ok(None) => {
                last = Some(Error::Topology {
                    what: format!("the Sentinel at {address} watches no primary called {}", sentinel.master),
                    temporary: false,
                    remedy: "`redis-cli -p 26379 SENTINEL masters` names those that it watches",
                });
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::Setting { problem: "no Sentinel has an address".to_owned() }))
}

async fn ask(endpoint: &Endpoint, master: &str) -> Result<Option<Address>, Error> {
    let mut server = Server::connect(endpoint).await?;
    let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master];
    let answer = server.texts(&words, "SENTINEL").await?;
    match answer.as_slice() {
        [host, port] => Ok(port.parse().ok().map(|port| Address::new(host, port))),
        _ => Ok(None),
    }
}
