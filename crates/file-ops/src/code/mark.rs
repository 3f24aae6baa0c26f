//! An annotated tag that says that a commit is in a set, where `git describe` does not look: under `refs/backstay/sets/`.

use std::os::unix::fs::MetadataExt as _;

use backstay_backup_core::id::SetId;
use jiff::Timestamp;

use super::SETS;
use super::error::CodeError;
use super::source::Source;

/// Refuses when the tag would belong to somebody else than the repository does: its owner could not write there any more.
pub(super) fn check(source: &Source) -> Result<(), CodeError> {
    let objects = source.layout.objects();
    let owner = std::fs::metadata(&objects).map_err(|error| CodeError::io("open", &objects, error))?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(CodeError::NotTaken {
        path: source.layout.folder.clone(),
        problem: "it belongs to another account, which could not write beside the tag any more".to_owned(),
        remedy: "run as its owner, or without --tag",
    })
}

/// Leaves the tag; returns the name of its ref. Without a commit there is nothing to tag.
pub(super) async fn leave(
    source: &Source,
    set: &SetId,
    host: &str,
    now: Timestamp,
) -> Result<Option<String>, CodeError> {
    let Some(commit) = &source.state.head.commit else { return Ok(None) };
    let (git, layout) = (&source.git, &source.layout);
    let text = format!(
        "object {commit}\ntype commit\ntag backstay-{set}\ntagger Backstay <backstay@localhost> {} +0000\n\n\
         Backed up from {host} as set {set}.\n",
        now.as_second()
    );
    let said = git.ask(&layout.folder, git.command(&layout.git, ["mktag"]), text.as_bytes()).await?;
    let name = format!("{SETS}{set}");
    let zero = "0".repeat(commit.as_str().len());
    let args = ["update-ref".to_owned(), name.clone(), said.text(), zero];
    git.ask(&layout.folder, git.command(&layout.git, args), &[]).await?;
    Ok(Some(name))
}
