//! Two settings of the server that make snapshots slow and large, changed for the moment in which one begins.
//!
//! The forked child keeps what held at the fork, so they are put back as soon as the snapshot begins to come.

use crate::error::Error;
use crate::server::Server;

/// The server's own compression costs half of its time and makes ours less good; a server that waits for more replicas
/// waits for nobody here.
const WANTED: [(&str, &str); 2] = [("rdbcompression", "no"), ("repl-diskless-sync-delay", "0")];

/// What has to be put back.
#[derive(Debug, Default)]
pub(super) struct Tuned {
    before: Vec<(&'static str, String)>,
}

/// Changes what is not as wanted.
pub(super) async fn tune(server: &mut Server) -> Result<Tuned, Error> {
    let mut tuned = Tuned::default();
    for (name, wanted) in WANTED {
        let settings = server.settings(name).await?;
        let Some((_, old)) = settings.into_iter().find(|(key, value)| key == name && value != wanted) else {
            continue;
        };
        // Noted first: a change whose answer is lost must be put back too.
        tuned.before.push((name, old));
        if let Err(error) = server.ask(&["CONFIG", "SET", name, wanted], "CONFIG SET").await {
            tuned.put_back(server).await;
            return Err(error);
        }
    }
    Ok(tuned)
}

impl Tuned {
    /// Puts everything back; says what could not be.
    pub(super) async fn put_back(self, server: &mut Server) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, old) in self.before {
            if let Err(error) = server.ask(&["CONFIG", "SET", name, &old], "CONFIG SET").await {
                problems.push(format!(
                    "{} keeps a changed setting: put it back with CONFIG SET {name} {old} ({error})",
                    server.endpoint()
                ));
            }
        }
        problems
    }
}
