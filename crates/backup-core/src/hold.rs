//! Holds: the operator's word that a set must not be removed.
//!
//! A hold is an event beside the set, *held* or *released*, and the newest one by the store's clock counts. Events are
//! only added, so a writer's role is enough and the history stays readable. An event that cannot be read counts as a
//! hold. A set held in one repository is held in all; a release counts only where it was written, and for retention
//! only once it has settled (see [`crate::retention::Hold::Released`]).

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, describe};
use crate::id::{SetId, Stanza};
use crate::key::Prefix;
use crate::manifest::{FORMAT_MAJOR, ManifestError};
use crate::proof::{Problem, READS};
use crate::replicas::Repositories;
use crate::repository::{ReadError, Repository, layout, record};
use crate::retention::Hold;
use crate::store::ObjectMeta;

/// A hold put on a set or taken off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct HoldEvent {
    /// Major version of the format.
    pub format: u32,
    /// The protected system.
    pub stanza: Stanza,
    /// The set.
    pub set: SetId,
    /// Whether the set is held from now on.
    pub held: bool,
    /// Why, in the operator's words.
    pub reason: String,
    /// When, by the clock of whoever wrote it.
    pub at: Timestamp,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Whether one repository says that a set is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldState {
    /// For retention.
    pub hold: Hold,
    /// The operator's reason for the newest event.
    pub reason: String,
    /// The newest event, when it cannot be read.
    pub damaged: Option<Problem>,
}

/// Where a hold event was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HoldReceipt {
    /// The set.
    pub set: SetId,
    /// Whether it is held now.
    pub held: bool,
    /// Repositories that took the event.
    pub stored_in: Vec<String>,
    /// Repositories that did not, with the reason.
    pub missing_in: Vec<(String, String)>,
}

/// Holds a set in every repository.
///
/// # Errors
/// The first failure, when no repository took the event. One is enough, because a set held anywhere is held
/// everywhere that prune can see.
pub async fn place(
    repositories: &Repositories,
    stanza: &Stanza,
    set: &SetId,
    reason: &str,
) -> Result<HoldReceipt, Error> {
    write(repositories, stanza, set, true, reason).await
}

/// Takes the hold off in every repository. The receipt names those where it stays.
///
/// # Errors
/// The first failure, when no repository took the event.
pub async fn release(
    repositories: &Repositories,
    stanza: &Stanza,
    set: &SetId,
    reason: &str,
) -> Result<HoldReceipt, Error> {
    write(repositories, stanza, set, false, reason).await
}

async fn write(
    repositories: &Repositories,
    stanza: &Stanza,
    set: &SetId,
    held: bool,
    reason: &str,
) -> Result<HoldReceipt, Error> {
    let at = repositories.clock().now();
    let (stanza, set, reason) = (stanza.clone(), set.clone(), reason.to_owned());
    let event = HoldEvent { format: FORMAT_MAJOR, stanza, set, held, reason, at, unknown: Map::new() };
    let mut receipt =
        HoldReceipt { set: event.set.clone(), held, stored_in: Vec::new(), missing_in: Vec::new() };
    let mut first = None;
    for member in repositories.members() {
        let key = |at| Ok(layout::hold(&event.stanza, &event.set, at));
        match record::append(member, at, key, &event).await {
            Ok(_) => receipt.stored_in.push(member.name().to_owned()),
            Err(error) => {
                receipt.missing_in.push((member.name().to_owned(), describe(&error)));
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if receipt.stored_in.is_empty() => Err(error),
        _ => Ok(receipt),
    }
}

/// Hold states of the sets below a prefix, as this repository tells them. Lists every event, reads the newest of each
/// set.
pub(crate) async fn load(
    repository: &Repository,
    stanza: &Stanza,
    below: &Prefix,
) -> Result<BTreeMap<SetId, HoldState>, Error> {
    let all = layout::all_holds(stanza);
    let mut newest: BTreeMap<SetId, ObjectMeta> = BTreeMap::new();
    let mut listing = repository.store().list(below);
    while let Some(meta) =
        listing.try_next().await.map_err(|source| repository.failed("list holds", source))?
    {
        let Some((set, name)) = layout::split(&all, &meta.key) else { continue };
        if !is_event(&name) {
            continue;
        }
        let known = newest.get(&set).map(|known| (known.modified, known.key.clone()));
        if known < Some((meta.modified, meta.key.clone())) {
            newest.insert(set, meta);
        }
    }
    let states = stream::iter(newest)
        .map(|(set, meta)| async move {
            let state = state(repository, stanza, &set, &meta).await?;
            Ok::<_, Error>((set, state))
        })
        .buffer_unordered(READS);
    states.try_collect().await
}

/// Whether a name below a set's holds is that of an event.
pub(crate) fn is_event(name: &str) -> bool {
    name.strip_suffix("Z.json").is_some_and(|_| layout::parse_time(name).is_some())
}

/// Checks that an event lies where it belongs.
pub(crate) fn belongs(event: &HoldEvent, stanza: &Stanza, set: &SetId) -> Result<(), ManifestError> {
    if event.stanza == *stanza && event.set == *set {
        return Ok(());
    }
    let problem = format!("it is an event of set {} of stanza {}", event.set, event.stanza);
    Err(ManifestError::Damaged { problem })
}

async fn state(
    repository: &Repository,
    stanza: &Stanza,
    set: &SetId,
    meta: &ObjectMeta,
) -> Result<HoldState, Error> {
    let unreadable = |problem: String| HoldState {
        hold: Hold::Held,
        reason: "the newest hold event cannot be read".to_owned(),
        damaged: Some(Problem::new(meta.key.as_str(), problem)),
    };
    match record::read::<HoldEvent>(repository, &meta.key).await {
        Ok(event) => match belongs(&event, stanza, set) {
            Err(error) => Ok(unreadable(error.to_string())),
            Ok(()) => {
                let hold = if event.held { Hold::Held } else { Hold::Released(meta.modified) };
                Ok(HoldState { hold, reason: event.reason, damaged: None })
            }
        },
        Err(ReadError::Content(error)) => Ok(unreadable(error.to_string())),
        Err(ReadError::Store(error)) if error.is_temporary() => Err(repository.failed("read hold", error)),
        Err(ReadError::Store(error)) => Ok(unreadable(describe(&error))),
    }
}
