//! The working tree: the commit, then what was not committed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::error::CodeError;
use super::super::objects::{STAGED, UNSTAGED, UNTRACKED};
use super::build::{Build, object, source};
use super::place::MADE;
use crate::error::Error;
use crate::unpack::{UnpackOptions, list};

/// Checks the commit out, applies what was not committed if that is wanted, and says what is worth knowing.
pub(super) async fn check_out(build: &Build<'_>, uncommitted: bool) -> Result<Vec<String>, CodeError> {
    let tree = build.place.path(MADE);
    set_up(build).await?;
    if build.job.state.head.commit.is_some() {
        let command = build.git.command_with_tree(&build.repository, &tree, ["reset", "-q", "--hard"]);
        build.git.tell(command, &[]).await?;
    }
    if !uncommitted {
        return Ok(dirty_note(build));
    }
    apply(build, &tree, STAGED, &["apply", "--index", "--whitespace=nowarn"]).await?;
    apply(build, &tree, UNSTAGED, &["apply", "--whitespace=nowarn"]).await?;
    untracked(build, &tree).await?;
    Ok(Vec::new())
}

/// Settings that say how files look. A sparse tree becomes a whole one.
async fn set_up(build: &Build<'_>) -> Result<(), CodeError> {
    for (name, value) in &build.job.state.settings {
        let known = super::super::layout::KEPT.contains(&name.as_str()) && !name.contains("sparse");
        if known && value.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let command = build.git.command(&build.repository, ["config", name.as_str(), value.as_str()]);
            build.git.tell(command, &[]).await?;
        }
    }
    Ok(())
}

fn dirty_note(build: &Build<'_>) -> Vec<String> {
    let dirty = build.job.state.dirty.as_ref().is_some_and(super::super::state::Dirty::is_dirty);
    let stored = build.job.facts.uncommitted.is_some();
    match (dirty, stored) {
        (true, true) => {
            vec!["what was not committed is in the set, and was left there: --uncommitted".to_owned()]
        }
        (true, false) => vec!["there was something not committed, and it is not in the set".to_owned()],
        (false, _) => Vec::new(),
    }
}

async fn apply(build: &Build<'_>, tree: &Path, base: &str, args: &[&str]) -> Result<(), CodeError> {
    let job = build.job;
    let Some(entry) = object(job.target(), base) else { return Ok(()) };
    let path = build.place.path(base);
    let mut reader = job.open(job.target(), entry)?;
    let to = path.clone();
    let saving = tokio::task::spawn_blocking(move || save(&mut reader, &to));
    saving.await.map_err(CodeError::internal)??;
    let command = build.git.command_with_tree(&build.repository, tree, args.iter().copied()).arg(&path);
    let said = build.git.say_long(command, &[]).await?;
    if said.code == 0 { Ok(()) } else { Err(job.differs(format!("{base} does not fit: {}", said.words))) }
}

fn save(reader: &mut impl io::Read, to: &PathBuf) -> Result<(), CodeError> {
    let mut file = fs::File::create(to).map_err(|error| CodeError::io("create", to, error))?;
    io::copy(reader, &mut file).map(|_| ()).map_err(|error| source(error, "a patch"))
}

/// Files that git does not know. The archive is looked through before anything of it is written: nothing in it may get into
/// a repository's own folder.
async fn untracked(build: &Build<'_>, tree: &Path) -> Result<(), CodeError> {
    let job = build.job;
    let Some(entry) = object(job.target(), UNTRACKED) else { return Ok(()) };
    let reader = job.open(job.target(), entry)?;
    let cancel = job.stored.cancel.clone();
    let looking = tokio::task::spawn_blocking(move || {
        let mut inside = None;
        let options = UnpackOptions { allow_case_collisions: true, ..UnpackOptions::default() };
        list(reader, &options, &cancel, |entry| {
            if is_gits_own(entry.path.as_bytes()) {
                inside = Some(entry.path.to_string());
            }
        })?;
        Ok::<_, Error>(inside)
    });
    if let Some(name) = looking.await.map_err(CodeError::internal)?? {
        let problem = "it would be part of a repository's own folder".to_owned();
        return Err(Error::Refused { name, problem }.into());
    }
    build.unpack(job.target(), entry, tree).await?;
    Ok(())
}

/// Whether a path leads into a folder that git takes for its own, on any file system.
fn is_gits_own(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|name| {
        let plain: Vec<u8> = name.iter().copied().filter(u8::is_ascii).collect();
        let plain = plain.to_ascii_lowercase();
        let plain = plain.trim_ascii_end();
        plain.starts_with(b".git") && (plain.len() == 4 || matches!(plain[4], b' ' | b'.' | b':'))
            || plain.starts_with(b"git~")
    })
}

#[cfg(test)]
mod tests {
    use super::is_gits_own;

    #[test]
    fn the_repositorys_own_folder_is_known_by_all_its_names() {
        for path in [
            ".git",
            ".git/hooks/post-checkout",
            "a/.GIT/config",
            "git~1/x",
            ".git /x",
            ".g\u{200c}it/x",
            ".git.",
        ] {
            assert!(is_gits_own(path.as_bytes()), "{path}");
        }
        for path in [".gitignore", "a/.github/x", "git", "agit~1", ".gitmodules", "x.git/y"] {
            assert!(!is_gits_own(path.as_bytes()), "{path}");
        }
    }
}
