//! Starts the program once more, to work on while the server goes on.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use crate::claim::Claim;
use crate::program::whole;

/// Starts a helper of that name with the arguments of this program and one more. It holds the lock from its first moment on, because
/// it inherits the open file as its standard input; the lock ends with it, however it ends.
///
/// Its other ends are closed: a server's log must not wait for us.
pub(crate) fn start(name: &str, lock: Claim, flag: &str) -> io::Result<()> {
    let mut command = whole(name);
    command.arg(flag);
    command.stdin(Stdio::from(lock.into_file())).stdout(Stdio::null()).stderr(Stdio::null());
    // glibc keeps a heap for each thread and what was freed in it; segments come and go on many threads. Large blocks
    // on their own go back at once, which keeps the peak at what is in use.
    command.env("MALLOC_ARENA_MAX", "2").env("MALLOC_MMAP_THRESHOLD_", "131072");
    // Nobody waits for it: whoever started us outlives us, and so does the helper.
    command.spawn().map(drop)
}

/// Makes this process a helper: leaves the session of the server, whose signals are not meant for it, and takes over the
/// lock. `None` when it was not started as one, or another one runs.
pub(crate) fn become_one(lock: &Path) -> io::Result<Option<Claim>> {
    // Fails only for the leader of a group, which is in no danger of the server's signals either.
    let _ = rustix::process::setsid();
    let inherited = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (inherited_facts, expected) = (inherited.metadata()?, fs::metadata(lock)?);
    if (inherited_facts.dev(), inherited_facts.ino()) != (expected.dev(), expected.ino()) {
        return Ok(None);
    }
    Claim::of(inherited)
}
