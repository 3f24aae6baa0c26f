//! What a restore will do: looks at everything, changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::replicas::Repositories;
use jiff::Timestamp;
use serde::Serialize;

use super::configuration::ServerConfiguration;
use super::ephemeral::{ServerProgram, ServerVersion};
use super::error::RestoreError;
use super::node;
use super::place::{Owner, Place, Shape};
use super::resolve::{Missing, Past, Point};
use super::search::FoundCommand;
use super::snapshots::{StoredSnapshot, snapshots, streams};
use super::target::RestoreTarget;
use super::ttl::TtlPolicy;
use crate::archive::{Position, StreamArchive, StreamId, StreamPath, StreamSurvey};

/// Room that is left free beside the restored data, in bytes.
const SPARE: u64 = 8 << 20;

/// What is asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreRequest {
    /// To which moment.
    pub target: RestoreTarget,
    /// The snapshot to begin with; the newest before the target when there is none.
    pub set: Option<SetId>,
    /// Which server, where a stanza has several.
    pub stream: StreamId,
}

impl RestoreRequest {
    /// A restore to a moment.
    #[must_use]
    pub fn new(target: RestoreTarget) -> Self {
        Self { target, set: None, stream: StreamId::default() }
    }

    /// Sets the snapshot to begin with.
    #[must_use]
    pub fn set(mut self, set: Option<SetId>) -> Self {
        self.set = set;
        self
    }

    /// Sets which server.
    #[must_use]
    pub fn stream(mut self, stream: StreamId) -> Self {
        self.stream = stream;
        self
    }
}

/// Where to, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// The data directory.
    pub directory: PathBuf,
    /// What the server reads at its start.
    pub configuration: ServerConfiguration,
    /// The server program of this machine, if there is one.
    pub program: Option<ServerProgram>,
    /// What becomes of expiry times.
    pub ttl: TtlPolicy,
    /// Who owns a directory that does not exist yet.
    pub owner: Option<Owner>,
    /// Loads everything in a throwaway server before the old data is touched. Takes as long as the load itself.
    pub rehearse: bool,
}

impl RestoreOptions {
    /// Into a directory of a server that is configured so.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, configuration: ServerConfiguration) -> Self {
        Self {
            directory: directory.into(),
            configuration,
            program: None,
            ttl: TtlPolicy::Keep,
            owner: None,
            rehearse: false,
        }
    }

    /// Sets the server program.
    #[must_use]
    pub fn program(mut self, program: Option<ServerProgram>) -> Self {
        self.program = program;
        self
    }

    /// Sets what becomes of expiry times.
    #[must_use]
    pub fn ttl(mut self, ttl: TtlPolicy) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets who owns a directory that does not exist yet.
    #[must_use]
    pub fn owner(mut self, owner: Option<Owner>) -> Self {
        self.owner = owner;
        self
    }

    /// Sets whether everything is loaded in a throwaway server first.
    #[must_use]
    pub fn rehearse(mut self, rehearse: bool) -> Self {
        self.rehearse = rehearse;
        self
    }
}

/// What a restore will do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RestorePlan {
    /// The stanza.
    pub stanza: Stanza,
    /// Which server.
    pub stream: StreamId,
    /// What was asked for.
    pub target: RestoreTarget,
    /// The snapshot that it begins with.
    pub set: SetId,
    /// When that was taken.
    pub taken: Timestamp,
    /// Where it was taken.
    pub from: Position,
    /// The exact end: behind a whole command, outside a transaction.
    pub end: Position,
    /// The moment whose state that is.
    pub time: Timestamp,
    /// The command that it ends before.
    pub found: Option<FoundCommand>,
    /// Bytes of the snapshot.
    pub snapshot_bytes: u64,
    /// Bytes of the stream behind it.
    pub stream_bytes: u64,
    /// Segments that they lie in.
    pub segments: usize,
    /// What is archived behind the end, and will not be there.
    pub missing: Missing,
    /// What becomes of expiry times.
    pub ttl: TtlPolicy,
    /// What the server will load.
    pub shape: Shape,
    /// Whether a throwaway server replays the stream, because the configuration asks for a snapshot.
    pub replays: bool,
    /// Whether a throwaway server loads everything first.
    pub rehearse: bool,
    /// Version of the server, and where that is known from.
    pub server: String,
    /// Its configuration.
    pub configuration: ServerConfiguration,
    /// The data directory as it is now.
    pub place: Place,
    /// Bytes that it needs there while it works.
    pub needed_bytes: u64,
    /// What is good to know.
    pub notes: Vec<String>,
    #[serde(skip)]
    pub(super) prepared: Prepared,
}

/// What a plan needs to be applied.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) archive: StreamArchive,
    pub(super) survey: Arc<StreamSurvey>,
    pub(super) snapshot: StoredSnapshot,
    pub(super) path: Option<StreamPath>,
    pub(super) program: Option<ServerProgram>,
}

/// Plans a restore. Reads only.
///
/// # Errors
/// [`RestoreError::Unreachable`] for a target that is in no window, with the nearest points; [`RestoreError::Unsuitable`] for a
/// server that cannot load the data; anything that hinders looking.
///
/// # Cancel safety
/// A dropped call leaves nothing.
pub async fn plan_restore(
    repositories: &Repositories,
    catalog: &Catalog,
    identities: &Identities,
    request: &RestoreRequest,
    options: &RestoreOptions,
) -> Result<RestorePlan, RestoreError> {
    let all = snapshots(catalog, &request.stream);
    let others = streams(catalog);
    if all.is_empty() && !others.is_empty() {
        return Err(which_server(catalog, &request.stream, &others));
    }
    let stanza = catalog.stanza.clone();
    let archive = StreamArchive::new(repositories.clone(), stanza, request.stream.clone());
    let survey = archive.survey().await?;
    let bases = all.iter().map(|snapshot| snapshot.base.clone()).collect();
    let past = Past::new(&archive, survey, bases, identities);
    let mut point = past.resolve(&request.target, request.set.as_ref()).await?;
    point.notes.extend(problems(&past.survey));
    let snapshot = all.into_iter().find(|it| it.base == point.base).expect("a point begins with one of them");
    let survey = past.survey.clone();
    Plan { archive, survey, snapshot, point, options, request }.finish()
}

/// The stanza has snapshots, and none of the server that is meant.
fn which_server(catalog: &Catalog, wanted: &StreamId, others: &[String]) -> RestoreError {
    let problem = format!("stanza {} has no snapshot of {wanted}", catalog.stanza);
    let is_cluster = others.iter().any(|other| other.contains("(slots "));
    let remedy = if is_cluster {
        "a cluster is restored shard by shard, each into the data directory of the primary that serves its slots, with \
         --stream and the same --set"
    } else {
        "name one of its servers with --stream"
    };
    RestoreError::usage(problem, &format!("{remedy}: {}", others.join(", ")))
}

/// What hindered a complete look.
fn problems(survey: &StreamSurvey) -> Vec<String> {
    let stores = survey.repositories.iter().filter_map(|it| {
        Some(format!("repository {} could not be listed: {}", it.repository, it.problem.as_ref()?))
    });
    let histories = survey.histories.iter();
    let records = histories.filter_map(|(id, it)| Some(format!("history {id}: {}", it.problem.as_ref()?)));
    stores.chain(records).collect()
}

struct Plan<'a> {
    archive: StreamArchive,
    survey: Arc<StreamSurvey>,
    snapshot: StoredSnapshot,
    point: Point,
    options: &'a RestoreOptions,
    request: &'a RestoreRequest,
}

impl Plan<'_> {
    fn finish(self) -> Result<RestorePlan, RestoreError> {
        let (version, server) = self.version();
        self.snapshot.refuse_old_server(&version)?;
        let configuration = &self.options.configuration;
        let shape = Shape::of(configuration, version.major);
        refuse_names(shape, configuration)?;
        let place = Place::examine(&self.options.directory, shape, configuration, self.options.owner)?;
        let slots = &self.snapshot.slots;
        let of_node = node::check(&place.directory, configuration, &self.request.stream, slots)?;
        let replays = shape == Shape::Snapshot && self.point.path.is_some();
        let program = self.options.program.clone();
        if (replays || self.options.rehearse) && program.is_none() {
            return Err(no_program(replays));
        }
        let stream_bytes = self.point.path.as_ref().map_or(0, |path| path.span.len());
        let snapshot_bytes = self.snapshot.entry.plain;
        // A snapshot that is made of both may be as long as both.
        let factor = if replays { 2 } else { 1 };
        let needed_bytes = factor * (snapshot_bytes + stream_bytes) + SPARE;
        let mut notes = self.notes(shape, &place);
        notes.extend(of_node);
        let Self { archive, survey, snapshot, point, options, request } = self;
        Ok(RestorePlan {
            stanza: archive.stanza().clone(),
            stream: request.stream.clone(),
            target: request.target.clone(),
            set: point.base.set.clone(),
            taken: point.base.taken,
            from: point.base.position,
            end: point.end,
            time: point.time,
            found: point.found,
            snapshot_bytes,
            stream_bytes,
            segments: point.path.as_ref().map_or(0, |path| path.pieces.len()),
            missing: point.missing,
            ttl: options.ttl,
            shape,
            replays,
            rehearse: options.rehearse,
            server,
            configuration: configuration.clone(),
            place,
            needed_bytes,
            notes,
            prepared: Prepared { archive, survey, snapshot, path: point.path, program },
        })
    }

    /// The version that will load the data.
    fn version(&self) -> (ServerVersion, String) {
        if let Some(program) = &self.options.program {
            let text = format!("{}, from {}", program.version, program.path.display());
            return (program.version.clone(), text);
        }
        let source = self.snapshot.source_version();
        let text = format!("{source}, taken to be that of the source");
        (source, text)
    }

    fn notes(&self, shape: Shape, place: &Place) -> Vec<String> {
        let mut notes = self.point.notes.clone();
        let configuration = &self.options.configuration;
        let origin = &configuration.origin;
        if let Some(user) = place.user() {
            notes.push(format!("{user} works in the data directory, and must be stopped first"));
        }
        match shape {
            Shape::Snapshot if !configuration.save_points => notes.push(format!(
                "neither appendonly nor save is set ({origin}): the server will lose everything at its next stop"
            )),
            Shape::Snapshot => {}
            _ => notes.push(format!(
                "the server must start with appendonly yes, as it is configured ({origin}); otherwise it starts empty"
            )),
        }
        if let Some(directory) = configuration.directory.as_ref().filter(|it| **it != place.directory) {
            notes.push(format!(
                "{origin} says dir {}, and this restores into {}",
                directory.display(),
                place.directory.display()
            ));
        }
        if self.options.ttl == TtlPolicy::Keep && self.snapshot.facts.expires() > 0 {
            let count = self.snapshot.facts.expires();
            notes.push(format!(
                "{count} keys of the snapshot expire; what expired since {} is gone; --ttl shift brings it back",
                self.point.time
            ));
        }
        if self.snapshot.facts.module_keys > 0 {
            notes.push(format!("{} keys need the modules of the source", self.snapshot.facts.module_keys));
        }
        notes
    }
}

fn no_program(replays: bool) -> RestoreError {
    let problem = if replays {
        "the server is configured without appendonly, so a throwaway server must replay the stream, and this machine has none"
    } else {
        "a rehearsal takes a server program, and this machine has none"
    };
    RestoreError::usage(problem, "install redis-server, or name the program with --server-program")
}

/// Servers write such names in quotes into the manifest; nobody has them.
fn refuse_names(shape: Shape, configuration: &ServerConfiguration) -> Result<(), RestoreError> {
    let name = &configuration.append_file;
    let is_plain = name.chars().all(|letter| letter.is_ascii_graphic() && !"\"'\\".contains(letter));
    if shape != Shape::MultiPart || is_plain {
        return Ok(());
    }
    let problem = format!("appendfilename {name:?} has characters that cannot be used here");
    Err(RestoreError::usage(problem, "choose a name of letters, digits, dots and hyphens"))
}
