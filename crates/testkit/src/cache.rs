//! Where things that are expensive to make are kept between runs.
//!
//! `scripts/setup.sh` follows the same rule: the user's cache directory, and for root, whose home is closed to the
//! account that servers run as, `/var/cache/backstay`.

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::{Account, Error, Result};

const SYSTEM_CACHE: &str = "/var/cache/backstay";

/// The directories that may hold something, best first.
pub fn candidates() -> Vec<PathBuf> {
    let user = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .map(|cache| cache.join("backstay"));
    user.into_iter().chain([PathBuf::from(SYSTEM_CACHE)]).collect()
}

/// The directory to put new things of `kind` into; exists when this returns.
pub(crate) fn create(kind: &str, account: Option<&Account>) -> Result<PathBuf> {
    let base = match (account, candidates().into_iter().next()) {
        (None, Some(user)) => user,
        (Some(account), Some(user)) if enterable(&user, account) => user,
        _ => PathBuf::from(SYSTEM_CACHE),
    };
    let path = base.join(kind);
    fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
    Ok(path)
}

/// Whether `account` may enter `path`: every directory on the way must let it pass.
pub(crate) fn enterable(path: &Path, account: &Account) -> bool {
    path.ancestors().filter(|part| !part.as_os_str().is_empty()).all(|part| {
        fs::metadata(part).is_ok_and(|meta| {
            let mode = meta.permissions().mode();
            let bit = match (meta.uid() == account.uid(), meta.gid() == account.gid()) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            mode & bit != 0
        })
    })
}
