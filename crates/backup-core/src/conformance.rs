//! What every [`ObjectStore`](crate::store::ObjectStore) must do, as a suite to run against an implementation.
//!
//! ```no_run
//! # async fn example(open: impl AsyncFn() -> backstay_backup_core::store::SharedStore) {
//! use backstay_backup_core::conformance;
//!
//! let summary = conformance::run(async || open().await).await.unwrap();
//! assert!(summary.skipped.is_empty());
//! # }
//! ```
//!
//! Every behaviour works in a folder of its own with a random name and removes what it stored, so the factory may
//! return the same store each time, a shared bucket for example. What a store does not claim in its
//! [`Capabilities`] is skipped, and the summary says so. All violations are reported
//! together, each with the name of its behaviour, which is a sentence about what should have been.

mod listing;
mod objects;
mod replacement;
mod uploads;

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;

use crate::key::{Key, Prefix};
use crate::store::{Attributes, Capabilities, GetResult, ObjectMeta, PutMode, SharedStore, StoreError};

/// No behaviour takes nearly that long; a store that hangs must not hang its tests.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a behaviour found wrong.
type Verdict = Result<(), String>;

/// Ends a behaviour unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($told:tt)+) => {
        if !$holds {
            return Err(format!($($told)+));
        }
    };
}
use ensure;

/// One thing a store must do.
pub struct Behaviour {
    /// A sentence with underscores.
    pub name: &'static str,
    needs: fn(Capabilities) -> bool,
    run: fn(Bench) -> BoxFuture<'static, Verdict>,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a run found in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Names of the behaviours the store has.
    pub passed: Vec<&'static str>,
    /// Names of those it does not claim to have.
    pub skipped: Vec<&'static str>,
}

/// What a store does wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store at {location} violates: {}", .found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Violations {
    /// Where the store is.
    pub location: String,
    /// One for each behaviour that it lacks.
    pub found: Vec<Violation>,
}

/// A behaviour that a store lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub behaviour: &'static str,
    /// What happened instead.
    pub told: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.behaviour, self.told)
    }
}

/// Lists behaviours with what they need of a store.
macro_rules! behaviours {
    ($($needs:ident: $module:ident: $($name:ident)+;)+) => {
        vec![$($(Behaviour {
            name: stringify!($name),
            needs: $needs,
            run: |bench| Box::pin($module::$name(bench)),
        }),+),+]
    };
}

/// All behaviours, for running them one by one with [`Behaviour::check`].
#[must_use]
pub fn behaviours() -> Vec<Behaviour> {
    behaviours! {
        anything: objects:
            objects_are_read_back_as_they_were_stored
            facts_are_the_same_wherever_they_come_from
            ranges_are_cut_at_the_end
            absence_is_told_apart_from_failure
            deleted_objects_are_gone_and_their_keys_free
            every_valid_key_is_an_object_of_its_own
            bodies_can_be_read_side_by_side_and_dropped
            a_dropped_put_leaves_the_object_whole_or_absent;
        create_only: objects:
            an_existing_object_is_never_overwritten
            of_concurrent_creators_exactly_one_wins;
        compare_and_swap: replacement:
            replacing_needs_the_current_tag
            an_absent_key_is_not_replaced
            of_concurrent_replacements_exactly_one_wins
            increments_are_never_lost;
        anything: listing:
            listings_are_sorted_and_complete
            listings_begin_behind_a_key
            listings_stay_in_their_folder
            listings_show_every_change_at_once
            long_listings_have_neither_gaps_nor_repetitions
            an_empty_folder_is_an_empty_listing;
        anything: uploads:
            parts_join_in_order_whatever_order_they_came_in
            an_upload_is_invisible_until_it_is_complete
            a_part_can_be_stored_again
            an_aborted_upload_leaves_nothing
            an_unknown_upload_is_refused_and_its_abort_is_fine
            pending_uploads_are_listed_by_folder
            the_uploader_stores_streams_of_any_length;
        create_only: uploads:
            a_completion_never_overwrites
            completing_twice_says_that_the_object_exists
            of_concurrent_completions_exactly_one_wins;
    }
}

fn anything(_: Capabilities) -> bool {
    true
}

fn create_only(can: Capabilities) -> bool {
    can.create_only
}

fn compare_and_swap(can: Capabilities) -> bool {
    can.compare_and_swap
}

/// Runs every behaviour against a store of the factory's making.
///
/// # Errors
/// All violations together.
pub async fn run<F>(factory: F) -> Result<Summary, Violations>
where
    F: AsyncFn() -> SharedStore,
{
    let mut summary = Summary::default();
    let mut violations = Violations { location: String::new(), found: Vec::new() };
    for behaviour in behaviours() {
        let store = factory().await;
        violations.location = store.location();
        match behaviour.check(store).await {
            Ok(true) => summary.passed.push(behaviour.name),
            Ok(false) => summary.skipped.push(behaviour.name),
            Err(violation) => violations.found.push(violation),
        }
    }
    if violations.found.is_empty() { Ok(summary) } else { Err(violations) }
}

impl Behaviour {
    /// Checks one store; `false` if it does not claim to have the behaviour.
    ///
    /// # Errors
    /// What happened instead.
    pub async fn check(&self, store: SharedStore) -> Result<bool, Violation> {
        if !(self.needs)(store.capabilities()) {
            return Ok(false);
        }
        let folder = format!("conformance-{:016x}", rand::random::<u64>());
        let folder = Prefix::parse(&folder).expect("letters, digits and a dash are a folder");
        let bench = Bench { store, folder };
        let verdict = match tokio::time::timeout(DEADLINE, (self.run)(bench.clone())).await {
            Ok(verdict) => verdict,
            Err(_) => Err(format!("no end after {} s", DEADLINE.as_secs())),
        };
        bench.clean().await;
        verdict.map(|()| true).map_err(|told| Violation { behaviour: self.name, told })
    }
}

/// A store and the folder in it that a behaviour may use.
#[derive(Clone)]
struct Bench {
    store: SharedStore,
    folder: Prefix,
}

impl Bench {
    fn key(&self, below: &str) -> Key {
        self.folder.key(below).expect("the suite uses valid keys")
    }

    async fn create(&self, below: &str, body: impl Into<Bytes>) -> Result<ObjectMeta, StoreError> {
        self.store.put(&self.key(below), body.into(), PutMode::Create, &Attributes::default()).await
    }

    /// Creates what must not fail.
    async fn given(&self, below: &str, body: impl Into<Bytes>) -> Result<ObjectMeta, String> {
        self.create(below, body).await.map_err(|error| format!("creating {below}: {error:?}"))
    }

    async fn read(&self, below: &str) -> Result<Bytes, String> {
        let opened = self.store.get(&self.key(below), None).await;
        let opened = opened.map_err(|error| format!("opening {below}: {error:?}"))?;
        drain(opened).await.map_err(|error| format!("reading {below}: {error:?}"))
    }

    async fn head(&self, below: &str) -> Result<ObjectMeta, StoreError> {
        self.store.head(&self.key(below)).await
    }

    /// The object's bytes, or `None` if it is proven absent.
    async fn find(&self, below: &str) -> Result<Option<Bytes>, String> {
        match self.store.get(&self.key(below), None).await {
            Ok(opened) => {
                drain(opened).await.map(Some).map_err(|error| format!("reading {below}: {error:?}"))
            }
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(format!("opening {below}: {error:?}")),
        }
    }

    /// Everything below a folder of the bench; empty for the bench's own.
    async fn list(&self, below: &str) -> Result<Vec<ObjectMeta>, String> {
        let folder = self.folder.folder(below).expect("the suite uses valid folders");
        let listing = self.store.list(&folder).try_collect().await;
        listing.map_err(|error| format!("listing {folder:?}: {error:?}"))
    }

    /// Removes what a behaviour left; best effort, a role may not be allowed to.
    async fn clean(&self) {
        for meta in self.list("").await.unwrap_or_default() {
            let _ = self.store.delete(&meta.key).await;
        }
        for pending in self.store.list_uploads(&self.folder).await.unwrap_or_default() {
            let _ = self.store.abort_upload(&pending.key, &pending.upload).await;
        }
    }
}

async fn drain(opened: GetResult) -> Result<Bytes, StoreError> {
    let mut body = opened.body;
    let mut all = BytesMut::new();
    while let Some(chunk) = body.try_next().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

/// Bytes without a period that a chunk size could hide behind.
fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}
