//! Reads the refs of a repository once, and gives them to a repository of our own that borrows its objects.
//!
//! From then on refs cannot move under the backup, and no configuration but ours is read: what the repository's own says
//! about filters, monitors and remotes is not even seen.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::error::CodeError;
use super::git::Git;
use super::layout::Layout;
use super::state::{Head, Name, Oid, Ref, State, Submodule, WorkTree};
use super::{FORMAT, WORKTREES};

/// How often refs are read until HEAD did not move meanwhile.
const TRIES: u32 = 4;

/// A repository of ours with frozen refs and borrowed objects.
#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) path: PathBuf,
    /// The one that it borrows from: what is wrong is wrong there.
    pub(super) named: PathBuf,
}

/// Reads HEAD and the refs.
pub(super) async fn read_refs(git: &Git, layout: &Layout) -> Result<State, CodeError> {
    let mut state = State {
        format: FORMAT,
        object_format: layout.object_format.clone(),
        bare: layout.work_tree.is_none(),
        settings: layout.settings.clone(),
        ..State::default()
    };
    for _ in 0..TRIES {
        let head = read_head(git, &layout.git, &layout.folder).await?;
        state.refs = list_refs(git, &layout.git, &layout.folder).await?;
        state.head = read_head(git, &layout.git, &layout.folder).await?;
        if state.head == head {
            break;
        }
    }
    // What the branch was when the refs were listed, wherever it is by now.
    if let Some(branch) = &state.head.branch {
        let branch = state.refs.iter().find(|reference| reference.name == *branch);
        state.head.commit = branch.map(|branch| branch.id.clone());
    }
    state.worktrees = worktrees(git, layout).await?;
    for worktree in &state.worktrees {
        // A commit that nothing but another working tree stands on would otherwise not be in the bundle.
        let name = Name([WORKTREES.as_bytes(), &worktree.name.0].concat());
        let is_new = state.refs.iter().all(|reference| reference.name != name);
        if let (None, Some(id)) = (&worktree.head.branch, &worktree.head.commit)
            && is_new
        {
            state.refs.push(Ref { name, id: id.clone(), target: None });
        }
    }
    state.refs.sort();
    Ok(state)
}

async fn read_head(git: &Git, repository: &Path, named: &Path) -> Result<Head, CodeError> {
    let command = git.command(repository, ["symbolic-ref", "-q", "HEAD"]);
    let said = git.say(command).await?;
    let branch = match said.code {
        0 => Some(Name(said.stdout.trim_ascii_end().to_vec())),
        1 => None,
        _ => return Err(CodeError::of_repository(named, "symbolic-ref", &said.words)),
    };
    let said = git.say(git.command(repository, ["rev-parse", "-q", "--verify", "HEAD"])).await?;
    let commit = if said.code == 0 {
        Some(Oid::parse(&said.text()).map_err(CodeError::internal)?)
    } else if branch.is_none() {
        return Err(CodeError::of_repository(named, "rev-parse", "HEAD is broken"));
    } else {
        None
    };
    Ok(Head { branch, commit })
}

/// All refs of a repository. A broken one is an error: git itself would only pass over it.
pub(super) async fn list_refs(git: &Git, repository: &Path, named: &Path) -> Result<Vec<Ref>, CodeError> {
    let format = "--format=%(objectname) %(symref) %(refname)";
    let said = git.ask(named, git.command(repository, ["for-each-ref", format]), &[]).await?;
    if !said.words.is_empty() {
        return Err(CodeError::Damaged { path: named.to_owned(), problem: said.words });
    }
    let lines = said.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(parse_ref).collect()
}

fn parse_ref(line: &[u8]) -> Result<Ref, CodeError> {
    let wrong = || CodeError::internal(format!("git lists a ref as {}", line.escape_ascii()));
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (Some(id), Some(target), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let id = std::str::from_utf8(id).ok().and_then(|id| Oid::parse(id).ok()).ok_or_else(wrong)?;
    let target = (!target.is_empty()).then(|| Name(target.to_vec()));
    Ok(Ref { name: Name(name.to_vec()), id, target })
}

/// The other working trees of a repository. One whose HEAD cannot be read is none any more.
async fn worktrees(git: &Git, layout: &Layout) -> Result<Vec<WorkTree>, CodeError> {
    let folder = layout.common.join("worktrees");
    let mut folders = match fs::read_dir(&folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(CodeError::io("read", &folder, error)),
    };
    folders.retain(|path| *path != layout.git);
    let mut found = Vec::new();
    for path in folders {
        if let Ok(head) = read_head(git, &path, &layout.folder).await {
            found.push(WorkTree {
                name: Name(path.file_name().unwrap_or_default().as_bytes().to_vec()),
                head,
            });
        }
    }
    if layout.git != layout.common {
        let head = read_head(git, &layout.common, &layout.folder).await?;
        found.push(WorkTree { name: Name(b"main".to_vec()), head });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

impl Shadow {
    /// Makes it.
    pub(super) async fn create(
        git: &Git,
        path: PathBuf,
        layout: &Layout,
        state: &State,
    ) -> Result<Self, CodeError> {
        init(git, &path, &state.object_format, true).await?;
        borrow(&path, &layout.objects())?;
        write_refs(&path, state)?;
        Ok(Self { path, named: layout.folder.clone() })
    }

    /// Submodules of the commit that is checked out.
    pub(super) async fn submodules(&self, git: &Git, state: &State) -> Result<Vec<Submodule>, CodeError> {
        let mut found = Vec::new();
        for file in self.files(git, state).await?.into_iter().filter(|file| file.mode == "160000") {
            found.push(Submodule { path: Name(file.path), commit: file.id });
        }
        Ok(found)
    }

    /// Everything in the tree of the commit that is checked out.
    pub(super) async fn files(&self, git: &Git, state: &State) -> Result<Vec<TreeFile>, CodeError> {
        let Some(commit) = &state.head.commit else { return Ok(Vec::new()) };
        let command = git.command(&self.path, ["ls-tree", "-r", "-z", "--full-tree", commit.as_str()]);
        let said = git.ask(&self.named, command, &[]).await?;
        let entries = said.stdout.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
        entries.map(|entry| TreeFile::parse(entry).ok_or_else(|| odd(entry))).collect()
    }
}

fn odd(entry: &[u8]) -> CodeError {
    CodeError::internal(format!("git lists a file as {}", entry.escape_ascii()))
}

/// A file of a commit.
#[derive(Clone, Debug)]
pub(super) struct TreeFile {
    pub(super) mode: String,
    pub(super) id: Oid,
    pub(super) path: Vec<u8>,
}

impl TreeFile {
    /// Takes `mode SP type SP id TAB path`.
    pub(super) fn parse(entry: &[u8]) -> Option<Self> {
        let tab = entry.iter().position(|byte| *byte == b'\t')?;
        let mut words = std::str::from_utf8(&entry[..tab]).ok()?.split(' ');
        let (mode, _, id) = (words.next()?, words.next()?, words.next()?);
        Some(Self { mode: mode.to_owned(), id: Oid::parse(id).ok()?, path: entry[tab + 1..].to_vec() })
    }
}

/// Makes a repository of ours.
pub(super) async fn init(git: &Git, path: &Path, object_format: &str, bare: bool) -> Result<(), CodeError> {
    let format = format!("--object-format={object_format}");
    let mut command = git.bare_command(["init", "-q", "--template=", "--initial-branch=main"]).arg(format);
    if bare {
        command = command.arg("--bare");
    }
    git.tell(command.arg(path), &[]).await?;
    Ok(())
}

/// Lends a repository of ours the objects of another.
pub(super) fn borrow(repository: &Path, objects: &Path) -> Result<(), CodeError> {
    let folder = repository.join("objects/info");
    let written = fs::create_dir_all(&folder).and_then(|()| {
        let line = [objects.as_os_str().as_bytes(), b"\n"].concat();
        fs::write(folder.join("alternates"), line)
    });
    written.map_err(|error| CodeError::io("write", &folder, error))
}

/// Gives a repository of ours just these refs.
pub(super) fn write_refs(repository: &Path, state: &State) -> Result<(), CodeError> {
    let mut packed = Vec::new();
    for reference in state.refs.iter().filter(|reference| reference.target.is_none()) {
        packed.extend_from_slice(reference.id.as_str().as_bytes());
        packed.push(b' ');
        packed.extend_from_slice(&reference.name.0);
        packed.push(b'\n');
    }
    let head = match (&state.head.branch, &state.head.commit) {
        (Some(branch), _) => [b"ref: ".as_slice(), &branch.0, b"\n"].concat(),
        (None, Some(commit)) => format!("{commit}\n").into_bytes(),
        (None, None) => b"ref: refs/heads/main\n".to_vec(),
    };
    fs::write(repository.join("packed-refs"), packed)
        .and_then(|()| fs::write(repository.join("HEAD"), head))
        .map_err(|error| CodeError::io("write", repository, error))
}
