//! Stores the objects of a set, and proves the bundle.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use backstay_backup_core::id::SetId;
use backstay_backup_core::manifest::{Codec, ObjectEntry};
use backstay_backup_core::pipeline::read_frames;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::set_writer::{SetContents, SetWriter};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::chain::Previous;
use super::error::CodeError;
use super::facts::{CodeFacts, LfsFacts, UncommittedFacts};
use super::git::ended;
use super::objects::{BUNDLE, LFS, PROBLEMS, STAGED, STATE, UNSTAGED, UNTRACKED};
use super::options::CodeOptions;
use super::source::Source;
use super::state::{LfsObject, Oid};
use super::uncommitted::{Patch, Uncommitted};
use super::{bundle, lfs, pointers, shadow};
use crate::capture::{Captured, Stopped, capture};
use crate::config_set::ProblemCounts;
use crate::frames::{self, FrameSink};
use crate::scan::Scanner;
use crate::walk::Problem;

/// Chunks of the bundle between what is stored and what is proven.
const QUEUE: usize = 2;

/// What a set builds on.
#[derive(Debug, Default)]
pub(super) struct Base {
    pub(super) set: Option<SetId>,
    tips: Vec<Oid>,
    lfs: BTreeSet<String>,
    length: u64,
}

impl Base {
    pub(super) fn none() -> Self {
        Self::default()
    }

    pub(super) fn of(previous: &Previous) -> Self {
        let set = Some(previous.manifest.set.clone());
        let (tips, lfs, length) = (previous.tips.clone(), previous.lfs.clone(), previous.length);
        Self { set, tips, lfs, length }
    }
}

/// One set to be.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) options: &'a CodeOptions,
    pub(super) source: &'a Source,
    pub(super) base: Base,
    pub(super) fingerprint: Option<String>,
    pub(super) now: Timestamp,
}

/// What was stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) contents: SetContents,
    pub(super) facts: CodeFacts,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<String>,
}

impl Job<'_> {
    pub(super) async fn store(
        self,
        writer: &SetWriter,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Stored, CodeError> {
        progress.begin("storing");
        let source = self.source;
        let (mut problems, mut objects) = (source.problems.clone(), Vec::new());
        let bundle = Box::pin(self.bundle(writer, progress)).await?;
        let has_bundle = bundle.is_some();
        objects.extend(bundle);
        let new = lfs::without(&source.state.lfs, &self.base.lfs);
        if !new.is_empty() {
            let (entry, found) = Box::pin(self.lfs(writer, &new, progress, cancel)).await?;
            objects.push(entry);
            problems.extend(found);
        }
        let mut facts = self.facts(has_bundle, &new);
        if let Some(uncommitted) = &source.uncommitted {
            let (entries, captured) =
                Box::pin(self.uncommitted(writer, uncommitted, progress, cancel)).await?;
            objects.extend(entries);
            facts.uncommitted = Some(UncommittedFacts {
                staged_bytes: uncommitted.staged.bytes,
                unstaged_bytes: uncommitted.unstaged.bytes,
                files: captured.files + captured.links,
                bytes: captured.bytes,
            });
            problems.extend(captured.problems);
            if captured.moved_on {
                facts.fingerprint = None;
            }
        }
        if !problems.is_empty() {
            let lines = crate::config_set::problem_lines(&problems);
            objects.push(self.bytes(writer, PROBLEMS, lines).await?);
        }
        let state = serde_json::to_vec(&source.state).map_err(CodeError::internal)?;
        objects.push(self.bytes(writer, STATE, state).await?);
        let complete = !problems.iter().any(|problem| problem.kind.is_grave());
        facts.problems = ProblemCounts::of(&problems);
        if !complete {
            facts.fingerprint = None;
        }
        let described = serde_json::to_value(&facts).map_err(CodeError::internal)?;
        let contents = SetContents::new(self.now, objects).complete(complete).facts(described);
        let missing = pointers::missing(&source.git, &source.shadow, &source.state).await?;
        let note = (missing > 0).then(|| {
            format!("{missing} LFS objects of the commit are not here, and not in the set: git lfs fetch")
        });
        Ok(Stored { contents, facts, problems, notes: note.into_iter().collect() })
    }

    fn facts(&self, bundle: bool, new: &[LfsObject]) -> CodeFacts {
        let state = &self.source.state;
        CodeFacts {
            object_format: state.object_format.clone(),
            bare: state.bare,
            builds_on: self.base.length,
            refs: state.refs.len() as u64,
            tips: state.tips(),
            bundle,
            fingerprint: self.fingerprint.clone(),
            dirty: self.source.dirty(),
            submodules: state.submodules.len() as u64,
            lfs: LfsFacts {
                objects: state.lfs.len() as u64,
                bytes: state.lfs.iter().map(|object| object.size).sum(),
                stored: new.iter().map(|object| object.id.clone()).collect(),
            },
            ..CodeFacts::default()
        }
    }

    fn object_name(&self, base: &str, codec: Codec) -> String {
        let age = if self.options.recipients.is_empty() { "" } else { ".age" };
        format!("{base}{}{age}", codec.suffix())
    }

    /// Stores the bundle while it is proven; `None` if no object is needed that the base does not have.
    async fn bundle(
        &self,
        writer: &SetWriter,
        progress: &Progress,
    ) -> Result<Option<ObjectEntry>, CodeError> {
        let source = self.source;
        let (git, named) = (&source.git, &source.layout.folder);
        let excluded = match self.base.tips.is_empty() {
            true => Vec::new(),
            false => bundle::present(git, &source.shadow, &self.base.tips).await?,
        };
        let proof = source.proof();
        shadow::init(git, &proof, &source.state.object_format, true).await?;
        shadow::write_refs(&proof, &source.state)?;
        if !bundle::is_needed(git, &source.shadow, &excluded)
            .await
            .map_err(|error| CodeError::of_pack(named, error))?
        {
            return Ok(None);
        }
        if !excluded.is_empty() {
            // What the increment builds on is in the sets before it, and here for as long as it is proven.
            shadow::borrow(&proof, &source.layout.objects())?;
        }
        let entry = git.bounded("bundle", self.stream(writer, &proof, &excluded, progress)).await?;
        progress.begin("proving");
        let proven = bundle::check_connected(git, &proof, &source.state.tips(), &excluded).await;
        proven.map_err(|error| CodeError::of_pack(named, error))?;
        Ok(Some(entry))
    }

    /// One pass: from git into the set and into the proof.
    async fn stream(
        &self,
        writer: &SetWriter,
        proof: &Path,
        excluded: &[Oid],
        progress: &Progress,
    ) -> Result<ObjectEntry, CodeError> {
        let (git, named) = (&self.source.git, &self.source.layout.folder);
        let talk = |error| CodeError::io("talk to", Path::new("git"), error);
        let (command, input) = bundle::create(git, &self.source.shadow, excluded);
        let mut child = git.spawn(command).await?;
        let (stdin, stdout) =
            (child.take_async_stdin().map_err(talk)?, child.take_async_stdout().map_err(talk)?);
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(CodeError::internal("git has no pipes"));
        };
        let asking = async move {
            // One that does not read on says why in the end.
            let _ = stdin.write_all(input.as_bytes()).await;
        };
        let (tap, taps) = mpsc::channel::<Bytes>(QUEUE);
        let chunks = read_frames(stdout, writer.frame_buffers()).then(move |chunk| {
            let (tap, progress) = (tap.clone(), progress.clone());
            async move {
                let chunk = chunk?;
                progress.add_bytes(chunk.len() as u64);
                match tap.send(chunk.clone()).await {
                    Ok(()) => Ok(chunk),
                    Err(_) => Err(io::Error::other("the bundle is not what git can read")),
                }
            }
        });
        let proving = bundle::unbundle(git, proof, received(taps));
        let name = self.object_name(BUNDLE, Codec::None);
        let storing = Box::pin(writer.object(&name, Codec::None, chunks));
        let ((), stored, proven) = tokio::join!(asking, storing, proving);
        // A store that failed ends the bundle and the proof; a bundle that broke off fails the proof; and whoever fails the
        // proof fails the storing.
        if let Err(error) = stored {
            if !matches!(error, backstay_backup_core::Error::Source { .. }) {
                return Err(error.into());
            }
            proven.map_err(|error| CodeError::of_pack(named, error))?;
            return Err(error.into());
        }
        let (code, words) = ended(&mut child).await?;
        if code != 0 {
            return Err(CodeError::of_repository(named, "bundle create", &words));
        }
        proven.map_err(|error| CodeError::of_pack(named, error))?;
        Ok(stored?)
    }

    async fn lfs(
        &self,
        writer: &SetWriter,
        objects: &[LfsObject],
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(ObjectEntry, Vec<Problem>), CodeError> {
        let (layout, objects) = (self.source.layout.clone(), objects.to_vec());
        let (progress, cancel) = (progress.clone(), cancel.clone());
        let work = move |sink: &mut FrameSink| lfs::write(&layout, &objects, sink, &progress, &cancel);
        self.archive(writer, LFS, work).await
    }

    /// Stores what a thread writes.
    async fn archive<T: Send + 'static>(
        &self,
        writer: &SetWriter,
        base: &str,
        work: impl FnOnce(&mut FrameSink) -> Result<T, CodeError> + Send + 'static,
    ) -> Result<(ObjectEntry, T), CodeError> {
        let (mut sink, stream) = frames::channel(writer.frame_buffers());
        // The thread ends soon after the stream is dropped: its next frame finds nobody who takes it.
        let writing = tokio::task::spawn_blocking(move || match work(&mut sink) {
            Ok(done) => {
                let finished = sink.finish();
                finished
                    .map(|()| done)
                    .map_err(|error| CodeError::io("store", Path::new("an archive"), error))
            }
            Err(error) => {
                sink.fail(io::Error::other("it broke off"));
                Err(error)
            }
        });
        let name = self.object_name(base, self.options.codec);
        let stored = Box::pin(writer.object(&name, self.options.codec, stream)).await;
        let written = writing.await.map_err(CodeError::internal)?;
        match (stored, written) {
            (Err(error), _) if !matches!(error, backstay_backup_core::Error::Source { .. }) => {
                Err(error.into())
            }
            (_, Err(error)) => Err(error),
            (Err(error), Ok(_)) => Err(error.into()),
            (Ok(entry), Ok(done)) => Ok((entry, done)),
        }
    }

    async fn uncommitted(
        &self,
        writer: &SetWriter,
        uncommitted: &Uncommitted,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(Vec<ObjectEntry>, Captured), CodeError> {
        let mut entries = Vec::new();
        for (base, patch) in [(STAGED, &uncommitted.staged), (UNSTAGED, &uncommitted.unstaged)] {
            if patch.bytes > 0 {
                entries.push(self.patch(writer, base, patch).await?);
            }
        }
        let Some(tree) = self.source.layout.work_tree.clone().filter(|_| !uncommitted.untracked.is_empty())
        else {
            return Ok((entries, Captured::default()));
        };
        let scanner = match self.options.recipients.is_empty() {
            true => Some(Scanner::new(&self.options.allow)?),
            false => None,
        };
        let (found, progress, cancel) = (uncommitted.untracked.clone(), progress.clone(), cancel.clone());
        let work = move |sink: &mut FrameSink| {
            capture(&tree, &found, scanner.as_ref(), sink, &progress, &cancel).map_err(
                |stopped| match stopped {
                    Stopped::Cancelled => CodeError::cancelled(),
                    Stopped::Io(error) => CodeError::io("read", &tree, error),
                },
            )
        };
        let (entry, captured) = self.archive(writer, UNTRACKED, work).await?;
        entries.push(entry);
        Ok((entries, captured))
    }

    async fn patch(&self, writer: &SetWriter, base: &str, patch: &Patch) -> Result<ObjectEntry, CodeError> {
        let file = tokio::fs::File::open(&patch.path).await;
        let file = file.map_err(|error| CodeError::io("read", &patch.path, error))?;
        let chunks = read_frames(file, writer.frame_buffers());
        let name = self.object_name(base, self.options.codec);
        Ok(Box::pin(writer.object(&name, self.options.codec, chunks)).await?)
    }

    async fn bytes(
        &self,
        writer: &SetWriter,
        base: &str,
        content: Vec<u8>,
    ) -> Result<ObjectEntry, CodeError> {
        let input = stream::iter([Ok(Bytes::from(content))]);
        let name = self.object_name(base, self.options.codec);
        Ok(Box::pin(writer.object(&name, self.options.codec, input)).await?)
    }
}

fn received(taps: mpsc::Receiver<Bytes>) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(taps, async |mut taps| {
        let chunk = taps.recv().await?;
        Some((Ok(chunk), taps))
    })
}
