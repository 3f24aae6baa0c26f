//! Starts the program once more, to work on while the server goes on.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use crate::claim::Claim;
use crate::program::whole;

/// How far a helper steps back: a third of the weight of the others.
const COURTESY: i32 = 5;

/// How a helper gets along with memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    /// Large blocks go back to the kernel at once, which keeps the peak at what is in use.
    Returned,
    /// They are used again: pages that are new each time cost a tenth of the time of a fetch. The peak is some 12 MiB
    /// higher.
    Reused,
}

impl Memory {
    /// For glibc; others do not know them.
    fn settings(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Returned => [("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")],
            Self::Reused => [("MALLOC_MMAP_THRESHOLD_", "4194304"), ("MALLOC_TRIM_THRESHOLD_", "8388608")],
        }
    }
}

/// Starts a helper of that name with the arguments of this program and one more. It holds the lock from its first moment on, because
/// it inherits the open file as its standard input; the lock ends with it, however it ends.
///
/// Its other ends are closed: a server's log must not wait for us.
pub(crate) fn start(name: &str, lock: Claim, flag: &str, memory: Memory) -> io::Result<()> {
    let mut command = whole(name);
    command.arg(flag);
    command.stdin(Stdio::from(lock.into_file())).stdout(Stdio::null()).stderr(Stdio::null());
    // glibc keeps a heap for each thread and what was freed in it; segments come and go on many threads.
    command.env("MALLOC_ARENA_MAX", "2").envs(memory.settings());
    // Nobody waits for it: whoever started us outlives us, and so does the helper.
    command.spawn().map(drop)
}

/// Lets everybody else of this machine go first, above all the server that this process works for: it is ahead of it in any
/// case. Where the system cannot do that, it works as it did.
pub(crate) fn step_back() {
    let _ = rustix::process::nice(COURTESY);
    // The kernel may weigh whole sessions, and this one is not the server's (`sched(7)`, autogroups).
    let _ = fs::write("/proc/self/autogroup", COURTESY.to_string());
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
