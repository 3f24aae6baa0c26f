//! How to get in, while that may change.
//!
//! An archiver runs for months, and passwords are changed meanwhile, often by a machine. Its connection outlives that; the next
//! one is refused. Whoever runs the archiver hears of it, and reads the password again:
//!
//! ```text
//! connection ── refused ──▶ whoever reads passwords
//!      ▲ tries again ──────────── renew ──┘
//! ```

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::FollowError;
use crate::source::Source;

/// A Redis, and how to get in now; clones are the same one.
#[derive(Clone, Debug)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: watch::Sender<Source>,
    refused: Notify,
}

impl Access {
    /// A Redis that is reached so, until [`Access::renew`] says otherwise.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self(Arc::new(Inner { source: watch::Sender::new(source), refused: Notify::new() }))
    }

    /// How it is reached now.
    #[must_use]
    pub fn source(&self) -> Source {
        self.0.source.borrow().clone()
    }

    /// Waits until a server did not let us in. Ends at once when one did not since the last call; for one caller at a time.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn refused(&self) {
        self.0.refused.notified().await;
    }

    /// From now on it is reached so; whether that is another way than before. An archiver that was refused tries again at once.
    pub fn renew(&self, source: Source) -> bool {
        self.0.source.send_if_modified(|known| {
            let differs = *known != source;
            *known = source;
            differs
        })
    }

    /// Passes on that a server did not let us in, if that is what went wrong.
    pub(super) fn hear(&self, error: &FollowError) {
        if matches!(error, FollowError::Server(crate::Error::Login { .. })) {
            self.0.refused.notify_one();
        }
    }

    /// Waits until it is reached in another way than that.
    pub(super) async fn differs_from(&self, tried: &Source) {
        // The sender lives as long as this.
        _ = self.0.source.subscribe().wait_for(|source| source != tried).await;
    }
}

impl From<Source> for Access {
    fn from(source: Source) -> Self {
        Self::new(source)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use backstay_backup_core::secret::Secret;

    use super::*;
    use crate::source::{Address, Login};

    fn source(password: &str) -> Source {
        let login = Login::new(None, Some(Secret::new(password.to_owned())));
        Source::new(vec![Address::new("h", 1)]).login(login)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_refused_goes_on_only_with_another_password() {
        let access = Access::new(source("old"));
        let tried = access.source();
        let address = tried.addresses[0].clone();
        let (user, words) = ("default".to_owned(), "WRONGPASS".to_owned());
        access.hear(&FollowError::Ended);
        let waiting = tokio::time::timeout(Duration::from_secs(1), access.refused()).await;
        assert!(waiting.is_err(), "another error has nothing to do with it");
        access.hear(&crate::Error::Login { address, user, words }.into());
        access.refused().await;
        assert!(!access.renew(source("old")));
        let waiting = tokio::time::timeout(Duration::from_secs(1), access.differs_from(&tried)).await;
        assert!(waiting.is_err(), "the same password is none to try again with");
        assert!(access.renew(source("new")));
        access.differs_from(&tried).await;
        assert_eq!(access.source(), source("new"));
        let waiting = tokio::time::timeout(Duration::from_secs(1), access.refused()).await;
        assert!(waiting.is_err(), "nobody was refused since");
    }
}
