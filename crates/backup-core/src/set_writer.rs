//! Writes one backup set so that a crash can never leave a set that looks complete (P1).
//!
//! ```text
//! begin ─▶ object() … object()            data, create-only, into every repository at once
//!       ─▶ commit()                       every object checked in every repository, then the manifest, create-only
//! ```
//!
//! A set exists exactly when its manifest exists; everything before that is litter that `prune` collects. Nothing is
//! replaced and nothing is deleted here (P2). A repository that fails is left out of the set, and of the receipt's
//! `stored_in`, as long as the quorum holds.

mod lanes;
mod members;
mod object;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::encryption::Recipients;
use crate::error::Error;
use crate::id::{SetId, Stanza};
use crate::manifest::{Codec, FORMAT_MAJOR, Manifest, ObjectEntry, SetKind, Source};
use crate::pipeline::FrameBuffers;
use crate::replicas::Repositories;
use crate::repository::layout;
use crate::store::Attributes;

use members::Members;
use object::Machine;

/// How long [`SetWriter::abort`] spends on one repository.
const ABORT_TIME: Duration = Duration::from_secs(30);

/// What a new set is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetSpec {
    /// Which tool makes and restores such a set.
    pub kind: SetKind,
    /// The protected system.
    pub stanza: Stanza,
    /// What is backed up, as far as it is known at the beginning.
    pub source: Source,
    /// Name and version of the writing program.
    pub tool: String,
    /// Who can read it; nobody in particular when empty.
    pub recipients: Recipients,
    /// Locks every object against deletion until then, where the store can.
    pub retain_until: Option<Timestamp>,
    /// The operator's own words.
    pub annotations: BTreeMap<String, String>,
    /// Set this one cannot be restored without.
    pub parent: Option<SetId>,
}

impl SetSpec {
    /// A set without encryption, lock, annotations and parent.
    #[must_use]
    pub fn new(kind: SetKind, stanza: Stanza, tool: &str) -> Self {
        Self {
            kind,
            stanza,
            source: Source::default(),
            tool: tool.to_owned(),
            recipients: Recipients::none(),
            retain_until: None,
            annotations: BTreeMap::new(),
            parent: None,
        }
    }

    /// Sets what is backed up.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Encrypts to these recipients.
    #[must_use]
    pub fn recipients(mut self, recipients: Recipients) -> Self {
        self.recipients = recipients;
        self
    }

    /// Locks the objects.
    #[must_use]
    pub fn retain_until(mut self, until: Option<Timestamp>) -> Self {
        self.retain_until = until;
        self
    }

    /// Sets the operator's own words.
    #[must_use]
    pub fn annotations(mut self, annotations: BTreeMap<String, String>) -> Self {
        self.annotations = annotations;
        self
    }

    /// Sets the parent.
    #[must_use]
    pub fn parent(mut self, parent: Option<SetId>) -> Self {
        self.parent = parent;
        self
    }
}

/// How data is compressed and cut, which decides speed and memory.
///
/// Memory is at most `workers × 2 × frame + (parts_in_flight + 1) × part_size` for a set (with one worker as with
/// two), plus, for every object written at the same time, the frames that its source holds and, beyond the first, one
/// part: 27 MiB for one object read by [`crate::pipeline::read_frames`] with the defaults on two cores. An object beyond half of a store's part numbers (25 GiB on S3) has growing
/// parts and needs accordingly more.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DataPath {
    /// Compression level of zstd, 3 by default; gzip takes the nearest of its own (1 to 9).
    pub level: i32,
    /// Plain bytes of a frame, 2 MiB by default; smaller frames compress worse, larger ones cost memory.
    pub frame: usize,
    /// Frames compressed or being put into parts at the same time; the number of cores by default.
    pub workers: usize,
    /// Bytes of a part, 5 MiB by default, the least that S3 takes.
    pub part_size: u64,
    /// Parts being uploaded at the same time, 2 by default.
    pub parts_in_flight: usize,
}

impl Default for DataPath {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self { level: 3, frame: 2 << 20, workers, part_size: 5 << 20, parts_in_flight: 2 }
    }
}

impl DataPath {
    /// Sets the compression level.
    #[must_use]
    pub fn level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// Sets the frame size in bytes.
    #[must_use]
    pub fn frame(mut self, bytes: usize) -> Self {
        self.frame = bytes;
        self
    }

    /// Sets how many frames are compressed at the same time.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets the part size in bytes.
    #[must_use]
    pub fn part_size(mut self, bytes: u64) -> Self {
        self.part_size = bytes;
        self
    }

    /// For a set of which several objects are written at the same time. There a frame waits for the one before it in its own
    /// object, and meanwhile holds room that other objects need; more frames of half the size keep all processors
    /// busy in the same memory. A frame of 1 MiB compresses nearly as well as one of 2 MiB.
    #[must_use]
    pub fn side_by_side(mut self) -> Self {
        self.frame = (self.frame / 2).max(1);
        self.workers *= 3;
        self
    }

    /// Sets how many parts are uploaded at the same time.
    #[must_use]
    pub fn parts_in_flight(mut self, parts: usize) -> Self {
        self.parts_in_flight = parts;
        self
    }
}

/// What a finished set says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetContents {
    /// What was backed up, when more is known than at the beginning.
    pub source: Option<Source>,
    /// The moment whose state the set holds, by the source's clock.
    pub recovery_point: Timestamp,
    /// False when the source could not be read completely.
    pub complete: bool,
    /// The objects, as [`SetWriter::object`] returned them.
    pub objects: Vec<ObjectEntry>,
    /// Facts that a restore test compares.
    pub facts: Value,
}

impl SetContents {
    /// Complete contents without facts.
    #[must_use]
    pub fn new(recovery_point: Timestamp, objects: Vec<ObjectEntry>) -> Self {
        Self { source: None, recovery_point, complete: true, objects, facts: Value::Null }
    }

    /// Sets what was backed up.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Sets whether the source was read completely.
    #[must_use]
    pub fn complete(mut self, complete: bool) -> Self {
        self.complete = complete;
        self
    }

    /// Sets the facts.
    #[must_use]
    pub fn facts(mut self, facts: Value) -> Self {
        self.facts = facts;
        self
    }
}

/// Proof that a set exists.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetReceipt {
    /// The manifest as stored.
    pub manifest: Manifest,
    /// Names of the repositories that have the set.
    pub stored_in: Vec<String>,
    /// Names of those that do not, and why.
    pub missing_in: Vec<(String, String)>,
}

/// An object that was stored, and its frames.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FramedObject {
    /// What the manifest says of it.
    pub entry: ObjectEntry,
    /// Bytes of each frame as compressed, before encryption; all but the last hold [`DataPath::frame`] plain bytes.
    pub frames: Vec<u32>,
}

/// A set being written.
#[derive(Debug)]
pub struct SetWriter {
    spec: SetSpec,
    id: SetId,
    started: Timestamp,
    repositories: Repositories,
    members: Members,
    machine: Machine,
    written: Mutex<BTreeMap<String, ObjectEntry>>,
}

impl SetWriter {
    /// Begins a set with a new id. Nothing is written yet.
    ///
    /// # Errors
    /// [`Error::Internal`] for a data path with a zero in it.
    pub async fn begin(repositories: &Repositories, spec: SetSpec, path: DataPath) -> Result<Self, Error> {
        let started = repositories.clock().now();
        let id = SetId::generate(started, &mut rand::rng());
        let attributes = Attributes::default().retain_until(spec.retain_until);
        let machine = Machine::new(&path, spec.recipients.clone(), attributes)?;
        let members = Members::new(repositories.clone());
        let repositories = repositories.clone();
        Ok(Self { spec, id, started, repositories, members, machine, written: Mutex::default() })
    }

    /// The set's id.
    #[must_use]
    pub fn id(&self) -> &SetId {
        &self.id
    }

    /// Memory for the chunks given to [`SetWriter::object`]: chunks made of these buffers, filled to their size, are
    /// not copied, and no more memory is held than is in flight.
    #[must_use]
    pub fn frame_buffers(&self) -> FrameBuffers {
        self.machine.buffers().clone()
    }

    /// Stores a stream as one object of the set, in every repository. Several calls may run at the same time; they
    /// share workers and memory.
    ///
    /// # Errors
    /// [`Error::Source`] when `input` fails, [`Error::Shared`] when too few repositories take it: every object of the set
    /// says the same [`Error::Store`] or [`Error::Quorum`]. The uploads have been aborted then, and nothing of the object
    /// is visible.
    ///
    /// # Cancel safety
    /// A dropped call leaves uploads that were never completed, which [`SetWriter::abort`] or `prune` removes, or, at
    /// the very end, whole objects that no manifest names.
    pub async fn object<S>(&self, name: &str, codec: Codec, input: S) -> Result<ObjectEntry, Error>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        self.framed_object(name, codec, input).await.map(|object| object.entry)
    }

    /// As [`SetWriter::object`]; says also where its frames ended up, so that some of them can be read alone.
    ///
    /// # Errors
    /// As [`SetWriter::object`].
    ///
    /// # Cancel safety
    /// As [`SetWriter::object`].
    pub async fn framed_object<S>(&self, name: &str, codec: Codec, input: S) -> Result<FramedObject, Error>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        let key = layout::object(&self.spec.stanza, &self.id, name)
            .map_err(|error| Error::Internal { what: error.to_string() })?;
        let content = Box::pin(self.machine.store(&self.members, &key, name, codec, input)).await?;
        let entry = ObjectEntry {
            name: name.to_owned(),
            stored: content.stored.len,
            plain: content.plain,
            sha256: content.stored.sha256,
            codec,
            recipients: self.spec.recipients.texts(),
            unknown: Map::new(),
        };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(name.to_owned(), entry.clone());
        Ok(FramedObject { entry, frames: content.frames })
    }

    /// Makes the set exist: checks the size of every object in every repository, then stores the manifest.
    ///
    /// # Errors
    /// [`Error::Shared`] of [`Error::Store`] or [`Error::Quorum`] when too few repositories have it all. With several
    /// repositories the set may exist in some of them even then, whole and readable, only in fewer than asked for.
    ///
    /// # Cancel safety
    /// A dropped call leaves a whole set or no set in each repository.
    pub async fn commit(self, contents: SetContents) -> Result<SetReceipt, Error> {
        self.check_contents(&contents.objects)?;
        let manifest = self.manifest(contents);
        let bytes = manifest.encode().map_err(|error| Error::Internal { what: error.to_string() })?;
        let bytes = Bytes::from(bytes);
        self.members.check_objects(&manifest).await?;
        let key = layout::manifest(&manifest.stanza, &manifest.set);
        let attributes =
            Attributes::default().retain_until(self.spec.retain_until).content_type("application/json");
        self.members.put_manifest(&key, &bytes, &attributes).await?;
        let (stored_in, missing_in) = self.members.outcome();
        tracing::info!(set = %manifest.set, stanza = %manifest.stanza, "set stored");
        Ok(SetReceipt { manifest, stored_in, missing_in })
    }

    /// Why too few repositories are left to store the set, if that is so: the failure that ended its objects, which whoever
    /// feeds one of them only notices as a stream that nobody reads.
    #[must_use]
    pub fn given_up(&self) -> Option<Error> {
        self.members.given_up()
    }

    /// Gives the set up: aborts every upload that is still pending below it. What was stored already stays for
    /// `prune`, because a writer does not delete (P2).
    pub async fn abort(self) {
        let prefix = layout::set(&self.spec.stanza, &self.id);
        let aborts = self.repositories.members().iter().map(|repository| {
            let prefix = &prefix;
            async move {
                let aborting = lanes::abort_uploads(repository.store(), prefix);
                match tokio::time::timeout(ABORT_TIME, aborting).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(repository = repository.name(), %error, "pending uploads stay for prune");
                    }
                    Err(_) => {
                        tracing::warn!(repository = repository.name(), "no time to abort pending uploads");
                    }
                }
            }
        });
        join_all(aborts).await;
    }

    /// Only objects that this writer stored may stand in its manifest.
    fn check_contents(&self, objects: &[ObjectEntry]) -> Result<(), Error> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in objects {
            if written.get(&entry.name) != Some(entry) {
                let what = format!("object {} was not written by this set", entry.name);
                return Err(Error::Internal { what });
            }
        }
        Ok(())
    }

    fn manifest(&self, contents: SetContents) -> Manifest {
        Manifest {
            format: FORMAT_MAJOR,
            kind: self.spec.kind.clone(),
            stanza: self.spec.stanza.clone(),
            set: self.id.clone(),
            tool: self.spec.tool.clone(),
            source: contents.source.unwrap_or_else(|| self.spec.source.clone()),
            started: self.started,
            finished: self.repositories.clock().now(),
            recovery_point: contents.recovery_point,
            parent: self.spec.parent.clone(),
            complete: contents.complete,
            objects: contents.objects,
            facts: contents.facts,
            annotations: self.spec.annotations.clone(),
            unknown: Map::new(),
        }
    }
}
