//! Ends a child's group when we are killed and cannot do it ourselves.
//!
//! The guard is a shell that waits on a pipe whose other end only we hold. The kernel closes that end however we die,
//! SIGKILL included; the guard then ends the group. A shell, because the parent-death signal of Linux needs code
//! between fork and exec, which Rust calls unsafe, and follows the starting thread instead of the process.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

/// `read` succeeds never: nobody writes. It ends with the pipe.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
read -r _
kill -s TERM -- "-$1" 2>/dev/null || exit 0
left=$2
while [ "$left" -gt 0 ] && kill -s 0 -- "-$1" 2>/dev/null; do sleep 1; left=$((left - 1)); done
kill -s KILL -- "-$1" 2>/dev/null
exit 0
"#;

/// Watches over one process group until it is dropped.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Starts a guard; `None` on a machine without a shell, where the group is unguarded.
    pub(super) fn over(group: u32, grace: Duration) -> Option<Self> {
        let started = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "backstay-guard"])
            .arg(group.to_string())
            .arg(grace.as_secs().clamp(1, 60).to_string())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        match started {
            Ok(shell) => Some(Self(shell)),
            Err(error) => {
                tracing::debug!(%error, "no shell to guard a child");
                None
            }
        }
    }

    /// Sends the guard home before its pipe closes.
    pub(super) async fn dismiss(mut self) {
        // It can only fail when the guard is gone already.
        let _ = self.0.kill().await;
    }

    /// As [`Guard::dismiss`] without waiting.
    pub(super) fn dismiss_now(&mut self) {
        let _ = self.0.start_kill();
    }

    /// Closes the pipe as the kernel does when we die, and hands out the shell.
    #[cfg(test)]
    pub(super) fn abandon(mut self) -> Child {
        self.0.stdin = None;
        self.0
    }
}
