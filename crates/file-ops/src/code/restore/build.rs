//! Makes a repository out of a chain of sets, and compares it with what was backed up.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::{Manifest, ObjectEntry};
use backstay_backup_core::object_reader::{ObjectReader, into_error};
use backstay_backup_core::replicas::Repositories;
use bytes::Bytes;
use futures::{Stream, stream};
use tokio::sync::mpsc;

use super::super::error::CodeError;
use super::super::git::Git;
use super::super::objects::{BUNDLE, LFS};
use super::super::shadow::{init, list_refs, write_refs};
use super::super::state::{Name, Oid, State};
use super::super::{bundle, lfs};
use super::Job;
use super::place::{MADE, Place};
use crate::unpack::{UnpackOptions, unpack};

/// Most bytes of `state.json`.
const STATE_LIMIT: u64 = 256 << 20;
/// Bytes that go from an object to git at a time, and how many of them wait.
const CHUNK: usize = 256 << 10;
const QUEUE: usize = 2;
/// What `git fsck` ends with when the form of an object is odd, and nothing else: git itself once wrote such objects.
const ODD_FORM: i32 = 1;

/// A repository in the making.
#[derive(Debug)]
pub(super) struct Build<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) git: &'a Git,
    pub(super) place: &'a Place,
    /// The repository's own folder.
    pub(super) repository: PathBuf,
}

/// The object of that name, whatever was done to it.
pub(super) fn object<'a>(manifest: &'a Manifest, base: &str) -> Option<&'a ObjectEntry> {
    manifest.objects.iter().find(|entry| {
        entry.name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Reads an object into memory.
pub(super) async fn read_small(
    repositories: &Repositories,
    manifest: &Manifest,
    entry: &ObjectEntry,
    identities: &Identities,
) -> Result<Vec<u8>, CodeError> {
    let reader = repositories.open_object(manifest, entry, identities)?;
    let name = entry.name.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut content = Vec::new();
        let read = reader.take(STATE_LIMIT).read_to_end(&mut content);
        read.map(|_| content).map_err(|error| source(error, &name))
    });
    reading.await.map_err(CodeError::internal)?
}

/// What reading an object failed of.
pub(super) fn source(error: io::Error, name: &str) -> CodeError {
    match into_error(error) {
        Ok(error) => error.into(),
        Err(error) => CodeError::io("read", Path::new(name), error),
    }
}

/// The content of an object, a piece at a time, read by a thread that ends with the stream.
fn chunks(mut reader: ObjectReader) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = match reader.read(&mut chunk) {
                Ok(0) => return,
                Ok(read) => Ok(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let ended = read.is_err();
            let chunk = read.map(|read| {
                chunk.truncate(read);
                Bytes::from(chunk)
            });
            if sender.blocking_send(chunk).is_err() || ended {
                return;
            }
        }
    });
    stream::unfold(receiver, async |mut receiver: mpsc::Receiver<io::Result<Bytes>>| {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    })
}

impl<'a> Build<'a> {
    /// Makes it: objects, refs, HEAD, LFS objects.
    pub(super) async fn make(
        job: &'a Job<'a>,
        git: &'a Git,
        place: &'a Place,
        bare: bool,
    ) -> Result<Self, CodeError> {
        let build = Self::objects(job, git, place, bare).await?;
        build.lfs().await?;
        Ok(build)
    }

    /// Makes it without LFS objects.
    pub(super) async fn objects(
        job: &'a Job<'a>,
        git: &'a Git,
        place: &'a Place,
        bare: bool,
    ) -> Result<Self, CodeError> {
        let made = place.path(MADE);
        init(git, &made, &job.state.object_format, bare).await?;
        let repository = if bare { made } else { made.join(".git") };
        let build = Self { job, git, place, repository };
        job.stored.progress.begin("unbundling");
        for manifest in &job.chain {
            build.unbundle(manifest).await?;
        }
        write_refs(&build.repository, &job.state)?;
        for reference in &job.state.refs {
            if let Some(target) = &reference.target {
                build.symbolic(&reference.name, target).await?;
            }
        }
        // Git's own form of the list of refs, with what tags stand for.
        build.git.tell(git.command(&build.repository, ["pack-refs", "--all"]), &[]).await?;
        Ok(build)
    }

    async fn unbundle(&self, manifest: &Manifest) -> Result<(), CodeError> {
        let Some(entry) = object(manifest, BUNDLE) else { return Ok(()) };
        let reader = self.job.open(manifest, entry)?;
        match bundle::unbundle(self.git, &self.repository, chunks(reader)).await {
            Ok(_) => Ok(()),
            Err(error) => match CodeError::of_pack(&self.repository, error) {
                CodeError::Damaged { problem, .. } => {
                    Err(CodeError::Differs { set: manifest.set.to_string(), problem })
                }
                // A full disk is no fault of the set.
                error => Err(error),
            },
        }
    }

    async fn symbolic(&self, name: &Name, target: &Name) -> Result<(), CodeError> {
        use std::os::unix::ffi::OsStringExt as _;
        let os = |name: &Name| std::ffi::OsString::from_vec(name.0.clone());
        let command = self.git.command(&self.repository, ["symbolic-ref"]).arg(os(name)).arg(os(target));
        self.git.tell(command, &[]).await?;
        Ok(())
    }

    /// Places the LFS objects that the state names; whatever else is in the archives stays outside.
    pub(super) async fn lfs(&self) -> Result<(), CodeError> {
        let folder = self.place.path("lfs-in");
        fs::create_dir(&folder).map_err(|error| CodeError::io("create", &folder, error))?;
        for manifest in &self.job.chain {
            let Some(entry) = object(manifest, LFS) else { continue };
            self.unpack(manifest, entry, &folder).await?;
        }
        for lfs in &self.job.state.lfs {
            let path = lfs::path_of(&lfs.id);
            let (from, to) = (folder.join(&path), self.repository.join(&path));
            let parent = to.parent().unwrap_or(&self.repository);
            let moved = fs::create_dir_all(parent).and_then(|()| fs::rename(&from, &to));
            match moved {
                Ok(()) => {}
                // Told by the comparison.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(CodeError::io("place", &to, error)),
            }
        }
        Ok(())
    }

    /// Unpacks an archive below a folder.
    pub(super) async fn unpack(
        &self,
        manifest: &Manifest,
        entry: &ObjectEntry,
        folder: &Path,
    ) -> Result<crate::unpack::Unpacked, CodeError> {
        let reader = self.job.open(manifest, entry)?;
        // A set of this kind has no holes: files are never larger than their archive.
        let mut options =
            UnpackOptions { max_bytes: entry.plain, keep_owners: false, ..UnpackOptions::default() };
        options.allow_case_collisions = true;
        let (folder, cancel) = (folder.to_owned(), self.job.stored.cancel.clone());
        let unpacking = tokio::task::spawn_blocking(move || unpack(reader, &folder, &options, &cancel));
        Ok(unpacking.await.map_err(CodeError::internal)??)
    }

    /// Compares refs, HEAD and LFS objects with the state, and lets git look at every object: how much was compared.
    pub(super) async fn check(&self) -> Result<u64, CodeError> {
        let state = &self.job.state;
        self.job.stored.progress.begin("checking");
        let found = list_refs(self.git, &self.repository, &self.repository).await;
        let found = found.map_err(|error| self.job.differs(error.to_string()))?;
        if found != state.refs {
            let one = |from: &[super::super::state::Ref], other: &[super::super::state::Ref]| {
                from.iter()
                    .find(|reference| !other.contains(reference))
                    .map(|reference| reference.name.to_string())
            };
            let which = one(&state.refs, &found).or_else(|| one(&found, &state.refs)).unwrap_or_default();
            return Err(self.job.differs(format!("ref {which} is not what it was")));
        }
        self.check_head().await?;
        self.fsck().await?;
        let (folder, objects, cancel) =
            (self.repository.clone(), state.lfs.clone(), self.job.stored.cancel.clone());
        let comparing = tokio::task::spawn_blocking(move || lfs::check(&folder, &objects, &cancel));
        let differences = comparing.await.map_err(CodeError::internal)??;
        if !differences.is_empty() {
            return Err(self.job.differs(differences.join("; ")));
        }
        Ok(state.refs.len() as u64 + 1 + state.lfs.len() as u64)
    }

    async fn check_head(&self) -> Result<(), CodeError> {
        let head = &self.job.state.head;
        let said = self.git.say(self.git.command(&self.repository, ["symbolic-ref", "-q", "HEAD"])).await?;
        let branch = (said.code == 0).then(|| Name(said.stdout.trim_ascii_end().to_vec()));
        let said =
            self.git.say(self.git.command(&self.repository, ["rev-parse", "-q", "--verify", "HEAD"])).await?;
        let commit = (said.code == 0).then(|| Oid::parse(&said.text()).ok()).flatten();
        if (&branch, &commit) != (&head.branch, &head.commit) && head.branch.is_some() | head.commit.is_some()
        {
            return Err(self.job.differs("HEAD is not what it was"));
        }
        Ok(())
    }

    async fn fsck(&self) -> Result<(), CodeError> {
        let args = ["fsck", "--full", "--no-dangling", "--no-progress"];
        let said = self.git.say_long(self.git.command(&self.repository, args), &[]).await?;
        match said.code {
            0 => Ok(()),
            ODD_FORM => {
                tracing::warn!(
                    words = said.words,
                    "git fsck finds the form of some objects odd, as it was in the source"
                );
                Ok(())
            }
            _ => {
                let words = format!("{}\n{}", said.text(), said.words);
                Err(self.job.differs(format!("git fsck: {}", words.trim())))
            }
        }
    }

    /// What is worth knowing of what was restored.
    pub(super) fn notes(&self) -> Vec<String> {
        let (job, state) = (self.job, &self.job.state);
        let mut notes = Vec::new();
        if !state.submodules.is_empty() {
            notes.push(format!(
                "{} submodules are at their recorded commits; their repositories come from elsewhere: git submodule update --init",
                state.submodules.len()
            ));
        }
        if !state.lfs.is_empty() {
            notes.push(
                "LFS objects are in place; the working tree has pointers to them: git lfs checkout"
                    .to_owned(),
            );
        }
        if !job.target().complete {
            notes.push("the set is an incomplete one: problems.jsonl says what is missing".to_owned());
        }
        notes
    }
}

/// Names of refs get into files of git, and on command lines.
pub(super) fn check_names(state: &State) -> Result<(), String> {
    let refs =
        state.refs.iter().flat_map(|reference| Some(&reference.name).into_iter().chain(&reference.target));
    for name in refs.chain(&state.head.branch) {
        if !is_ref_name(&name.0) {
            return Err(format!("{name} is no name of a ref"));
        }
    }
    if !state.refs.is_sorted_by(|one, other| one.name < other.name) {
        return Err("its refs are in no order, or one is there twice".to_owned());
    }
    if !["sha1", "sha256"].contains(&state.object_format.as_str()) {
        return Err(format!("object format {:?} is unknown", state.object_format));
    }
    Ok(())
}

/// As `git check-ref-format` has it, below `refs/`.
fn is_ref_name(name: &[u8]) -> bool {
    let part = |part: &[u8]| !part.is_empty() && !part.starts_with(b".") && !part.ends_with(b".lock");
    let forbidden = |byte: &u8| *byte <= b' ' || *byte == 0x7f || b"~^:?*[\\".contains(byte);
    name.starts_with(b"refs/")
        && !name.iter().any(forbidden)
        && !name.windows(2).any(|two| two == b".." || two == b"@{")
        && !name.ends_with(b".")
        && name.split(|byte| *byte == b'/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_refs_cannot_be_anything_else() {
        for name in ["refs/heads/main", "refs/tags/v1.0-x", "refs/a/ä/@", "refs/stash"] {
            assert!(is_ref_name(name.as_bytes()), "{name}");
        }
        let wrong = [
            "main",
            "HEAD",
            "refs/",
            "refs/heads/",
            "refs//a",
            "refs/../../config",
            "refs/a\nb",
            "refs/a b",
            "refs/a.lock",
            "refs/.a",
            "refs/a..b",
            "refs/a@{b",
            "refs/a^",
            "refs/a:b",
            "refs/a\\b",
            "refs/a.",
            "--help",
            "refs/a\0b",
        ];
        for name in wrong {
            assert!(!is_ref_name(name.as_bytes()), "{name:?}");
        }
    }
}
