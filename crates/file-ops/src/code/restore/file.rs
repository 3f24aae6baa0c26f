//! One file of one commit.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::super::error::CodeError;
use super::super::git::{Git, ended};
use super::super::lfs;
use super::super::shadow::TreeFile;
use super::super::state::Name;
use super::build::Build;
use super::place::{MADE, Place};
use super::{Job, StoredSet, TIMEOUT};

/// Which file, of which commit, where to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FileOptions {
    /// A name that is not taken.
    pub to: PathBuf,
    /// The file, seen from the top of the repository.
    pub path: Name,
    /// A branch, tag or commit, as git understands it.
    pub revision: String,
}

impl FileOptions {
    /// A file of the commit that was checked out.
    #[must_use]
    pub fn new(to: PathBuf, path: Name) -> Self {
        Self { to, path, revision: "HEAD".to_owned() }
    }
}

/// Restores one file; returns the commit that it is of. A pointer to an LFS object becomes its content, where the set has it.
///
/// # Errors
/// There is no such commit or file; otherwise as [`super::restore`].
///
/// # Cancel safety
/// As [`super::restore`].
pub async fn restore_file(stored: &StoredSet<'_>, options: &FileOptions) -> Result<String, CodeError> {
    let job = Job::new(*stored).await?;
    let place = Place::begin(&options.to)?;
    if options.to.symlink_metadata().is_ok() {
        let problem = "there is a folder of that name".to_owned();
        return Err(crate::error::Error::Conflict { path: options.to.display().to_string(), problem }.into());
    }
    let git = Git::new(stored.runner.clone(), &place.path("home"), TIMEOUT, stored.cancel);
    let build = Box::pin(Build::objects(&job, &git, &place, true)).await?;
    let (commit, file) = find(&build, options).await?;
    let repository = place.path("repository.git");
    // What is renamed to its place is the file, not the repository that it comes from.
    fs::rename(place.path(MADE), &repository).map_err(|error| CodeError::io("rename", &repository, error))?;
    let build = Build { repository, ..build };
    write(&build, &file).await?;
    resolve_pointer(&build).await?;
    let made = place.path(MADE);
    let mode = if file.mode == "100755" { 0o755 } else { 0o644 };
    fs::set_permissions(&made, Permissions::from_mode(mode))
        .map_err(|error| CodeError::io("change", &made, error))?;
    place.finish()?;
    Ok(commit)
}

async fn find(build: &Build<'_>, options: &FileOptions) -> Result<(String, TreeFile), CodeError> {
    let git = build.git;
    let absent = |wanted: String| CodeError::Absent { set: build.job.target().set.to_string(), wanted };
    let revision = format!("{}^{{commit}}", options.revision);
    let args = ["rev-parse", "-q", "--verify", "--end-of-options", revision.as_str()];
    let said = git.say(git.command(&build.repository, args)).await?;
    if said.code != 0 {
        return Err(absent(format!("commit {}", options.revision)));
    }
    let commit = said.text();
    let command = git.command(&build.repository, ["ls-tree", "-z", "--full-tree", commit.as_str(), "--"]);
    let said = git.say(command.arg(OsString::from_vec(options.path.0.clone()))).await?;
    let entry = said.stdout.split(|byte| *byte == 0).find(|entry| !entry.is_empty());
    let file =
        entry.filter(|_| said.code == 0).and_then(TreeFile::parse).filter(|file| file.path == options.path.0);
    let Some(file) = file else {
        return Err(absent(format!("file {} in commit {commit}", options.path)));
    };
    match file.mode.as_str() {
        "100644" | "100755" | "100664" => Ok((commit, file)),
        _ => Err(absent(format!(
            "file {} in commit {commit}: there it is a folder, link or submodule",
            options.path
        ))),
    }
}

/// Writes the content of a file as the commit has it.
async fn write(build: &Build<'_>, file: &TreeFile) -> Result<(), CodeError> {
    let (git, made) = (build.git, build.place.path(MADE));
    let failed = |error| CodeError::io("write", &made, error);
    let command = git.command(&build.repository, ["cat-file", "blob", file.id.as_str()]).pipe_stdout();
    let writing = async {
        let mut child = git.spawn(command).await?;
        let mut to = tokio::fs::File::create(&made).await.map_err(failed)?;
        if let Some(mut stdout) = child.take_async_stdout().map_err(failed)? {
            tokio::io::copy(&mut stdout, &mut to).await.map_err(failed)?;
        }
        to.sync_all().await.map_err(failed)?;
        match ended(&mut child).await? {
            (0, _) => Ok(()),
            (_, words) => Err(build.job.differs(format!("git cat-file: {words}"))),
        }
    };
    git.bounded("cat-file", writing).await
}

/// Puts the content of an LFS object into the place of its pointer.
async fn resolve_pointer(build: &Build<'_>) -> Result<(), CodeError> {
    let made = build.place.path(MADE);
    let failed = |error| CodeError::io("read", &made, error);
    if fs::metadata(&made).map_err(failed)?.len() > 1024 {
        return Ok(());
    }
    let Some(id) = lfs::pointed_to(&fs::read(&made).map_err(failed)?) else { return Ok(()) };
    let Some(object) = build.job.state.lfs.iter().find(|object| object.id == id).cloned() else {
        tracing::warn!(object = %id, "the file is a pointer to an LFS object that the set does not have");
        return Ok(());
    };
    build.lfs().await?;
    let (repository, cancel) = (build.repository.clone(), build.job.stored.cancel.clone());
    let checking = tokio::task::spawn_blocking(move || lfs::check(&repository, &[object], &cancel));
    if let Some(difference) = checking.await.map_err(CodeError::internal)??.pop() {
        return Err(build.job.differs(difference));
    }
    fs::rename(build.repository.join(lfs::path_of(&id)), &made)
        .map_err(|error| CodeError::io("place", &made, error))
}
