//! How pgBackRest is told what to do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use backstay_benches::PgBackRest;

use crate::endpoints::{BUCKET, KEY, SECRET};
use crate::fault::{Place, Target};
use crate::lab::{Access, Lab};

/// What stands in its configuration, for a repository that is reached like this.
pub(crate) fn configuration(peer: &PgBackRest, lab: &Lab, access: &Access) -> String {
    let folder = lab.folder.display();
    let mut text = format!(
        "[matrix]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user={}\n\n[global]\nlock-path={folder}/lock\n\
         log-path={folder}/log\nlog-level-file=off\nlog-level-console=warn\ncompress-type=zst\n\
         start-fast=y\nio-timeout=2\n",
        lab.postgres.data_directory().display(),
        lab.postgres.port(),
        lab.postgres.socket_directory().display(),
        lab.postgres.user(),
    );
    match access {
        Access::Disk { folder } => _ = writeln!(text, "repo1-path={}", folder.display()),
        Access::Encrypted { folder, key } => {
            _ = writeln!(text, "repo1-path={}\nrepo1-cipher-type=aes-256-cbc", folder.display());
            if *key {
                text.push_str("repo1-cipher-pass=a-long-passphrase-of-the-matrix\n");
            }
        }
        Access::S3 { host, plain, tls, prefix } => {
            let (scheme, port) = if peer.speaks_plain_http() { ("http://", plain) } else { ("", tls) };
            _ = writeln!(
                text,
                "repo1-type=s3\nrepo1-path=/{prefix}\nrepo1-s3-bucket={BUCKET}\nrepo1-s3-endpoint=localhost\n\
                 repo1-s3-region=us-east-1\nrepo1-s3-key={KEY}\nrepo1-s3-key-secret={SECRET}\nrepo1-s3-uri-style=path\n\
                 repo1-storage-host={scheme}{host}\nrepo1-storage-port={port}\nrepo1-storage-verify-tls=n"
            );
        }
    }
    text
}

fn command(peer: &PgBackRest, lab: &Lab, configuration: &Path) -> String {
    let (program, file) = (peer.program().display(), configuration.display());
    format!("env PGPASSFILE={} {program} --config={file} --stanza=matrix", lab.passfile().display())
}

/// Makes the repository.
pub(crate) fn create(peer: &PgBackRest, lab: &Lab, configuration: &Path) {
    let _ = lab.shell.must(&format!("{} stanza-create", command(peer, lab, configuration)));
}

/// What archives a segment.
pub(crate) fn archive_line(peer: &PgBackRest, lab: &Lab, configuration: &Path) -> String {
    format!("{} archive-push \"$1\"", command(peer, lab, configuration))
}

/// Takes a base backup.
pub(crate) fn back_up(peer: &PgBackRest, lab: &Lab, configuration: &Path) {
    let _ = lab.shell.must(&format!("{} backup --type=full", command(peer, lab, configuration)));
}

/// Restores into a new folder; the server is started by somebody else.
pub(crate) fn restore(
    peer: &PgBackRest,
    lab: &Lab,
    configuration: &Path,
    target: Target,
    data: &Path,
) -> Output {
    let kind = match target {
        Target::Time => "time",
        Target::Lsn => "lsn",
        Target::Xid => "xid",
        Target::Name => "name",
        Target::Latest => "default",
    };
    let mut line = format!("{} --pg1-path={} restore", command(peer, lab, configuration), data.display());
    if let Some(value) = lab.history().value(target) {
        let _ = write!(line, " --type={kind} --target='{value}' --target-action=promote");
    }
    lab.shell.run(&line)
}

/// The stored file of a segment of the repository on disk.
pub(crate) fn stored(lab: &Lab, segment: &str) -> PathBuf {
    let folder = lab.repository(Place::Disk).join("archive/matrix/15-1").join(&segment[..16]);
    let entries = std::fs::read_dir(&folder).expect("the archive of the stanza").flatten();
    let mut names = entries.map(|entry| entry.path());
    names
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(segment)))
        .unwrap_or_else(|| panic!("no segment {segment} in {}", folder.display()))
}

/// Name and bytes of a segment of this content: the name holds the digest of the content.
pub(crate) fn seal(lab: &Lab, segment: &str, content: &[u8]) -> (PathBuf, Vec<u8>) {
    let plain = lab.folder.join("injured");
    lab.shell.write(&plain, content);
    let shown = plain.display();
    let digest = lab.shell.must(&format!("sha1sum < {shown} | cut -d' ' -f1"));
    let _ = lab.shell.must(&format!("zstd -q -3 -f {shown} -o {shown}.zst"));
    let bytes = std::fs::read(plain.with_extension("zst")).expect("zstd wrote it");
    (stored(lab, segment).with_file_name(format!("{segment}-{digest}.zst")), bytes)
}
