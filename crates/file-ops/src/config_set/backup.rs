//! One backup of configuration, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_backup_core::catalog::{Catalog, CopyState, Filter, SetSummary};
use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::manifest::{Codec, ObjectEntry, SetKind, Source};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetReceipt, SetSpec, SetWriter};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use rustix::fs::FileType;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::facts::{ConfigFacts, ProblemCounts};
use super::look::find_secrets;
use super::{ARCHIVE, KIND};
use crate::capture::{Captured, Stopped, capture};
use crate::error::{Error, Finding};
use crate::frames;
use crate::scan::Scanner;
use crate::secret_files::{self, SecretVersion};
use crate::selection::{Selection, SelectionOptions};
use crate::system::SystemList;
use crate::walk::{Problem, Tree, walk};

/// What is backed up, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConfigOptions {
    /// The protected system.
    pub stanza: Stanza,
    /// Name of the set's content, for a stanza that has several; `config` by default.
    pub name: String,
    /// This host, as it calls itself.
    pub host: String,
    /// Which files.
    pub selection: SelectionOptions,
    /// Who can read the set.
    pub recipients: Recipients,
    /// Stores without encryption what has no secret in it.
    pub plaintext: bool,
    /// Paths in which nothing is a secret, as in `.gitignore`.
    pub allow: Vec<String>,
    /// Lists of the system to be stored beside.
    pub lists: Vec<SystemList>,
    /// Versions of secrets that are in use; see [`crate::secret_files::versions`].
    pub secrets: Vec<SecretVersion>,
    /// What went otherwise than wanted before, such as a secret whose version nobody told.
    pub problems: Vec<Problem>,
    /// Stores also what did not change.
    pub force: bool,
    /// Stores what did not change when the newest set is older than that.
    pub refresh_after: Option<Duration>,
    /// How objects are compressed.
    pub codec: Codec,
    /// Speed and memory.
    pub data_path: DataPath,
    /// Locks objects until then.
    pub retain_until: Option<Timestamp>,
    /// The operator's own words.
    pub annotations: BTreeMap<String, String>,
    /// Name and version of the writing program.
    pub tool: String,
}

impl ConfigOptions {
    /// Nothing, until a selection is set.
    #[must_use]
    pub fn new(stanza: Stanza, selection: SelectionOptions) -> Self {
        Self {
            stanza,
            name: KIND.to_owned(),
            host: String::new(),
            selection,
            recipients: Recipients::none(),
            plaintext: false,
            allow: Vec::new(),
            lists: Vec::new(),
            secrets: Vec::new(),
            problems: Vec::new(),
            force: false,
            refresh_after: None,
            codec: Codec::Zstd,
            data_path: DataPath::default(),
            retain_until: None,
            annotations: BTreeMap::new(),
            tool: concat!("backstay-file-ops ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// What a backup would do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ConfigPlan {
    /// Files, folders and links that were found.
    pub files: u64,
    /// See above.
    pub folders: u64,
    /// See above.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Whether it would be encrypted.
    pub encrypted: bool,
    /// Secrets that would stop it.
    pub findings: Vec<Finding>,
    /// What is missing or cannot be entered.
    pub problems: Vec<Problem>,
    /// Names that differ in upper and lower case only.
    pub case_collisions: u64,
}

/// How a backup ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// A set was stored.
    Stored(Box<ConfigReport>),
    /// Everything is as in that set; nothing was stored.
    Unchanged {
        /// The set.
        set: SetId,
        /// The moment whose state it holds.
        recovery_point: Timestamp,
        /// How long it took to find out.
        elapsed: Duration,
        /// Files, folders and links looked at.
        looked_at: u64,
    },
}

/// What was stored.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConfigReport {
    /// The set.
    pub receipt: SetReceipt,
    /// What is in it.
    pub facts: ConfigFacts,
    /// What went otherwise than wanted.
    pub problems: Vec<Problem>,
    /// From beginning to end.
    pub elapsed: Duration,
}

/// Looks at the files and says what a backup would do. Nothing is stored.
///
/// # Errors
/// The selection cannot be used.
pub async fn plan_config(options: &ConfigOptions, cancel: &CancellationToken) -> Result<ConfigPlan, Error> {
    let encrypted = !options.recipients.is_empty();
    let tree = look(options, cancel).await?;
    let findings = find_secrets(&tree, options, cancel).await?;
    let mut facts = ConfigFacts::default();
    count(&tree, &mut facts);
    Ok(ConfigPlan {
        files: facts.files,
        folders: facts.folders,
        links: facts.links,
        bytes: tree.bytes(),
        encrypted,
        findings,
        problems: tree.problems.clone(),
        case_collisions: tree.case_collisions,
    })
}

fn count(tree: &Tree, facts: &mut ConfigFacts) {
    for found in &tree.found {
        let counter = match found.state.file_type() {
            FileType::Directory => &mut facts.folders,
            FileType::Symlink => &mut facts.links,
            _ => &mut facts.files,
        };
        *counter += 1;
    }
}

/// Walks.
async fn look(options: &ConfigOptions, cancel: &CancellationToken) -> Result<Arc<Tree>, Error> {
    let (selection, cancel) = (options.selection.clone(), cancel.clone());
    let before = options.problems.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut tree = walk(&Selection::resolve(&selection)?, &cancel)?;
        tree.problems.extend(before);
        Ok(Arc::new(tree))
    });
    looked.await.map_err(|error| Error::internal(&error))?
}

/// Backs up, unless nothing changed since the newest good set.
///
/// # Errors
/// Nothing of the selection is there; it would not be encrypted and has secrets in it; the repositories do not take
/// it. Files that could not be read are no error: the set is then marked as incomplete, and never chosen by a restore.
///
/// # Cancel safety
/// As [`SetWriter`]: nothing half-done becomes visible.
pub async fn backup_config(
    repositories: &Repositories,
    options: &ConfigOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome, Error> {
    let begin = Instant::now();
    if options.recipients.is_empty() && !options.plaintext {
        return Err(Error::Plaintext);
    }
    progress.begin("looking");
    let now = repositories.clock().now();
    let tree = look(options, cancel).await?;
    if tree.found.is_empty() {
        return Err(Error::Nothing { problem: first_problem(&tree) });
    }
    let fingerprint = fingerprint(&tree, options, now);
    if let Some(unchanged) = unchanged(repositories, options, fingerprint.as_deref(), now).await? {
        let (set, recovery_point) = unchanged;
        let looked_at = tree.found.len() as u64;
        return Ok(Outcome::Unchanged { set, recovery_point, elapsed: begin.elapsed(), looked_at });
    }
    let findings = find_secrets(&tree, options, cancel).await?;
    if !findings.is_empty() {
        return Err(Error::Secrets { findings });
    }
    let spec = SetSpec::new(SetKind::new(KIND), options.stanza.clone(), &options.tool)
        .source(source(options))
        .recipients(options.recipients.clone())
        .retain_until(options.retain_until)
        .annotations(options.annotations.clone());
    let writer = SetWriter::begin(repositories, spec, options.data_path.clone()).await?;
    let job = Job { options, tree, fingerprint, now };
    match Box::pin(job.store(&writer, progress, cancel)).await {
        Ok((contents, facts, problems)) => {
            let receipt = Box::pin(writer.commit(contents)).await?;
            let report = ConfigReport { receipt, facts, problems, elapsed: begin.elapsed() };
            Ok(Outcome::Stored(Box::new(report)))
        }
        Err(error) => {
            writer.abort().await;
            Err(error)
        }
    }
}

fn first_problem(tree: &Tree) -> String {
    match tree.problems.first() {
        Some(problem) => format!("{}: {}", problem.path, problem.reason),
        None => "no path was listed".to_owned(),
    }
}

fn source(options: &ConfigOptions) -> Source {
    let mut source = Source::default();
    source.host.clone_from(&options.host);
    source.database.clone_from(&options.name);
    source
}

/// Of a tree in which nothing is missing or being changed, with everything else that a set holds.
fn fingerprint(tree: &Tree, options: &ConfigOptions, now: Timestamp) -> Option<String> {
    let grave = tree.problems.iter().any(|problem| problem.kind.is_grave());
    let secrets = serde_json::to_vec(&options.secrets).ok()?;
    let mut more = vec![options.host.as_bytes(), secrets.as_slice()];
    for list in &options.lists {
        more.extend([list.name.as_bytes(), list.content.as_slice()]);
    }
    if grave { None } else { tree.fingerprint(now, &more) }
}

/// The newest good set, if it holds just that, for the same recipients, in every repository.
async fn unchanged(
    repositories: &Repositories,
    options: &ConfigOptions,
    fingerprint: Option<&str>,
    now: Timestamp,
) -> Result<Option<(SetId, Timestamp)>, Error> {
    let (Some(fingerprint), false) = (fingerprint, options.force) else { return Ok(None) };
    let catalog = Catalog::load(repositories, &options.stanza).await?;
    let filter = Filter::default().kind(SetKind::new(KIND)).database(&options.name);
    // Without a set that is good there is no doubt either: a new one is stored.
    let Ok(newest) = catalog.newest_good(&filter) else { return Ok(None) };
    let Some(manifest) = newest.manifest.as_deref() else { return Ok(None) };
    let facts: Option<ConfigFacts> = serde_json::from_value(manifest.facts.clone()).ok();
    let same = facts.is_some_and(|facts| facts.fingerprint.as_deref() == Some(fingerprint));
    let readers = sorted(options.recipients.texts());
    let same_readers = manifest.objects.iter().all(|object| sorted(object.recipients.clone()) == readers);
    let age = now.duration_since(manifest.recovery_point);
    let stale = options.refresh_after.is_some_and(|limit| age.unsigned_abs() >= limit);
    let fits = same && same_readers && !stale && is_everywhere(repositories, newest);
    Ok(fits.then(|| (newest.id.clone(), manifest.recovery_point)))
}

fn is_everywhere(repositories: &Repositories, set: &SetSummary) -> bool {
    let good = |name: &str| set.copy_in(name).is_some_and(|copy| copy.state == CopyState::Good);
    repositories.members().iter().all(|repository| good(repository.name()))
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

struct Job<'a> {
    options: &'a ConfigOptions,
    tree: Arc<Tree>,
    fingerprint: Option<String>,
    now: Timestamp,
}

impl Job<'_> {
    fn object_name(&self, base: &str) -> String {
        let age = if self.options.recipients.is_empty() { "" } else { ".age" };
        format!("{base}{}{age}", self.options.codec.suffix())
    }

    async fn store(
        self,
        writer: &SetWriter,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(SetContents, ConfigFacts, Vec<Problem>), Error> {
        progress.begin("storing");
        progress.expect_bytes(self.tree.bytes());
        progress.expect_items(self.tree.found.len() as u64);
        let (archive, captured) = self.archive(writer, progress, cancel).await?;
        let mut problems = self.tree.problems.clone();
        // A folder that may not be entered is met twice.
        let known: BTreeSet<_> =
            problems.iter().map(|problem| (problem.path.clone(), problem.kind)).collect();
        let is_new = |problem: &&Problem| !known.contains(&(problem.path.clone(), problem.kind));
        problems.extend(captured.problems.iter().filter(is_new).cloned());
        let mut objects = vec![archive];
        if !problems.is_empty() {
            objects.push(self.text(writer, "problems.jsonl", problem_lines(&problems)).await?);
        }
        for list in &self.options.lists {
            objects.push(self.text(writer, list.name, list.content.clone()).await?);
        }
        if !self.options.secrets.is_empty() {
            let recorded = secret_files::encode(&self.options.secrets).map_err(internal)?;
            objects.push(self.text(writer, secret_files::OBJECT, recorded).await?);
        }
        let complete = !problems.iter().any(|problem| problem.kind.is_grave());
        let facts = ConfigFacts {
            files: captured.files,
            folders: captured.folders,
            links: captured.links,
            bytes: captured.bytes,
            case_collisions: self.tree.case_collisions,
            fingerprint: self.fingerprint.clone().filter(|_| complete && !captured.moved_on),
            problems: ProblemCounts::of(&problems),
            privileged: rustix::process::geteuid().is_root(),
            secrets: self.options.secrets.len() as u64,
            ..ConfigFacts::default()
        };
        let described = serde_json::to_value(&facts).map_err(internal)?;
        let contents = SetContents::new(self.now, objects).complete(complete).facts(described);
        Ok((contents, facts, problems))
    }

    async fn archive(
        &self,
        writer: &SetWriter,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(ObjectEntry, Captured), Error> {
        let scanner =
            if self.options.recipients.is_empty() { Some(Scanner::new(&self.options.allow)?) } else { None };
        let (mut sink, stream) = frames::channel(writer.frame_buffers());
        let (tree, progress, cancel) = (self.tree.clone(), progress.clone(), cancel.clone());
        // The thread ends soon after the stream is dropped: its next frame finds nobody who takes it.
        let reading = tokio::task::spawn_blocking(move || {
            match capture(
                std::path::Path::new("/"),
                &tree.found,
                scanner.as_ref(),
                &mut sink,
                &progress,
                &cancel,
            ) {
                Ok(captured) => sink.finish().map(|()| captured).map_err(Stopped::Io),
                Err(Stopped::Cancelled) => {
                    sink.fail(std::io::Error::other("cancelled"));
                    Err(Stopped::Cancelled)
                }
                Err(Stopped::Io(error)) => {
                    sink.fail(std::io::Error::new(error.kind(), error.to_string()));
                    Err(Stopped::Io(error))
                }
            }
        });
        let name = self.object_name(ARCHIVE);
        let stored = Box::pin(writer.object(&name, self.options.codec, stream)).await;
        let captured = reading.await.map_err(|error| Error::internal(&error))?;
        match (stored, captured) {
            (_, Err(Stopped::Cancelled)) => Err(Error::Cancelled),
            (Err(error), _) => Err(error.into()),
            (Ok(_), Err(Stopped::Io(error))) => Err(Error::io("read", std::path::Path::new("/"), error)),
            (Ok(entry), Ok(captured)) => Ok((entry, captured)),
        }
    }

    async fn text(&self, writer: &SetWriter, base: &str, content: Vec<u8>) -> Result<ObjectEntry, Error> {
        let input = stream::iter([Ok(Bytes::from(content))]);
        Ok(Box::pin(writer.object(&self.object_name(base), self.options.codec, input)).await?)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn internal(error: serde_json::Error) -> Error {
    Error::Repository(backstay_backup_core::Error::Internal { what: error.to_string() })
}

/// The object `problems.jsonl`.
pub(crate) fn problem_lines(problems: &[Problem]) -> Vec<u8> {
    let mut lines = Vec::new();
    for problem in problems {
        // Strings and words: JSON can express them.
        lines.extend(serde_json::to_vec(problem).unwrap_or_default());
        lines.push(b'\n');
    }
    lines
}
