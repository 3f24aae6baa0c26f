//! Files whose content is a secret that a service keeps.
//!
//! ```text
//! backup:  which version is in use? ─▶ secrets.json of the set; the file itself is left out, its value is not asked for
//! restore: that version, or the one in use now ─▶ a staged file of mode 0600 ─▶ compared and installed like the others
//! ```
//!
//! Guarantees: a value is in no set, no report and no log. On the machine it is in the staging folder (mode 0700) until it was
//! installed, and in the file. If one secret cannot be had, nothing is installed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::secret::{Secret, SecretRef, SecretSource};
use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::accounts::Accounts;
use crate::attributes::Attributes;
use crate::error::Error;
use crate::files::Root;
use crate::path::{ArchivePath, printable_path};
use crate::restore::{Staged, make_parents};
use crate::selection::settle;
use crate::tar::{Kind, TarEntry};
use crate::walk::{Problem, ProblemKind, State};

/// Name of the object that says which versions were in use.
pub(crate) const OBJECT: &str = "secrets.json";
/// Largest such object.
const LARGEST: u64 = 16 << 20;
/// The mode of every such file.
const MODE: u32 = 0o600;

/// A file, and the secret that is its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SecretFile {
    /// Absolute path of the file.
    pub file: PathBuf,
    /// Name or ARN of the secret.
    pub id: String,
    /// Field of a JSON secret; the whole text without it.
    pub key: Option<String>,
}

impl SecretFile {
    /// A secret that belongs into that file.
    #[must_use]
    pub fn new(file: PathBuf, id: &str, key: Option<String>) -> Self {
        Self { file, id: id.to_owned(), key }
    }
}

/// The version of a secret that was in use. Never its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct SecretVersion {
    /// Name or ARN.
    pub id: String,
    /// Field of a JSON secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The version.
    pub version: String,
    /// File that it belongs into.
    pub file: PathBuf,
    /// Whose that file was; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// Whose a file was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Owner {
    /// Number of the owner.
    pub user: u32,
    /// Number of the group.
    pub group: u32,
    /// Name of the owner, where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user_name: String,
    /// Name of the group, where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group_name: String,
}

/// Which version is fetched again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Which {
    /// The one that was in use when the set was made.
    #[default]
    Recorded,
    /// The one that is in use now.
    Current,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    secrets: Vec<SecretVersion>,
}

/// Asks which versions are in use, never for a value. A secret whose version cannot be had is a problem that makes the set an
/// incomplete one.
pub async fn versions(source: &dyn SecretSource, files: &[SecretFile]) -> (Vec<SecretVersion>, Vec<Problem>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let accounts = Accounts::of(Path::new("/"));
    for secret in files {
        match source.version(&reference(&secret.id, secret.key.as_deref(), None)).await {
            Ok(version) => {
                let file = settle(&secret.file).unwrap_or_else(|_| secret.file.clone());
                let owner = owner(&file, &accounts);
                let (id, key) = (secret.id.clone(), secret.key.clone());
                found.push(SecretVersion { id, key, version, file, owner });
            }
            Err(error) => problems.push(Problem {
                path: printable_path(&secret.file),
                kind: ProblemKind::Unreadable,
                reason: format!("the version of its secret is unknown: {}", chain(&error)),
            }),
        }
    }
    (found, problems)
}

fn reference(id: &str, key: Option<&str>, version: Option<&str>) -> SecretRef {
    SecretRef::SecretsManager {
        secrets_manager: id.to_owned(),
        key: key.map(str::to_owned),
        version: version.map(str::to_owned),
    }
}

fn owner(file: &Path, accounts: &Accounts) -> Option<Owner> {
    let stat = rustix::fs::lstat(file).ok()?;
    let mut attributes = Attributes { user: stat.st_uid, group: stat.st_gid, ..Attributes::default() };
    accounts.name(&mut attributes);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_default();
    Some(Owner {
        user: stat.st_uid,
        group: stat.st_gid,
        user_name: text(attributes.user_name),
        group_name: text(attributes.group_name),
    })
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let texts = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    texts.collect::<Vec<_>>().join(": ")
}

/// The content of the object.
pub(crate) fn encode(secrets: &[SecretVersion]) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Document { format: 1, secrets: secrets.to_vec() })
}

/// The versions that a set says were in use; none where it says nothing.
///
/// # Errors
/// The object cannot be read, is damaged, or of a later version.
pub async fn recorded(
    repositories: &Repositories,
    manifest: &Manifest,
    identities: &Identities,
) -> Result<Vec<SecretVersion>, Error> {
    let Some(entry) = manifest.objects.iter().find(|entry| entry.name.starts_with(OBJECT)) else {
        return Ok(Vec::new());
    };
    let (reader, name) = (repositories.open_object(manifest, entry, identities)?, entry.name.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let mut content = Vec::new();
        reader.take(LARGEST).read_to_end(&mut content).map(|_| content)
    });
    let read = reading.await.map_err(|error| Error::internal(&error))?;
    let content = read.map_err(|error| match backstay_backup_core::object_reader::into_error(error) {
        Ok(error) => Error::Repository(error),
        Err(error) => Error::io("read", Path::new(&name), error),
    })?;
    match serde_json::from_slice(&content) {
        Ok(Document { format: 1, secrets }) => Ok(secrets),
        _ => {
            let problem = format!("has a {OBJECT} that this program cannot read");
            Err(Error::Unsuitable { set: manifest.set.to_string(), problem })
        }
    }
}

/// Fetches secrets into a staging folder, as files of mode 0600, from where they are compared and installed like the others.
///
/// # Errors
/// The first secret that cannot be had, and a place that something else of the set has. Some may lie in the staging folder then.
///
/// # Cancel safety
/// A dropped call leaves some staged secrets, which the next restore into the same folder replaces.
pub async fn fetch(
    source: &dyn SecretSource,
    staged: &mut Staged,
    secrets: &[SecretVersion],
    which: Which,
) -> Result<(), Error> {
    let root = Root::open(&staged.files).map_err(|error| Error::io("open", &staged.files, error.into()))?;
    for secret in secrets {
        let wanted = (which == Which::Recorded).then_some(secret.version.as_str());
        let wanted = reference(&secret.id, secret.key.as_deref(), wanted);
        let value = source.resolve(&wanted).await.map_err(|source| Error::SecretFile {
            path: secret.file.clone(),
            is_recorded: which == Which::Recorded,
            source,
        })?;
        let entry = place(&root, staged, secret, &value)?;
        staged.secrets.insert(entry.path.clone());
        staged.entries.push(entry);
    }
    Ok(())
}

fn place(
    root: &Root,
    staged: &Staged,
    secret: &SecretVersion,
    value: &Secret<String>,
) -> Result<TarEntry, Error> {
    let conflict =
        |problem: &str| Error::Conflict { path: printable_path(&secret.file), problem: problem.to_owned() };
    let path = ArchivePath::of_absolute(&secret.file).ok_or_else(|| conflict("it is no path of a file"))?;
    if staged.entries.iter().any(|entry| entry.path == path) {
        return Err(conflict("the set holds it, and names a secret for the same place"));
    }
    let failed = |error: std::io::Error| Error::io("write", &staged.files.join(path.as_path()), error);
    let parent = make_parents(root, &path).map_err(|error| failed(error.into()))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = rustix::fs::openat(&parent, path.name(), flags, Mode::RUSR | Mode::WUSR);
    let mut file = File::from(new.map_err(|error| failed(error.into()))?);
    file.write_all(value.expose().as_bytes()).map_err(failed)?;
    let stat = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
    let size = value.expose().len() as u64;
    let attributes = attributes(secret, &State::of(&stat));
    Ok(TarEntry { path, kind: Kind::File { size, extents: None }, attributes })
}

/// Its former owner, or this account.
fn attributes(secret: &SecretVersion, state: &State) -> Attributes {
    let mut attributes = Attributes {
        mode: MODE,
        user: state.user,
        group: state.group,
        modified: i64::try_from(state.modified.div_euclid(1_000_000_000)).unwrap_or(0),
        ..Attributes::default()
    };
    if let Some(owner) = &secret.owner {
        (attributes.user, attributes.group) = (owner.user, owner.group);
        attributes.user_name = owner.user_name.clone().into_bytes();
        attributes.group_name = owner.group_name.clone().into_bytes();
    }
    attributes
}

/// Removes the staged values, after they were installed.
///
/// # Errors
/// One cannot be removed.
pub fn forget(staged: &Staged) -> Result<(), Error> {
    let root = Root::open(&staged.files).map_err(|error| Error::io("open", &staged.files, error.into()))?;
    for path in &staged.secrets {
        let removed = root
            .open_parent(path)
            .and_then(|parent| rustix::fs::unlinkat(&parent, path.name(), AtFlags::empty()));
        removed.map_err(|error| Error::io("remove", &staged.files.join(path.as_path()), error.into()))?;
    }
    Ok(())
}
