//! A repository that was looked at, with everything that a backup of it needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::process::CommandRunner;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::error::CodeError;
use super::git::Git;
use super::layout::Layout;
use super::lfs;
use super::options::CodeOptions;
use super::scratch::Scratch;
use super::secrets;
use super::shadow::{Shadow, read_refs};
use super::state::{Dirty, State};
use super::uncommitted::{self, Look, Uncommitted};
use crate::error::Finding;
use crate::walk::{Problem, Tree};

/// Time to look at one folder.
const LOOK: Duration = Duration::from_secs(600);

/// What a backup would do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct CodePlan {
    /// What its sets are called.
    pub name: String,
    /// The folder.
    pub folder: String,
    /// HEAD, refs, submodules, LFS objects and what is not committed.
    pub state: State,
    /// Whether what is not committed would be taken.
    pub uncommitted: bool,
    /// Whether it would be encrypted.
    pub encrypted: bool,
    /// Secrets that would stop it.
    pub findings: Vec<Finding>,
    /// What went otherwise than wanted.
    pub problems: Vec<Problem>,
}

/// The repository as it is now. While it lives, its temporary folder does.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) git: Git,
    pub(super) layout: Layout,
    pub(super) state: State,
    pub(super) shadow: Shadow,
    pub(super) look: Option<Look>,
    pub(super) uncommitted: Option<Uncommitted>,
    pub(super) problems: Vec<Problem>,
    /// Last, so that it goes when nothing uses it any more.
    pub(super) scratch: Scratch,
}

/// Whether a folder is the top of a git repository of any form.
///
/// # Errors
/// It is not there, or cannot be read; the repository is of a form that is not taken.
pub async fn is_repository(
    folder: &Path,
    scratch: &Path,
    runner: &Arc<dyn CommandRunner>,
    cancel: &CancellationToken,
) -> Result<bool, CodeError> {
    let scratch = Scratch::create(scratch)?;
    let git = Git::new(runner.clone(), &scratch.path("home"), LOOK, cancel);
    Ok(Layout::find(&git, folder).await?.is_some())
}

/// Looks at a repository and says what a backup would do. Nothing is stored.
///
/// # Errors
/// It is none that can be taken, or is damaged.
pub async fn plan_code(
    options: &CodeOptions,
    runner: &Arc<dyn CommandRunner>,
    cancel: &CancellationToken,
) -> Result<CodePlan, CodeError> {
    let source = Box::pin(Source::open(options, runner, cancel)).await?;
    let findings = source.secrets(options, cancel).await?;
    Ok(CodePlan {
        name: options.name.clone(),
        folder: source.layout.folder.display().to_string(),
        uncommitted: options.uncommitted,
        encrypted: !options.recipients.is_empty(),
        findings,
        problems: source.problems.clone(),
        state: source.state.clone(),
    })
}

impl Source {
    /// Looks at it.
    pub(super) async fn open(
        options: &CodeOptions,
        runner: &Arc<dyn CommandRunner>,
        cancel: &CancellationToken,
    ) -> Result<Self, CodeError> {
        let scratch = Scratch::create(&options.scratch)?;
        let git = Git::new(runner.clone(), &scratch.path("home"), options.timeout, cancel);
        let layout = Layout::find(&git, &options.folder).await?.ok_or_else(|| none(&options.folder))?;
        let mut state = read_refs(&git, &layout).await?;
        let shadow = Shadow::create(&git, scratch.path("shadow"), &layout, &state).await?;
        state.submodules = shadow.submodules(&git, &state).await?;
        let from = layout.clone();
        let listing = tokio::task::spawn_blocking(move || lfs::list(&from));
        let (objects, problems) = listing.await.map_err(CodeError::internal)??;
        state.lfs = objects;
        let (look, uncommitted) = (None, None);
        let mut source = Self { git, layout, state, shadow, look, uncommitted, problems, scratch };
        if let Some(tree) = source.layout.work_tree.clone() {
            source.look_at(&tree, options.uncommitted).await?;
        }
        Ok(source)
    }

    async fn look_at(&mut self, tree: &Path, all: bool) -> Result<(), CodeError> {
        let look = uncommitted::look(&self.git, &self.scratch, &self.shadow, &self.layout, tree).await?;
        self.state.dirty = Some(look.dirty.clone());
        if all {
            let capturing =
                uncommitted::capture(&self.git, &self.scratch, &self.shadow, &self.layout, tree, &look);
            let captured = capturing.await?;
            self.problems.extend(captured.problems.iter().cloned());
            self.uncommitted = Some(captured);
        }
        self.look = Some(look);
        Ok(())
    }

    /// Looks for secrets in what would not be encrypted.
    pub(super) async fn secrets(
        &self,
        options: &CodeOptions,
        cancel: &CancellationToken,
    ) -> Result<Vec<Finding>, CodeError> {
        if !options.recipients.is_empty() {
            return Ok(Vec::new());
        }
        let (named, allow) = (&self.layout.folder, &options.allow);
        let mut findings =
            secrets::in_commit(&self.git, &self.shadow, &self.state, named, allow, cancel).await?;
        if let (Some(tree), Some(look), Some(uncommitted)) =
            (&self.layout.work_tree, &self.look, &self.uncommitted)
        {
            findings.extend(secrets::in_work_tree(tree, look, uncommitted, allow)?);
        }
        findings.sort();
        findings.dedup();
        Ok(findings)
    }

    /// Digest of everything that a set would hold. `None` if something could not be read, or was changed a moment ago.
    pub(super) fn fingerprint(&self, now: Timestamp) -> Option<String> {
        if self.problems.iter().any(|problem| problem.kind.is_grave()) {
            return None;
        }
        let settled = serde_json::to_vec(&self.state.settled()).ok()?;
        let Some(uncommitted) = &self.uncommitted else { return Some(hex::encode(Sha256::digest(&settled))) };
        let (staged, unstaged) = (&uncommitted.staged.digest, &uncommitted.unstaged.digest);
        // Times of folders change with files in them that are none of ours.
        let files = uncommitted.untracked.iter().filter(|found| !found.state.file_type().is_dir());
        let tree = Tree { found: files.cloned().collect(), ..Tree::default() };
        tree.fingerprint(now, &[&settled, staged.as_bytes(), unstaged.as_bytes()])
    }

    /// Where the proof is made.
    pub(super) fn proof(&self) -> PathBuf {
        self.scratch.path("proof")
    }

    /// Whether anything is not committed.
    pub(super) fn dirty(&self) -> Option<bool> {
        self.state.dirty.as_ref().map(Dirty::is_dirty)
    }
}

fn none(folder: &Path) -> CodeError {
    CodeError::NotTaken {
        path: folder.to_owned(),
        problem: "it is no git repository".to_owned(),
        remedy: "name the top of a working tree, or a bare repository; any folder is taken with --files, as a tar archive",
    }
}
