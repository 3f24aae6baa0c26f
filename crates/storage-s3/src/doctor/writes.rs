//! Conditional writes: nothing is overwritten, and leases have one holder.

use backstay_backup_core::key::Key;
use backstay_backup_core::store::{Attributes, ETag, PutMode, StoreError};
use bytes::Bytes;
use futures::future::join_all;

use super::finding::Answer;
use super::run::{Answered, Run};

const CREATE_REMEDY: &str = "use a store with conditional writes. Until then set conditional-writes = false: keys are unique \
                             by themselves, readers look for conflicts, and no bucket policy protects old backups";
const SWAP_REMEDY: &str = "use a store with conditional writes. Until then set conditional-writes = false: leases then use \
                           claims that are listed and compared, which is slower and weaker";
const SWITCHED_OFF: &str = "conditional writes are switched off or missing: writes rely on unique keys, and readers look for \
                            conflicts";

impl Run {
    pub(super) async fn create_only(&self) -> Answered {
        let key = self.key("create-only");
        let first = Bytes::from_static(b"first");
        self.create(&key, &first).await?;
        let second = self.create(&key, &Bytes::from_static(b"second")).await;
        let kept = self.read(&key).await? == first;
        match second {
            Ok(_) => Ok(Answer::unsafe_because(
                "a second create of a key succeeded and replaced it",
                CREATE_REMEDY,
            )),
            Err(StoreError::AlreadyExists { .. }) if !kept => Ok(Answer::unsafe_because(
                "a second create was refused, yet replaced the object",
                CREATE_REMEDY,
            )),
            Err(StoreError::AlreadyExists { .. }) if !self.store.capabilities().create_only => {
                Ok(Answer::unsafe_because(SWITCHED_OFF, CREATE_REMEDY))
            }
            Err(StoreError::AlreadyExists { .. }) => Ok(Answer::safe("a second create of a key is refused")),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn create_race(&self) -> Answered {
        let key = self.key("create-race");
        let bodies: Vec<Bytes> = self.bodies();
        let outcomes = join_all(bodies.iter().map(|body| self.create(&key, body))).await;
        let winners: Vec<_> = bodies.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).collect();
        match winners.as_slice() {
            [] => Err(first_surprise(outcomes)),
            [(body, _)] if self.read(&key).await? == **body => {
                let losers = outcomes.len() - 1;
                Ok(Answer::safe(format!(
                    "of {} writers of one key one won and {losers} were refused",
                    outcomes.len()
                )))
            }
            [_] => {
                Ok(Answer::unsafe_because("the winner of a race does not find its own bytes", CREATE_REMEDY))
            }
            more => Ok(Answer::unsafe_because(
                format!(
                    "of {} writers of one key {} were told that they created it",
                    outcomes.len(),
                    more.len()
                ),
                CREATE_REMEDY,
            )),
        }
    }

    pub(super) async fn compare_and_swap(&self) -> Answered {
        // Below `leases/`, because a writer's policy allows replacement only there.
        let key = self.key("leases/swap");
        let missing = self.key("leases/missing");
        let Some(first) = self.tag_of_new(&key).await? else { return Ok(no_tags()) };
        let second = self.swap(&key, &first, b"second").await?;
        let Some(second) = second else {
            return Ok(Answer::unsafe_because("a replacement with the current tag was refused", SWAP_REMEDY));
        };
        if self.swap(&key, &first, b"third").await?.is_some() || self.read(&key).await? != b"second" {
            return Ok(Answer::unsafe_because("a replacement with an outdated tag succeeded", SWAP_REMEDY));
        }
        if self.swap(&missing, &second, b"fourth").await?.is_some() || self.exists(&missing).await? {
            return Ok(Answer::unsafe_because("a replacement of a missing object created it", SWAP_REMEDY));
        }
        if !self.store.capabilities().compare_and_swap {
            return Ok(Answer::unsafe_because(SWITCHED_OFF, SWAP_REMEDY));
        }
        Ok(Answer::safe("a replacement succeeds with the current tag, and only then"))
    }

    pub(super) async fn swap_race(&self) -> Answered {
        let key = self.key("leases/swap-race");
        let Some(tag) = self.tag_of_new(&key).await? else { return Ok(no_tags()) };
        let bodies = self.bodies();
        let outcomes = join_all(bodies.iter().map(|body| self.swap(&key, &tag, body))).await;
        let winners = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Some(_)))).count();
        match winners {
            0 => match outcomes.into_iter().find_map(Result::err) {
                Some(error) => Err(error),
                None => Ok(Answer::unsafe_because(
                    "of writers with the current tag none could replace",
                    SWAP_REMEDY,
                )),
            },
            1 => Ok(Answer::safe(format!("of {} writers with one tag one could replace", bodies.len()))),
            more => Ok(Answer::unsafe_because(
                format!(
                    "of {} writers with one tag {more} were told that they replaced: two could hold one lease",
                    bodies.len()
                ),
                SWAP_REMEDY,
            )),
        }
    }

    fn bodies(&self) -> Vec<Bytes> {
        (0..self.options.racers).map(|racer| Bytes::from(format!("racer {racer}"))).collect()
    }

    async fn tag_of_new(&self, key: &Key) -> Result<Option<ETag>, StoreError> {
        match self.create(key, &Bytes::from_static(b"first")).await?.etag {
            Some(tag) => Ok(Some(tag)),
            None => Ok(self.store.head(key).await?.etag),
        }
    }

    /// The new tag, or nothing when the replacement was refused. A racer that meets a conflict in flight lost, too.
    async fn swap(&self, key: &Key, tag: &ETag, body: &[u8]) -> Result<Option<ETag>, StoreError> {
        let mode = PutMode::Replace(tag.clone());
        match self.store.put(key, Bytes::copy_from_slice(body), mode, &Attributes::default()).await {
            Ok(meta) => Ok(Some(meta.etag.unwrap_or_else(|| tag.clone()))),
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn no_tags() -> Answer {
    Answer::unsafe_because(
        "the store gives objects no tags, so nothing can be compared and swapped",
        SWAP_REMEDY,
    )
}

/// Why nobody won: the first error that is no ordinary refusal.
fn first_surprise<T>(outcomes: Vec<Result<T, StoreError>>) -> StoreError {
    let mut errors: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    let at = errors.iter().position(|error| !matches!(error, StoreError::AlreadyExists { .. })).unwrap_or(0);
    errors.swap_remove(at)
}
