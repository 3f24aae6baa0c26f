//! Brings a repository back: into a folder beside its place first, and there as a whole.
//!
//! ```text
//! chain, the full set first ─▶ index-pack ─▶ refs and HEAD of state.json ─▶ compared ─▶ git fsck --full
//!                           ─▶ LFS objects, each hashed ─▶ working tree ─▶ patches, untracked files
//!                           ─▶ synced ─▶ renamed
//! ```
//!
//! Whoever writes sets may be an enemy: names of refs are checked, archives are taken apart strictly, nothing but the objects
//! that `state.json` names gets into the repository, and no hook, filter or template is there to be run.

mod build;
mod file;
mod place;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_backup_core::catalog::{Catalog, SetSummary};
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::{Manifest, ObjectEntry};
use backstay_backup_core::object_reader::ObjectReader;
use backstay_backup_core::process::CommandRunner;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::chain::{chain, facts};
use super::error::CodeError;
use super::facts::CodeFacts;
use super::git::Git;
use super::objects::{BUNDLE, STATE};
use super::state::State;
use build::Build;
use place::Place;

pub use file::{FileOptions, restore_file};

/// Time for git to go through the repository.
const TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// A set, and what it is read with.
#[derive(Clone, Copy, Debug)]
pub struct StoredSet<'a> {
    /// Where it lies.
    pub repositories: &'a Repositories,
    /// All sets, those that it builds on among them.
    pub catalog: &'a Catalog,
    /// The set.
    pub set: &'a SetSummary,
    /// Keys that open it.
    pub identities: &'a Identities,
    /// Starts git.
    pub runner: &'a Arc<dyn CommandRunner>,
    /// Told how it goes.
    pub progress: &'a Progress,
    /// Stops it.
    pub cancel: &'a CancellationToken,
}

/// Where to, and what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// A folder that is not there, or an empty one.
    pub to: PathBuf,
    /// Without a working tree; as the source was, if nothing is said.
    pub bare: Option<bool>,
    /// Applies what was not committed.
    pub uncommitted: bool,
    /// Time for git to go through the repository; 6 hours by default.
    pub timeout: Duration,
}

impl RestoreOptions {
    /// What is committed, into that folder.
    #[must_use]
    pub fn new(to: &Path) -> Self {
        Self { to: to.to_owned(), bare: None, uncommitted: false, timeout: TIMEOUT }
    }
}

/// What a set holds, and whether it could be restored now.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Described {
    /// The sets that are read, the full one first.
    pub chain: Vec<Link>,
    /// HEAD, refs, submodules, LFS objects.
    pub state: State,
    /// What the manifest says.
    pub facts: CodeFacts,
    /// What is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_the_way: Option<String>,
}

/// A set of a chain.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Link {
    /// The set.
    pub set: String,
    /// Bytes of its bundle, as stored.
    pub bundle_bytes: u64,
    /// Bytes of all its objects, as stored.
    pub stored_bytes: u64,
}

/// What was restored.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Restored {
    /// The folder.
    pub to: PathBuf,
    /// Sets that were read.
    pub sets: u64,
    /// Refs, HEAD and LFS objects that were compared.
    pub compared: u64,
    /// Whether what was not committed was applied.
    pub uncommitted: bool,
    /// What it holds.
    #[serde(skip)]
    pub state: State,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// From beginning to end.
    pub seconds: f64,
}

/// Reads what a set says of itself. Nothing is written.
///
/// # Errors
/// The set, or one that it builds on, is not what it should be, or cannot be read.
pub async fn describe(stored: &StoredSet<'_>, to: Option<&Path>) -> Result<Described, CodeError> {
    let job = Job::new(*stored).await?;
    let links = job.chain.iter().map(|manifest| Link {
        set: manifest.set.to_string(),
        bundle_bytes: build::object(manifest, BUNDLE).map_or(0, |entry| entry.stored),
        stored_bytes: manifest.stored_size(),
    });
    let in_the_way = to.and_then(|to| place::check_free(to).err()).map(|error| error.to_string());
    Ok(Described { chain: links.collect(), state: job.state, facts: job.facts, in_the_way })
}

async fn read_state(
    repositories: &Repositories,
    manifest: &Manifest,
    facts: &CodeFacts,
    identities: &Identities,
) -> Result<State, CodeError> {
    let differs = |problem: String| CodeError::Differs { set: manifest.set.to_string(), problem };
    let entry = build::object(manifest, STATE).ok_or_else(|| differs(format!("it has no {STATE}")))?;
    let content = build::read_small(repositories, manifest, entry, identities).await?;
    let state: State = serde_json::from_slice(&content)
        .map_err(|error| differs(format!("{STATE} cannot be read ({error})")))?;
    if state.format != super::FORMAT {
        return Err(differs(format!(
            "{STATE} has format {}, this program reads {}",
            state.format,
            super::FORMAT
        )));
    }
    if state.tips() != facts.tips || state.object_format != facts.object_format {
        return Err(differs(format!("{STATE} and the manifest do not belong together")));
    }
    build::check_names(&state).map_err(differs)?;
    Ok(state)
}

/// What every restore needs.
#[derive(Debug)]
struct Job<'a> {
    stored: StoredSet<'a>,
    chain: Vec<Arc<Manifest>>,
    state: State,
    facts: CodeFacts,
}

impl<'a> Job<'a> {
    async fn new(stored: StoredSet<'a>) -> Result<Self, CodeError> {
        let chain = chain(stored.catalog, stored.set)?;
        let target = chain.last().ok_or_else(|| CodeError::internal("a chain of no sets"))?;
        let facts = facts(target)?;
        let state = read_state(stored.repositories, target, &facts, stored.identities).await?;
        Ok(Self { stored, chain, state, facts })
    }

    fn target(&self) -> &Manifest {
        // `new` does not take an empty chain.
        &self.chain[self.chain.len() - 1]
    }

    fn differs(&self, problem: impl Into<String>) -> CodeError {
        CodeError::Differs { set: self.target().set.to_string(), problem: problem.into() }
    }

    fn open(&self, manifest: &Manifest, entry: &ObjectEntry) -> Result<ObjectReader, CodeError> {
        Ok(self.stored.repositories.open_object(manifest, entry, self.stored.identities)?)
    }
}

/// Restores a repository. It is at its place when it was found to be what was backed up, and not before.
///
/// # Errors
/// Something is at the place; a set of the chain is damaged; what comes out is not what was backed up.
///
/// # Cancel safety
/// A dropped call kills git and removes the folder beside the place; after a kill the next restore to the place does.
pub async fn restore(stored: &StoredSet<'_>, options: &RestoreOptions) -> Result<Restored, CodeError> {
    let begin = Instant::now();
    let job = Job::new(*stored).await?;
    let bare = options.bare.unwrap_or(job.state.bare);
    if options.uncommitted && (bare || job.facts.uncommitted.is_none()) {
        let why = if bare { "working tree to apply it to" } else { "uncommitted part: it was not asked for" };
        return Err(CodeError::Absent { set: job.target().set.to_string(), wanted: why.to_owned() });
    }
    let place = Place::begin(&options.to)?;
    let git = Git::new(stored.runner.clone(), &place.path("home"), options.timeout, stored.cancel);
    let build = Box::pin(Build::make(&job, &git, &place, bare)).await?;
    let compared = Box::pin(build.check()).await?;
    let mut notes = build.notes();
    if !bare {
        stored.progress.begin("checking out");
        notes.extend(Box::pin(tree::check_out(&build, options.uncommitted)).await?);
    }
    place.finish()?;
    Ok(Restored {
        to: options.to.clone(),
        sets: job.chain.len() as u64,
        compared,
        uncommitted: options.uncommitted,
        state: job.state.clone(),
        notes,
        seconds: begin.elapsed().as_secs_f64(),
    })
}

/// Restores into a throwaway folder and compares: how much was compared, and the differences.
///
/// # Errors
/// As [`restore`]; a difference is none.
pub async fn test_restore(stored: &StoredSet<'_>, scratch: &Path) -> Result<(u64, Vec<String>), CodeError> {
    let mut options = RestoreOptions::new(scratch);
    let manifest = stored.set.manifest.as_deref();
    options.uncommitted = manifest.is_some_and(|manifest| {
        facts(manifest).is_ok_and(|facts| facts.uncommitted.is_some() && !facts.bare)
    });
    match Box::pin(restore(stored, &options)).await {
        Ok(restored) => Ok((restored.compared, Vec::new())),
        Err(CodeError::Differs { problem, .. }) => Ok((0, vec![problem])),
        Err(error) => Err(error),
    }
}
