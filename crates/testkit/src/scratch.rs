use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::cache::enterable;
use crate::{Account, Error, Result};

/// Waits for the end of its input, which comes when the owning process drops the directory or dies in any way.
/// A server that is being killed at the same moment may still write, hence the repetition.
const REMOVE_WHEN_ORPHANED: &str = r#"
read -r _
tries=0
while [ -e "$1" ] && [ "$tries" -lt 200 ]; do
    rm -rf -- "$1" 2>/dev/null
    tries=$((tries + 1))
    [ ! -e "$1" ] || sleep 0.1
done
"#;

/// A temporary directory that also goes away when the process that made it is killed.
#[derive(Debug)]
pub struct ScratchDir {
    directory: Option<TempDir>,
    path: PathBuf,
    watcher: Child,
}

impl ScratchDir {
    /// Creates `<temporary directory>/backstay-<name>-…` with mode 0700, owned by `account` if one is given.
    ///
    /// # Errors
    /// When the directory or the watching shell cannot be created.
    pub fn create(name: &str, account: Option<&Account>) -> Result<Self> {
        let base = base_directory(account);
        let directory = tempfile::Builder::new()
            .prefix(&format!("backstay-{name}-"))
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&base)
            .map_err(Error::io("create a directory in", &base))?;
        if let Some(account) = account {
            account.give(directory.path())?;
        }
        let path = directory.path().to_owned();
        let watcher = Command::new("/bin/sh")
            .args(["-c", REMOVE_WHEN_ORPHANED, "backstay-scratch"])
            .arg(&path)
            .current_dir("/")
            // Out of the terminal's group: Ctrl-C must end the test, not its cleaner.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("start", "/bin/sh"))?;
        Ok(Self { directory: Some(directory), path, watcher })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a directory inside, owned by the account if one is given.
    ///
    /// # Errors
    /// When it cannot be made or given away.
    pub fn subdirectory(&self, name: &str, account: Option<&Account>) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(Error::io("protect", &path))?;
        if let Some(account) = account {
            account.give(&path)?;
        }
        Ok(path)
    }
}

/// The temporary directory, unless the server's account cannot get there.
fn base_directory(account: Option<&Account>) -> PathBuf {
    let usual = std::env::temp_dir();
    match account {
        Some(account) if !enterable(&usual, account) => PathBuf::from("/tmp"),
        _ => usual,
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // Nothing to report to from a drop; what cannot be removed here, the watcher tries again.
        drop(self.directory.take());
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_directory_is_private_and_goes_with_its_handle() {
        let scratch = ScratchDir::create("test", None).unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "content").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(scratch);
        assert!(!path.exists());
    }
}
