//! Objects of Git LFS: files below `lfs/objects` that are named by the SHA-256 of their content.
//!
//! They become one tar archive. Each is hashed while it is stored; one that is not what its name says makes the set an
//! incomplete one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use backstay_backup_core::progress::Progress;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::error::CodeError;
use super::layout::Layout;
use super::state::{LfsObject, Oid};
use crate::attributes::Attributes;
use crate::files::Root;
use crate::frames::FrameSink;
use crate::path::ArchivePath;
use crate::tar::{END, Entry, EntryKind, encode, padding};
use crate::walk::{Problem, ProblemKind};

/// Where they are, below the repository's own folder.
const FOLDER: &str = "lfs/objects";

/// Where an object lies, below the repository's own folder; in the archive too.
pub(super) fn path_of(id: &Oid) -> String {
    let id = id.as_str();
    format!("{FOLDER}/{}/{}/{id}", &id[..2], &id[2..4])
}

fn archive_path(id: &Oid) -> Result<ArchivePath, CodeError> {
    ArchivePath::parse(path_of(id).as_bytes()).map_err(CodeError::internal)
}

/// All objects that are there, by name. Blocks. What else lies there is none.
pub(super) fn list(layout: &Layout) -> Result<(Vec<LfsObject>, Vec<Problem>), CodeError> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let top = layout.common.join(FOLDER);
    let mut problem = |reason: &str| problems.push(problem(ProblemKind::Unreadable, FOLDER, reason));
    if layout.lfs_elsewhere {
        problem("lfs.storage says that they are elsewhere; those are not in the set");
    }
    match fs::symlink_metadata(&top) {
        Ok(facts) if facts.is_dir() => {
            for first in folders(&top)? {
                for second in folders(&first)? {
                    take_folder(&second, &mut found)?;
                }
            }
        }
        Ok(_) => problem("it is no folder; links are not followed here"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(CodeError::io("open", &top, error)),
    }
    found.sort();
    Ok((found, problems))
}

fn problem(kind: ProblemKind, path: &str, reason: &str) -> Problem {
    Problem { path: path.to_owned(), kind, reason: reason.to_owned() }
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, CodeError> {
    let failed = |error| CodeError::io("read", folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.len() == 2 && entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn take_folder(folder: &Path, found: &mut Vec<LfsObject>) -> Result<(), CodeError> {
    let failed = |error| CodeError::io("read", folder, error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(id) = name.to_str().filter(|name| name.len() == 64).and_then(|name| Oid::parse(name).ok())
        else {
            continue;
        };
        let facts = match entry.metadata() {
            Ok(facts) => facts,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        if facts.is_file() && entry.path().ends_with(path_of(&id)) {
            found.push(LfsObject { id, size: facts.len() });
        }
    }
    Ok(())
}

/// Writes objects as a tar archive. Blocks.
///
/// # Errors
/// Nobody takes it, or it was told to stop. What is wrong with an object is no error, but told.
pub(super) fn write(
    layout: &Layout,
    objects: &[LfsObject],
    sink: &mut FrameSink,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Vec<Problem>, CodeError> {
    let failed = |error| CodeError::io("read", &layout.common, error);
    let root = Root::open(&layout.common).map_err(|error| failed(error.into()))?;
    let mut problems = Vec::new();
    for object in objects {
        let path = archive_path(&object.id)?;
        let file = root.open_file(&path).map(File::from).map_err(std::io::Error::from);
        let whole =
            |file: &File| file.metadata().is_ok_and(|facts| facts.is_file() && facts.len() == object.size);
        match file {
            Err(error) => {
                problems.push(problem(ProblemKind::Unreadable, &path.to_string(), &error.to_string()));
            }
            Ok(file) if !whole(&file) => {
                problems.push(problem(
                    ProblemKind::Changed,
                    &path.to_string(),
                    "it is not as it was a moment ago",
                ));
            }
            Ok(file) => {
                let digest = copy(file, &path, object.size, sink, cancel)?;
                progress.add_bytes(object.size);
                if digest.as_deref() != Some(object.id.as_str()) {
                    let reason = "its content is not what its name says: it is damaged";
                    problems.push(problem(ProblemKind::Unreadable, &path.to_string(), reason));
                }
            }
        }
    }
    sink.write(&END).map_err(failed)?;
    Ok(problems)
}

/// Writes one object. Its digest, unless it ended too early; then zeros take the place of what is missing.
fn copy(
    mut file: File,
    path: &ArchivePath,
    size: u64,
    sink: &mut FrameSink,
    cancel: &CancellationToken,
) -> Result<Option<String>, CodeError> {
    let taken = |error| CodeError::io("store", path.as_path(), error);
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    let mut header = Vec::new();
    encode(&Entry { path, kind: EntryKind::File(size), attributes: &attributes }, &mut header);
    sink.write(&header).map_err(taken)?;
    let (mut left, mut digest, mut torn) = (size, Sha256::new(), false);
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        if cancel.is_cancelled() {
            return Err(CodeError::cancelled());
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = match torn {
            true => 0,
            false => file.read(&mut buffer[..wanted]).unwrap_or(0),
        };
        torn |= read == 0;
        if torn {
            buffer[..wanted].fill(0);
        }
        let now = if torn { wanted } else { read };
        digest.update(&buffer[..now]);
        sink.write(&buffer[..now]).map_err(taken)?;
        left -= now as u64;
    }
    sink.write(&END[..padding(size)]).map_err(taken)?;
    Ok((!torn).then(|| hex::encode(digest.finalize())))
}

/// Compares what lies below a folder with what should; says what differs. Blocks.
pub(super) fn check(
    folder: &Path,
    objects: &[LfsObject],
    cancel: &CancellationToken,
) -> Result<Vec<String>, CodeError> {
    let mut differences = Vec::new();
    for object in objects {
        if cancel.is_cancelled() {
            return Err(CodeError::cancelled());
        }
        let path = folder.join(path_of(&object.id));
        match digest(&path) {
            Ok(digest) if digest == object.id.as_str() => {}
            Ok(_) => differences.push(format!("LFS object {} has another content", object.id)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                differences.push(format!("LFS object {} is missing", object.id));
            }
            Err(error) => return Err(CodeError::io("read", &path, error)),
        }
    }
    Ok(differences)
}

/// SHA-256 of a file's content. Blocks.
pub(super) fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}

/// The object that a pointer file stands for.
pub(super) fn pointed_to(content: &[u8]) -> Option<Oid> {
    if content.len() > 1024 || !content.starts_with(b"version https://git-lfs.github.com/spec/") {
        return None;
    }
    let text = std::str::from_utf8(content).ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("oid sha256:"))?;
    Oid::parse(id).ok().filter(|id| id.as_str().len() == 64)
}

/// Objects of one list that are not in another.
pub(super) fn without(objects: &[LfsObject], known: &BTreeSet<String>) -> Vec<LfsObject> {
    objects.iter().filter(|object| !known.contains(object.id.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_ends_too_early_is_told_and_keeps_its_promised_length() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("object"), "content").unwrap();
        let path = ArchivePath::parse(b"object").unwrap();
        for (size, whole) in [(7, true), (8, false), (1_000, false)] {
            let (mut sink, stream) = crate::capture::tests::channel();
            let file = File::open(folder.path().join("object")).unwrap();
            let digest = copy(file, &path, size, &mut sink, &CancellationToken::new()).unwrap();
            assert_eq!(digest.is_some(), whole, "{size}");
            sink.finish().unwrap();
            let archive = crate::capture::tests::taken(stream);
            assert_eq!(archive.len() as u64, 512 + size + padding(size) as u64);
        }
    }

    #[test]
    fn only_files_are_objects() {
        let folder = tempfile::tempdir().unwrap();
        let id = Oid::parse(&"ab".repeat(32)).unwrap();
        let place = folder.path().join(path_of(&id));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &place).unwrap();
        let mut found = Vec::new();
        take_folder(place.parent().unwrap(), &mut found).unwrap();
        assert_eq!(found, []);
        fs::remove_file(&place).unwrap();
        fs::write(&place, "x").unwrap();
        take_folder(place.parent().unwrap(), &mut found).unwrap();
        assert_eq!(found, [LfsObject { id, size: 1 }]);
    }
}
