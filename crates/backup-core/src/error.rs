//! Errors of the repository layer and the class that decides an exit code.

mod hint;

use std::sync::Arc;

pub use hint::CLOCK_REMEDY;

use crate::id::{SetId, Stanza};
use crate::lease::LeaseError;
use crate::manifest::ManifestError;
use crate::store::StoreError;

/// What an error means to whoever started the operation; each class is one public exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The thing asked for does not exist, or the answer is no.
    Absent,
    /// Arguments, configuration or credentials must be changed first.
    Usage,
    /// Stored or restored data is not what it should be.
    Data,
    /// Somebody else holds the lease, or the target is in the way.
    Conflict,
    /// The same command may succeed later.
    Temporary,
    /// A bug of ours.
    Internal,
}

/// Why an operation on a repository failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A store failed after its own retries were spent.
    #[error("repository {repository}: {op} failed")]
    Store {
        /// Name or location of the repository.
        repository: String,
        /// What was being done.
        op: &'static str,
        /// The store's error.
        source: StoreError,
    },
    /// The store holds no repository.
    #[error("{location} is not a Backstay repository")]
    NotARepository {
        /// Its location.
        location: String,
    },
    /// The repository's own description is unreadable or too new.
    #[error("the description of repository {location} cannot be used")]
    Description {
        /// Its location.
        location: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A manifest is unreadable or too new.
    #[error("the manifest of set {set} in repository {repository} cannot be used")]
    Manifest {
        /// The set.
        set: SetId,
        /// Name of the repository.
        repository: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A manifest lies below a stanza or set it does not belong to.
    #[error("the manifest at set {set} of stanza {stanza} belongs to {found}")]
    Misplaced {
        /// The set asked for.
        set: SetId,
        /// The stanza asked for.
        stanza: Stanza,
        /// What it says it is.
        found: String,
    },
    /// No set fits.
    #[error("no {wanted} in stanza {stanza}")]
    NoSuchSet {
        /// What was asked for, in words: `set 2026…`, `good set before …`.
        wanted: String,
        /// The stanza.
        stanza: Stanza,
    },
    /// The manifest of a set that may be the one wanted cannot be read; any other might be the wrong one.
    #[error("set {set} may be the newest, and its manifest cannot be read: {problem}")]
    Unread {
        /// The set.
        set: SetId,
        /// What the stores say.
        problem: String,
    },
    /// Stored bytes are missing or differ from the manifest; the set must not be restored.
    #[error("set {set} is damaged: {object}: {problem}")]
    Damaged {
        /// The set.
        set: SetId,
        /// The object below the set.
        object: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Fewer repositories than the quorum have the data.
    #[error("only {reached} of {needed} repositories needed took the data")]
    Quorum {
        /// How many took it.
        reached: usize,
        /// How many had to.
        needed: usize,
        /// The first failure.
        source: Box<Error>,
    },
    /// The set is encrypted and none of the keys given opens it.
    #[error("set {set} is encrypted: {problem}")]
    Key {
        /// The set.
        set: SetId,
        /// What is missing or wrong.
        problem: String,
    },
    /// An encryption recipient or identity is no such thing.
    #[error("invalid encryption key: {problem}")]
    InvalidKey {
        /// What is wrong, without the key.
        problem: String,
    },
    /// A lease is not held.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The data source failed while it was read.
    #[error("the source of {object} failed")]
    Source {
        /// The object that was being written.
        object: String,
        /// The source's error.
        source: std::io::Error,
    },
    /// A failure that ended several operations at once; each of them reports it.
    #[error(transparent)]
    Shared(Arc<Error>),
    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Something that cannot happen.
    #[error("internal error: {what}")]
    Internal {
        /// What happened.
        what: String,
    },
}

impl Error {
    /// The failure itself, also where others report the same one.
    #[must_use]
    pub fn failure(&self) -> &Self {
        match self {
            Self::Shared(error) => error.failure(),
            own => own,
        }
    }

    /// Whether a store has no room left, and that is all.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Store { source, .. } => matches!(source, StoreError::Full { .. }),
            Self::Quorum { source, .. } => source.is_full(),
            Self::Shared(error) => error.is_full(),
            _ => false,
        }
    }

    /// Its class.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            // Nobody asked whether it exists: a part's upload that is gone, a folder that cannot be listed.
            Self::Store { source: StoreError::Absent { .. }, .. } => Class::Temporary,
            Self::Store { source, .. } => store_class(source),
            Self::NotARepository { .. } | Self::InvalidKey { .. } | Self::Key { .. } => Class::Usage,
            Self::Description { source, .. } | Self::Manifest { source, .. } => match source {
                ManifestError::TooNew { .. } => Class::Usage,
                ManifestError::Damaged { .. } => Class::Data,
            },
            Self::Misplaced { .. } | Self::Damaged { .. } => Class::Data,
            Self::NoSuchSet { .. } => Class::Absent,
            Self::Quorum { source, .. } => source.class(),
            Self::Shared(error) => error.class(),
            Self::Lease(error) => error.class(),
            Self::Unread { .. } | Self::Source { .. } | Self::Cancelled => Class::Temporary,
            Self::Internal { .. } => Class::Internal,
        }
    }
}

fn store_class(error: &StoreError) -> Class {
    match error {
        StoreError::Absent { .. } => Class::Absent,
        StoreError::AlreadyExists { .. } | StoreError::Conflict { .. } => Class::Conflict,
        StoreError::Denied { .. } | StoreError::Clock { .. } | StoreError::Missing { .. } => Class::Usage,
        StoreError::Checksum { .. } => Class::Data,
        StoreError::Full { .. } | StoreError::Temporary { .. } | StoreError::Failed { .. } => {
            Class::Temporary
        }
    }
}

/// An error that knows what it means to whoever started the operation.
///
/// Programs turn it into an exit code and print its chain and hint; every crate implements it for its own error.
pub trait Classified: std::error::Error + Send + Sync + 'static {
    /// Its class.
    fn class(&self) -> Class;

    /// What to do about it, as an imperative sentence without its full stop, where that is known.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// An error with everything below it, in one line.
#[must_use]
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text.push_str(": ");
        text.push_str(&error.to_string());
        below = error.source();
    }
    text
}
