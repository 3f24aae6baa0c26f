//! What a file is besides its content.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// Largest list of names and largest value of extended attributes that Linux has.
const LARGEST: usize = 64 << 10;

/// Owner, permissions, time and extended attributes of a file, folder or link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// Permissions with the set-id and sticky bits.
    pub mode: u32,
    /// Number of the owner.
    pub user: u32,
    /// Number of the group.
    pub group: u32,
    /// Name of the owner, where there is one.
    pub user_name: Vec<u8>,
    /// Name of the group, where there is one.
    pub group_name: Vec<u8>,
    /// Time of the last change of the content, in seconds since 1970.
    pub modified: i64,
    /// Nanoseconds of it.
    pub modified_nanos: u32,
    /// Extended attributes as the system hands them out, ACLs included.
    pub extended: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Attributes {
    pub(crate) fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.modified, tv_nsec: self.modified_nanos.into() };
        Timestamps { last_access: time, last_modification: time }
    }
}

/// Extended attributes of an open file. Those of file systems without any are none.
pub(crate) fn extended(file: impl AsFd) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let file = file.as_fd();
    collect(
        rustix::fs::flistxattr_query(file),
        |buffer| rustix::fs::flistxattr(file, buffer),
        |name, buffer| rustix::fs::fgetxattr(file, name, buffer),
    )
}

/// The same of a path, of the link itself where it is one.
pub(crate) fn extended_of_link(path: &std::path::Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    collect(
        rustix::fs::llistxattr_query(path),
        |buffer| rustix::fs::llistxattr(path, buffer),
        |name, buffer| rustix::fs::lgetxattr(path, name, buffer),
    )
}

fn collect(
    length: Result<usize, Errno>,
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let mut attributes = BTreeMap::new();
    // Most files have none: asking for the length alone costs no memory.
    let length = match length {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(attributes),
        Ok(length) => length,
        Err(error) => return Err(error),
    };
    let mut names = vec![0; length.max(LARGEST)];
    let length = list(&mut names)?;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; LARGEST];
        match get(name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                value.shrink_to_fit();
                attributes.insert(name.to_vec(), value);
            }
            // Removed meanwhile; or a label of the kernel that this account may not see.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(attributes)
}

/// What could not be given to a file.
pub(crate) struct Lacking {
    /// Owner or group.
    pub(crate) owner: bool,
    /// Names of extended attributes.
    pub(crate) extended: Vec<Vec<u8>>,
}

impl Lacking {
    pub(crate) fn none() -> Self {
        Self { owner: false, extended: Vec::new() }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        !self.owner && self.extended.is_empty()
    }
}

/// Gives an open file or folder everything, the owner first, because a change of owner takes set-id bits and capabilities
/// away. What this account may not give is told; it is no error.
pub(crate) fn give(file: impl AsFd, attributes: &Attributes) -> Result<Lacking, Errno> {
    let file = file.as_fd();
    let mut lacking = Lacking::none();
    let (user, group) = (Uid::from_raw(attributes.user), Gid::from_raw(attributes.group));
    match rustix::fs::fchown(file, Some(user), Some(group)) {
        Ok(()) => {}
        Err(Errno::PERM | Errno::INVAL) => {
            let stat = rustix::fs::fstat(file)?;
            lacking.owner = stat.st_uid != attributes.user || stat.st_gid != attributes.group;
        }
        Err(error) => return Err(error),
    }
    // A foreign owner must not get our rights: a program set to run as its owner would run as us.
    let mode = if lacking.owner { attributes.mode & !0o6000 } else { attributes.mode };
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    for name in extended(file)?.keys().filter(|name| !attributes.extended.contains_key(*name)) {
        // Such as an ACL inherited from the folder.
        let _ = rustix::fs::fremovexattr(file, name.as_slice());
    }
    for (name, value) in &attributes.extended {
        match rustix::fs::fsetxattr(file, name.as_slice(), value, rustix::fs::XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::INVAL) => {
                lacking.extended.push(name.clone());
            }
            Err(error) => return Err(error),
        }
    }
    rustix::fs::futimens(file, &attributes.times())?;
    Ok(lacking)
}

/// Gives a link its owner and time. Linux keeps no permissions of links.
pub(crate) fn give_link(folder: impl AsFd, name: &[u8], attributes: &Attributes) -> Result<Lacking, Errno> {
    let folder = folder.as_fd();
    let mut lacking = Lacking::none();
    let (user, group) = (Uid::from_raw(attributes.user), Gid::from_raw(attributes.group));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::chownat(folder, name, Some(user), Some(group), flags) {
        Ok(()) => {}
        Err(Errno::PERM | Errno::INVAL) => {
            let stat = rustix::fs::statat(folder, name, flags)?;
            lacking.owner = stat.st_uid != attributes.user || stat.st_gid != attributes.group;
        }
        Err(error) => return Err(error),
    }
    let link = crate::files::handle_path(folder, name);
    for (attribute, value) in &attributes.extended {
        match rustix::fs::lsetxattr(&link, attribute.as_slice(), value, rustix::fs::XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::INVAL) => {
                lacking.extended.push(attribute.clone());
            }
            Err(error) => return Err(error),
        }
    }
    rustix::fs::utimensat(folder, name, &attributes.times(), flags)?;
    Ok(lacking)
}
