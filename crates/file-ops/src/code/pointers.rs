//! LFS objects that the commit needs and that are not here: git fetches them only when somebody checks them out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::error::CodeError;
use super::git::Git;
use super::shadow::Shadow;
use super::state::{Oid, State};

/// Most files of attributes that are looked at.
const ATTRIBUTES: usize = 1_000;

/// How many objects the files of the commit point to that are not among those known. Nothing is read unless some attribute
/// says that there are pointers.
pub(super) async fn missing(git: &Git, shadow: &Shadow, state: &State) -> Result<usize, CodeError> {
    let Some(commit) = &state.head.commit else { return Ok(0) };
    let files = shadow.files(git, state).await?;
    let is_attributes = |path: &[u8]| path == b".gitattributes" || path.ends_with(b"/.gitattributes");
    let attributes: Vec<_> =
        files.into_iter().map(|file| file.path).filter(|path| is_attributes(path)).collect();
    if attributes.is_empty() {
        return Ok(0);
    }
    let paths = attributes.into_iter().take(ATTRIBUTES).map(OsString::from_vec);
    let command = git.command(&shadow.path, ["grep", "-q", "-F", "-e", "filter=lfs", commit.as_str(), "--"]);
    if git.say_long(command.args(paths), &[]).await?.code != 0 {
        return Ok(0);
    }
    let (version, object) = ("^version https://git-lfs", "^oid sha256:[0-9a-f]{64}$");
    let args = ["grep", "-h", "-E", "--all-match", "-e", version, "-e", object, commit.as_str()];
    let said = git.say_long(git.command(&shadow.path, args), &[]).await?;
    let lines = said.stdout.split(|byte| *byte == b'\n');
    let wanted: BTreeSet<_> = lines
        .filter_map(|line| Oid::parse(std::str::from_utf8(line.strip_prefix(b"oid sha256:")?).ok()?).ok())
        .collect();
    let known: BTreeSet<_> = state.lfs.iter().map(|object| &object.id).collect();
    Ok(wanted.iter().filter(|id| !known.contains(id)).count())
}
