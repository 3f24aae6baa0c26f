//! Two settings of the server that make snapshots slow and large, changed for the moment in which one begins.
//!
//! The forked child keeps what held at the fork, so they are put back as soon as the server says that it has begun, and by
//! a process of its own, so that it is done however this one ends: see [`super::custodian`].

use crate::error::Error;
use crate::server::Server;

use super::custodian::{Custodian, Kept, Left, Released, Setting};

/// The server's own compression costs half of its time and makes ours less good; a server that waits for more replicas
/// waits for nobody here.
const WANTED: [(&str, &str); 2] = [("rdbcompression", "no"), ("repl-diskless-sync-delay", "0")];

/// What has to be put back.
#[derive(Debug)]
pub(super) struct Tuned {
    before: Vec<Setting>,
    /// None when everything was as wanted.
    kept: Option<Kept>,
}

/// Changes what is not as wanted.
pub(super) async fn tune(server: &mut Server, custodian: &Custodian) -> Result<Tuned, Error> {
    let mut before = Vec::new();
    for (name, wanted) in WANTED {
        let settings = server.settings(name).await?;
        let old = settings.into_iter().find(|(key, value)| key == name && value != wanted);
        before.extend(old.map(|(name, value)| Setting { name, value }));
    }
    // Whether that is allowed at all shows with a change that is none.
    if let Some(Setting { name, value }) = before.first() {
        server.ask(&["CONFIG", "SET", name, value], "CONFIG SET").await?;
    }
    let kept = if before.is_empty() { None } else { Some(custodian.keep(server.endpoint(), &before).await?) };
    let tuned = Tuned { before, kept };
    match tuned.change(server).await {
        Ok(()) => Ok(tuned),
        Err(error) => {
            for problem in tuned.put_back(server).await {
                tracing::error!("{problem}");
            }
            Err(error)
        }
    }
}

impl Tuned {
    async fn change(&self, server: &mut Server) -> Result<(), Error> {
        for (name, wanted) in WANTED {
            if self.before.iter().any(|setting| setting.name == name) {
                server.ask(&["CONFIG", "SET", name, wanted], "CONFIG SET").await?;
            }
        }
        Ok(())
    }

    /// Has everything put back; says what could not be.
    pub(super) async fn put_back(self, server: &mut Server) -> Vec<String> {
        let Some(kept) = self.kept else { return Vec::new() };
        let endpoint = server.endpoint().clone();
        match kept.release().await {
            Released::Done(left) => left.iter().map(|left| left.words(&endpoint)).collect(),
            Released::Trying => {
                let problem = "the server does not answer; it is tried for ten minutes more".to_owned();
                let left = |setting| Left { setting, problem: problem.clone() }.words(&endpoint);
                self.before.into_iter().map(left).collect()
            }
            Released::Gone => put_back_here(server, self.before).await,
        }
    }
}

/// Nobody else is left to do it.
async fn put_back_here(server: &mut Server, settings: Vec<Setting>) -> Vec<String> {
    let mut problems = Vec::new();
    for setting in settings {
        let asked = server.ask(&["CONFIG", "SET", &setting.name, &setting.value], "CONFIG SET").await;
        if let Err(error) = asked {
            let left = Left { setting, problem: error.to_string() };
            problems.push(left.words(server.endpoint()));
        }
    }
    problems
}
