//! How our own programs are told what to do.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::sealed::seal as seal_content;

use crate::endpoints::{BUCKET, KEY, SECRET};
use crate::fault::{Place, Target};
use crate::lab::{Access, Lab};

/// How long `restore-wal` tries. Its default of two minutes would make the matrix take hours.
const DEADLINE: &str = "6s";

/// What stands in the configuration, for a repository that is reached like this.
pub(crate) fn configuration(lab: &Lab, access: &Access) -> String {
    let folder = lab.folder.display();
    let mut text = "stanza = \"matrix\"\n\n[[repository]]\nname = \"matrix\"\n".to_owned();
    match access {
        Access::Disk { folder } => _ = writeln!(text, "path = \"{}\"", folder.display()),
        Access::Encrypted { folder: repository, key } => {
            let (public, private) = keys(lab);
            _ = writeln!(
                text,
                "path = \"{}\"\n\n[encryption]\nrecipients = [\"{public}\"]\nallow-single-recipient = true",
                repository.display()
            );
            if *key {
                _ = writeln!(text, "identity = {{ file = \"{}\" }}", private.display());
            }
        }
        Access::S3 { host, plain, prefix, .. } => {
            let secret = lab.folder.join("secret");
            lab.shell.write(&secret, SECRET);
            let _ = lab.shell.must(&format!("chmod 600 {}", secret.display()));
            _ = writeln!(
                text,
                "s3 = {{ bucket = \"{BUCKET}\", prefix = \"{prefix}\", region = \"us-east-1\", \
                 endpoint = \"http://{host}:{plain}\", path-style = true, access-key-id = \"{KEY}\", \
                 secret-access-key = {{ file = \"{}\" }} }}",
                secret.display()
            );
        }
    }
    _ = writeln!(text, "\n[wal]\nspool = \"{folder}/spool\"\ndeadline = \"{DEADLINE}\"");
    _ = writeln!(
        text,
        "\n[postgres]\nhost = \"{}\"\nport = {}\nuser = \"{}\"\npassfile = \"{}\"",
        lab.postgres.socket_directory().display(),
        lab.postgres.port(),
        lab.postgres.user(),
        lab.passfile().display()
    );
    text
}

/// The public key, and the file of the private one; made at the first call.
fn keys(lab: &Lab) -> (String, PathBuf) {
    let private = lab.folder.join("key");
    if !private.is_file() {
        let _ = lab.shell.must(&format!("age-keygen -o {0} 2>&1; chmod 600 {0}", private.display()));
    }
    (lab.shell.must(&format!("age-keygen -y {}", private.display())), private)
}

fn command(programs: &Path, program: &str, configuration: &Path) -> String {
    format!("{} --config {}", programs.join(program).display(), configuration.display())
}

/// Makes the repository, and the source server the cluster of the stanza.
pub(crate) fn create(programs: &Path, lab: &Lab, configuration: &Path) {
    lab.shell.folder(&lab.folder.join("spool"));
    let _ = lab.shell.must(&format!("chmod 700 {}/spool", lab.folder.display()));
    let data = lab.postgres.data_directory().display();
    let _ =
        lab.shell.must(&format!("cd {data}; {} --register", command(programs, "archive-wal", configuration)));
}

/// What archives a segment.
pub(crate) fn archive_line(programs: &Path, configuration: &Path) -> String {
    format!("{} \"$1\"", command(programs, "archive-wal", configuration))
}

/// Takes a base backup.
pub(crate) fn back_up(programs: &Path, lab: &Lab, configuration: &Path) {
    let _ = lab.shell.must(&format!("{} --no-progress", command(programs, "backup-cluster", configuration)));
}

/// Restores into a new folder; the server is started by somebody else.
pub(crate) fn restore(
    programs: &Path,
    lab: &Lab,
    configuration: &Path,
    target: Target,
    data: &Path,
) -> Output {
    let start = command(programs, "restore-cluster", configuration);
    let mut line = format!("{start} --no-progress --no-proof --data-directory {}", data.display());
    if let Some(value) = lab.history().value(target) {
        let flag = match target {
            Target::Time => "time",
            Target::Lsn => "lsn",
            Target::Xid => "xid",
            Target::Name | Target::Latest => "name",
        };
        let _ = write!(line, " --target-{flag} '{value}'");
    }
    lab.shell.run(&line)
}

/// The stored file of a segment of the repository on disk.
pub(crate) fn stored(lab: &Lab, segment: &str) -> PathBuf {
    let root = lab.repository(Place::Disk).join("matrix/wal");
    find(&root, segment).unwrap_or_else(|| panic!("no segment {segment} in {}", root.display()))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().find_map(|entry| match entry.path() {
        path if path.is_dir() => find(&path, name),
        path => (entry.file_name() == name).then_some(path),
    })
}

/// Name and bytes of a segment of this content, with a valid seal.
pub(crate) fn seal(lab: &Lab, segment: &str, content: &[u8]) -> (PathBuf, Vec<u8>) {
    let (_, bytes) = seal_content(content, 3, &Recipients::none()).expect("memory can be sealed");
    (stored(lab, segment), bytes.to_vec())
}
