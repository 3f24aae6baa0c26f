//! Which call goes wrong, and how.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use crate::key::Key;
use crate::store::StoreError;

/// The calls of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// [`crate::store::ObjectStore::put`].
    Put,
    /// [`crate::store::ObjectStore::get`].
    Get,
    /// [`crate::store::ObjectStore::head`].
    Head,
    /// [`crate::store::ObjectStore::list`], from its first item on.
    List,
    /// [`crate::store::ObjectStore::delete`].
    Delete,
    /// [`crate::store::Multipart::start_upload`].
    StartUpload,
    /// [`crate::store::Multipart::put_part`].
    PutPart,
    /// [`crate::store::Multipart::complete_upload`].
    CompleteUpload,
    /// [`crate::store::Multipart::abort_upload`].
    AbortUpload,
    /// [`crate::store::Multipart::list_uploads`].
    ListUploads,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Put => "store",
            Self::Get => "read",
            Self::Head => "look at",
            Self::List | Self::ListUploads => "list",
            Self::Delete => "delete",
            Self::StartUpload => "begin to store",
            Self::PutPart => "store a part of",
            Self::CompleteUpload => "complete",
            Self::AbortUpload => "abort",
        }
    }
}

/// One call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub operation: Operation,
    /// Its key or prefix.
    pub what: String,
    /// What went wrong with it.
    pub mishap: Option<Mishap>,
}

/// One call, named so that another run has it too, although its keys are new and its calls overlap otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    /// What is called.
    pub operation: Operation,
    /// Its key or prefix; a segment `*` stands for any one segment.
    pub like: String,
    /// Which of the calls that fit, from 1.
    pub number: u64,
}

impl Spot {
    fn fits(&self, operation: Operation, what: &str) -> bool {
        let (mut wanted, mut found) = (self.like.split('/'), what.split('/'));
        operation == self.operation
            && loop {
                match (wanted.next(), found.next()) {
                    (None, None) => break true,
                    (Some(wanted), Some(found)) if wanted == "*" || wanted == found => {}
                    _ => break false,
                }
            }
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mishap {
    /// It fails before the store is reached.
    Error(ErrorKind),
    /// The store does it, and the caller sees a temporary failure.
    LostReply,
    /// A body ends after so many bytes, or a listing after so many objects; loudly with a temporary failure.
    Cut {
        /// Bytes or objects that still arrive.
        after: u64,
        /// Whether there is an error, or it merely ends.
        loud: bool,
    },
    /// One bit of the bytes that are stored or read is another one.
    Flip,
    /// It takes that much longer.
    Slow(Duration),
}

/// The kinds of [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`StoreError::Absent`].
    Absent,
    /// [`StoreError::AlreadyExists`].
    AlreadyExists,
    /// [`StoreError::Conflict`].
    Conflict,
    /// [`StoreError::Denied`].
    Denied,
    /// [`StoreError::Full`].
    Full,
    /// [`StoreError::Missing`].
    Missing,
    /// [`StoreError::Temporary`].
    Temporary,
    /// [`StoreError::Temporary`] that asks for a delay.
    Throttled(Duration),
    /// [`StoreError::Checksum`].
    Checksum,
    /// [`StoreError::Failed`].
    Failed,
}

impl ErrorKind {
    /// One of each, for tests that try them all.
    pub const ALL: [Self; 10] = [
        Self::Absent,
        Self::AlreadyExists,
        Self::Conflict,
        Self::Denied,
        Self::Full,
        Self::Missing,
        Self::Temporary,
        Self::Throttled(Duration::from_secs(1)),
        Self::Checksum,
        Self::Failed,
    ];

    /// An error of this kind.
    #[must_use]
    pub fn error(self, op: &'static str, what: &str) -> StoreError {
        let source = "injected".into();
        let key = || key_of(what);
        let temporary =
            |retry_after, source| StoreError::Temporary { op, what: what.to_owned(), retry_after, source };
        let what = what.to_owned();
        match self {
            Self::Absent => StoreError::Absent { key: key() },
            Self::AlreadyExists => StoreError::AlreadyExists { key: key() },
            Self::Conflict => StoreError::Conflict { key: key() },
            Self::Checksum => StoreError::Checksum { key: key() },
            Self::Denied => StoreError::Denied { op, what, source },
            Self::Full => StoreError::Full { op, what, source },
            Self::Missing => StoreError::Missing { location: what, source },
            Self::Temporary => temporary(None, source),
            Self::Throttled(delay) => temporary(Some(delay), source),
            Self::Failed => StoreError::Failed { op, what, source },
        }
    }
}

/// A prefix is no key; errors that name one get its folder.
fn key_of(what: &str) -> Key {
    let folder = what.strip_suffix('/').unwrap_or(what);
    Key::parse(folder).unwrap_or_else(|_| Key::parse("root").expect("a plain word is a key"))
}

/// The plan of faults and the record of calls.
#[derive(Debug)]
pub(super) struct Script {
    random: StdRng,
    calls: Vec<Call>,
    planned: Vec<Planned>,
    aimed: Vec<Aimed>,
    storm: Option<Instant>,
    room: Option<u64>,
    chaos: Option<(f64, Vec<Mishap>)>,
}

#[derive(Debug)]
struct Planned {
    /// `None` counts all calls.
    operation: Option<Operation>,
    /// `None` is every call.
    number: Option<u64>,
    mishap: Mishap,
}

/// A fault that begins at a spot.
#[derive(Debug)]
struct Aimed {
    spot: Spot,
    mishap: Mishap,
    /// Calls that fitted the spot.
    seen: u64,
    /// Calls that are still to be hit, whatever they are, once the spot was met.
    left: u64,
}

impl Aimed {
    fn hits(&mut self, operation: Operation, what: &str) -> bool {
        let fits = self.spot.fits(operation, what);
        self.seen += u64::from(fits);
        let hits = self.seen >= self.spot.number && self.left > 0;
        self.left -= u64::from(hits);
        hits
    }
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            calls: Vec::new(),
            planned: Vec::new(),
            aimed: Vec::new(),
            storm: None,
            room: None,
            chaos: None,
        }
    }

    pub(super) fn on(&mut self, operation: Option<Operation>, number: u64, mishap: Mishap) {
        self.planned.push(Planned { operation, number: Some(number), mishap });
    }

    pub(super) fn always(&mut self, operation: Operation, mishap: Mishap) {
        self.planned.push(Planned { operation: Some(operation), number: None, mishap });
    }

    pub(super) fn at(&mut self, spot: Spot, calls: u64, mishap: Mishap) {
        self.aimed.push(Aimed { spot, mishap, seen: 0, left: calls });
    }

    pub(super) fn storm(&mut self, time: Duration) {
        self.storm = Some(Instant::now() + time);
    }

    pub(super) fn full_after(&mut self, bytes: u64) {
        self.room = Some(bytes);
    }

    pub(super) fn chaos(&mut self, probability: f64, mishaps: Vec<Mishap>) {
        self.chaos = Some((probability.clamp(0.0, 1.0), mishaps));
    }

    pub(super) fn calm(&mut self) {
        self.planned.clear();
        self.aimed.clear();
        self.storm = None;
        self.room = None;
        self.chaos = None;
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    pub(super) fn count(&self, operation: Operation) -> u64 {
        self.calls.iter().filter(|call| call.operation == operation).count() as u64
    }

    /// Records a call that carries so many bytes and decides what becomes of it.
    pub(super) fn next(&mut self, operation: Operation, what: &str, bytes: usize) -> Option<Mishap> {
        let mishap = self.decide(operation, what, bytes);
        self.calls.push(Call { operation, what: what.to_owned(), mishap });
        mishap
    }

    fn decide(&mut self, operation: Operation, what: &str, bytes: usize) -> Option<Mishap> {
        // Each counts the calls that fit, also those that something else hits.
        let mut met = None;
        for aimed in &mut self.aimed {
            if aimed.hits(operation, what) {
                met = met.or(Some(aimed.mishap));
            }
        }
        if self.storm.is_some_and(|end| Instant::now() < end) {
            return Some(Mishap::Error(ErrorKind::Temporary));
        }
        if met.is_some() {
            return met;
        }
        let (total, same) = (self.calls.len() as u64 + 1, self.count(operation) + 1);
        let hit = self.planned.iter().find(|planned| match planned.operation {
            None => planned.number == Some(total),
            Some(wanted) => wanted == operation && planned.number.is_none_or(|number| number == same),
        });
        if let Some(planned) = hit {
            return Some(planned.mishap);
        }
        self.room(bytes as u64).or_else(|| self.random_mishap())
    }

    pub(super) fn random_bit(&mut self, bytes: u64) -> u64 {
        self.random.random_range(0..(bytes * 8).max(1))
    }

    fn room(&mut self, bytes: u64) -> Option<Mishap> {
        let room = self.room.as_mut()?;
        match room.checked_sub(bytes) {
            Some(left) => {
                *room = left;
                None
            }
            None => {
                // A disk that was too small for this is full for the next one, too.
                *room = 0;
                Some(Mishap::Error(ErrorKind::Full))
            }
        }
    }

    fn random_mishap(&mut self) -> Option<Mishap> {
        let (probability, mishaps) = self.chaos.as_ref()?;
        if mishaps.is_empty() || !self.random.random_bool(*probability) {
            return None;
        }
        Some(mishaps[self.random.random_range(0..mishaps.len())])
    }
}
