//! Where the independent server lives that ours is compared with.

use std::path::PathBuf;

use crate::cache::candidates;

/// Finds the program `moto_server` in the cache directory.
///
/// # Errors
/// When it is not installed; the error names the command that does it.
pub fn moto_server() -> crate::Result<PathBuf> {
    let found =
        candidates().into_iter().map(|cache| cache.join("moto/bin/moto_server")).find(|path| path.is_file());
    found.ok_or_else(|| crate::Error::NotInstalled {
        what: "moto_server".to_owned(),
        command: "scripts/setup-moto.sh".to_owned(),
    })
}
