//! One backup of a repository, step by step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::id::SetId;
use backstay_backup_core::manifest::{SetKind, Source as ManifestSource};
use backstay_backup_core::process::CommandRunner;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::set_writer::{SetReceipt, SetSpec, SetWriter};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::chain::{Previous, previous};
use super::error::CodeError;
use super::facts::CodeFacts;
use super::options::CodeOptions;
use super::source::Source;
use super::state::State;
use super::store::{Base, Job};
use super::{KIND, mark};
use crate::error::Error;
use crate::walk::Problem;

/// How a backup ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// A set was stored.
    Stored(Box<CodeReport>),
    /// Everything is as in that set; nothing was stored.
    Unchanged {
        /// The set.
        set: SetId,
        /// The moment whose state it holds.
        recovery_point: Timestamp,
        /// How long it took to find out.
        elapsed: Duration,
        /// Refs looked at.
        refs: u64,
        /// Whether anything is not committed; absent without a working tree.
        dirty: Option<bool>,
    },
}

/// What was stored.
#[derive(Debug)]
#[non_exhaustive]
pub struct CodeReport {
    /// The set.
    pub receipt: SetReceipt,
    /// What the manifest says of it.
    pub facts: CodeFacts,
    /// What it holds.
    pub state: State,
    /// What went otherwise than wanted.
    pub problems: Vec<Problem>,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
    /// The ref of the tag that was left in the repository, or why there is none.
    pub mark: Option<Result<String, String>>,
    /// From beginning to end.
    pub elapsed: Duration,
}

/// Backs up a repository, unless nothing changed since the newest good set.
///
/// The bundle counts when its pack was taken apart below [`CodeOptions::scratch`] as a clone does it, and everything that the
/// refs need was found there.
///
/// # Errors
/// The folder is no repository that can be taken exactly, or is damaged; it would not be encrypted and has secrets in it; the
/// backup repositories do not take it.
///
/// # Cancel safety
/// As [`SetWriter`]: nothing half-done becomes visible. Git is killed with everything it started, and the temporary folder is
/// removed.
pub async fn backup_code(
    repositories: &Repositories,
    options: &CodeOptions,
    runner: &Arc<dyn CommandRunner>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome, CodeError> {
    let begin = Instant::now();
    if options.recipients.is_empty() && !options.plaintext {
        return Err(Error::Plaintext.into());
    }
    progress.begin("looking");
    let now = repositories.clock().now();
    let source = Box::pin(Source::open(options, runner, cancel)).await?;
    if options.mark {
        mark::check(&source)?;
    }
    let fingerprint = source.fingerprint(now);
    let catalog = Catalog::load(repositories, &options.stanza).await?;
    let previous = previous(&catalog, repositories, &options.name);
    let previous = previous.filter(|previous| may_build_on(previous, &source, options, now));
    if let (Some(previous), Some(fingerprint)) = (&previous, &fingerprint)
        && previous.facts.fingerprint.as_ref() == Some(fingerprint)
    {
        return Ok(Outcome::Unchanged {
            set: previous.manifest.set.clone(),
            recovery_point: previous.manifest.recovery_point,
            elapsed: begin.elapsed(),
            refs: source.state.refs.len() as u64,
            dirty: source.dirty(),
        });
    }
    let findings = source.secrets(options, cancel).await?;
    if !findings.is_empty() {
        return Err(Error::Secrets { findings }.into());
    }
    let base = previous.filter(|previous| previous.length < options.chain);
    let base = base.map_or_else(Base::none, |previous| Base::of(&previous));
    let spec = SetSpec::new(SetKind::new(KIND), options.stanza.clone(), &options.tool)
        .source(manifest_source(options))
        .recipients(options.recipients.clone())
        .retain_until(options.retain_until)
        .annotations(options.annotations.clone())
        .parent(base.set.clone());
    let writer = SetWriter::begin(repositories, spec, options.data_path.clone()).await?;
    let job = Job { options, source: &source, base, fingerprint, now };
    let stored = match Box::pin(job.store(&writer, progress, cancel)).await {
        Ok(stored) => stored,
        Err(error) => {
            writer.abort().await;
            return Err(error);
        }
    };
    let receipt = Box::pin(writer.commit(stored.contents)).await?;
    let mark = match options.mark {
        true => leave_mark(&source, &receipt, options, now).await,
        false => None,
    };
    let (facts, problems, notes) = (stored.facts, stored.problems, stored.notes);
    let state = source.state.clone();
    let report = CodeReport { receipt, facts, state, problems, notes, mark, elapsed: begin.elapsed() };
    Ok(Outcome::Stored(Box::new(report)))
}

/// Whether the newest good set is one that the next may be compared with and built on: in every repository, for the same
/// readers, and young enough.
fn may_build_on(previous: &Previous, source: &Source, options: &CodeOptions, now: Timestamp) -> bool {
    let age = now.duration_since(previous.manifest.recovery_point).unsigned_abs();
    let young = options.refresh_after.is_none_or(|limit| age < limit);
    let same_form = previous.facts.object_format == source.state.object_format;
    let same_readers = previous.has_readers(options.recipients.texts());
    !options.full && young && same_form && same_readers && previous.everywhere
}

fn manifest_source(options: &CodeOptions) -> ManifestSource {
    let mut source = ManifestSource::default();
    source.host.clone_from(&options.host);
    source.database.clone_from(&options.name);
    source
}

/// The set exists already, so a tag that cannot be made is told and no error.
async fn leave_mark(
    source: &Source,
    receipt: &SetReceipt,
    options: &CodeOptions,
    now: Timestamp,
) -> Option<Result<String, String>> {
    match mark::leave(source, &receipt.manifest.set, &options.host, now).await {
        Ok(name) => name.map(Ok),
        Err(error) => Some(Err(error.to_string())),
    }
}
