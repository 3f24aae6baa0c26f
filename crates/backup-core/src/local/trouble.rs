//! What goes wrong below a local store, and which [`StoreError`] it is.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::store::StoreError;

/// Failure of one step, before it is known for whom it was done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The root is not the directory it was when the store was opened.
    RootGone(io::Error),
    /// The operating system said no.
    Os(Errno),
    /// It cannot be done, in our own words.
    Refused(&'static str),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Os(errno)
    }
}

impl Trouble {
    /// The error of operation `op` on `what` in the store at `root`.
    pub(super) fn of(self, op: &'static str, what: &str, root: &Path) -> StoreError {
        // The prefix of everything is empty.
        let what = if what.is_empty() { root.display().to_string() } else { what.to_owned() };
        match self {
            Self::RootGone(source) => missing(root, source),
            Self::Refused(why) => StoreError::Failed { op, what, source: why.into() },
            Self::Os(errno) => {
                let source = io::Error::from(errno);
                match class(errno) {
                    Class::Full => StoreError::Full { op, what, source: source.into() },
                    Class::Denied => StoreError::Denied { op, what, source: source.into() },
                    Class::Missing => missing(root, source),
                    Class::Temporary => {
                        StoreError::Temporary { op, what, retry_after: None, source: source.into() }
                    }
                    Class::Failed => StoreError::Failed { op, what, source: source.into() },
                }
            }
        }
    }
}

enum Class {
    Full,
    Denied,
    Missing,
    Temporary,
    Failed,
}

fn class(errno: Errno) -> Class {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Class::Full,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Class::Denied,
        // A network mount or device that went away under the store.
        Errno::STALE | Errno::NODEV | Errno::NXIO | Errno::NOTCONN => Class::Missing,
        Errno::INTR
        | Errno::AGAIN
        | Errno::BUSY
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOMEM
        | Errno::NOBUFS
        | Errno::TIMEDOUT
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NETDOWN
        | Errno::NETUNREACH => Class::Temporary,
        _ => Class::Failed,
    }
}

fn missing(root: &Path, source: io::Error) -> StoreError {
    StoreError::Missing { location: root.display().to_string(), source: source.into() }
}
