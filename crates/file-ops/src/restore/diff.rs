//! The lines in which a live file and a staged one differ.

use std::path::Path;

use similar::TextDiff;

use super::plan::{Step, What};
use super::stage::Staged;

/// Largest file whose lines are compared.
const LARGEST: u64 = 1 << 20;

/// A unified diff from the live file to the staged one; `None` where that says nothing (links, binary files, large ones)
/// or too much: secrets that were fetched.
///
/// The lines may hold secrets, as configuration does.
#[must_use]
pub fn text_diff(step: &Step, staged: &Staged, root: &Path) -> Option<String> {
    if staged.secrets.contains(&step.path) {
        return None;
    }
    let read = |folder: &Path| {
        let path = folder.join(step.path.as_path());
        let facts = path.symlink_metadata().ok()?;
        let fits = facts.is_file() && facts.len() <= LARGEST;
        if fits { String::from_utf8(std::fs::read(path).ok()?).ok() } else { None }
    };
    let old = if step.what == What::Create { String::new() } else { read(root)? };
    let new = read(&staged.files)?;
    let names = (format!("live/{}", step.path), format!("set/{}", step.path));
    let diff = TextDiff::from_lines(&old, &new);
    let text = diff.unified_diff().context_radius(3).header(&names.0, &names.1).to_string();
    (!text.is_empty()).then_some(text)
}
