//! Where helpers leave what they did ahead of the server.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use backstay_backup_core::config::WalConfig;

/// Taken where whoever installed Backstay made it for us.
const USUAL: &str = "/var/spool/backstay";

/// A directory of our own, for one purpose of one server towards one destination.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    path: PathBuf,
}

impl Spool {
    /// Makes the folder `purpose/key`, and those above it.
    ///
    /// # Errors
    /// It cannot be made, belongs to somebody else, can be written by others, or lies in the data directory.
    pub(crate) fn open(config: &WalConfig, data: &Path, purpose: &str, key: u128) -> io::Result<Self> {
        let root = root(config);
        make(&root)?;
        if let (Ok(root), Ok(data)) = (fs::canonicalize(&root), fs::canonicalize(data))
            && root.starts_with(&data)
        {
            return Err(unusable(
                &root,
                "lies in the data directory, where the server counts every file as its own",
            ));
        }
        let path = root.join(purpose).join(format!("{key:032x}"));
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a small file whole, or not at all. It is not made durable: nothing here is the truth.
    pub(crate) fn write(&self, name: &str, content: &str) -> io::Result<()> {
        let temporary = self.file(&format!(".{name}.{}", std::process::id()));
        fs::write(&temporary, content)?;
        fs::rename(&temporary, self.file(name))
    }

    /// Names of the files in it.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }
}

fn root(config: &WalConfig) -> PathBuf {
    let usual = || PathBuf::from(USUAL);
    let own = || PathBuf::from(format!("/var/tmp/backstay-{}", rustix::process::geteuid().as_raw()));
    match &config.spool {
        Some(path) => path.clone(),
        None if fs::symlink_metadata(USUAL).is_ok_and(|found| problem(&found).is_none()) => usual(),
        None => own(),
    }
}

/// Makes a folder that only we can write, or makes sure that it is one: it may lie where everybody may write.
fn make(root: &Path) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(root);
    let found = fs::symlink_metadata(root);
    match (made, found) {
        (_, Ok(found)) => problem(&found).map_or(Ok(()), |problem| Err(unusable(root, problem))),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
    }
}

fn problem(found: &Metadata) -> Option<&'static str> {
    if !found.is_dir() {
        return Some("is no directory");
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Some("belongs to another user");
    }
    (found.mode() & 0o022 != 0).then_some("can be written by other users")
}

fn unusable(root: &Path, problem: &str) -> io::Error {
    io::Error::other(format!("{} {problem}", root.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn config(path: &Path) -> WalConfig {
        let mut config = WalConfig::default();
        config.spool = Some(path.to_owned());
        config
    }

    #[test]
    fn a_spool_is_made_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("spool");
        let spool = Spool::open(&config(&root), Path::new("/nonexistent"), "push", 7).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
        spool.write("a", "content").unwrap();
        assert_eq!(fs::read_to_string(spool.file("a")).unwrap(), "content");
        assert_eq!(spool.names().unwrap(), ["a"]);
    }

    #[test]
    fn what_others_may_write_is_no_spool() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| Spool::open(&config(path), folder.path(), "push", 7).map(drop);
        let inside = open(&folder.path().join("spool")).unwrap_err().to_string();
        assert!(inside.contains("data directory"), "{inside}");
        let elsewhere = tempfile::tempdir().unwrap();
        let open_path = elsewhere.path().join("open");
        fs::create_dir(&open_path).unwrap();
        fs::set_permissions(&open_path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(open(&open_path).unwrap_err().to_string().contains("written by other users"));
        symlink(&open_path, elsewhere.path().join("link")).unwrap();
        assert!(open(&elsewhere.path().join("link")).is_err());
        fs::write(elsewhere.path().join("file"), "").unwrap();
        assert!(open(&elsewhere.path().join("file")).is_err());
    }
}
