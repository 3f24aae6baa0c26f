//! Gives a proven file its name, whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use backstay_backup_core::Class;
use backstay_cli::Failure;

use super::folder_of;

/// Writes content under a name: beside it first, so that the server never sees half a file.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let written = write_beside(path, content).and_then(|temporary| publish(&temporary, path));
    written.map_err(|error| {
        let class = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound | io::ErrorKind::ReadOnlyFilesystem => {
                Class::Usage
            }
            _ => Class::Temporary,
        };
        Failure::new(class, format!("cannot write {}: {error}", path.display()))
    })
}

fn write_beside(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let (temporary, mut file) = create_beside(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    Ok(temporary)
}

/// A new file beside `path`. The name is always the same, so that a crash leaves one behind at most.
pub(super) fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut name = path.as_os_str().to_owned();
    name.push(".backstay");
    let temporary = PathBuf::from(name);
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    Ok((temporary, file))
}

/// Renames a durable file to its name, and makes the name durable.
pub(super) fn publish(from: &Path, path: &Path) -> io::Result<()> {
    fs::rename(from, path)?;
    File::open(folder_of(path))?.sync_all()
}
