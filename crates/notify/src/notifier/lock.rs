//! One process at a time for each channel.
//!
//! A lock of the kernel on a file: it ends with the process, however that ends. The file also holds when the channel may
//! be used next by its rate; losing that costs nothing, so it is not synced.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How often a lock that is taken is tried.
const POLL: Duration = Duration::from_millis(20);
/// Messages that may go out at once after a pause.
const BURST: i64 = 5;

/// The lock of one channel.
#[derive(Debug)]
pub(super) struct LaneLock {
    file: File,
    /// The moment up to which the rate is used up.
    used_until: Timestamp,
}

impl LaneLock {
    /// Takes the lock, or waits for it. `None` when somebody else keeps it longer than that.
    pub(super) async fn acquire(
        directory: &Path,
        lane: &str,
        patience: Duration,
    ) -> std::io::Result<Option<Self>> {
        let path = directory.join(format!("{lane}.lock"));
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        let mut text = String::new();
        let _ = (&mut file).take(64).read_to_string(&mut text);
        let used_until = text.trim().parse().unwrap_or(Timestamp::MIN);
        Ok(Some(Self { file, used_until }))
    }

    /// Asks to send one message: the time to wait first, or zero, in which case it counts as sent.
    pub(super) fn take_turn(&mut self, now: Timestamp, per_minute: u32) -> SignedDuration {
        let (used_until, wait) = turn(self.used_until, now, per_minute);
        self.used_until = used_until;
        if wait.is_zero() {
            let text = format!("{used_until}\n");
            let _ = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.set_len(0));
            let _ = self.file.write_all(text.as_bytes());
        }
        wait
    }
}

/// The rate as pure arithmetic: how far it is used up afterwards, and how long to wait first.
fn turn(used_until: Timestamp, now: Timestamp, per_minute: u32) -> (Timestamp, SignedDuration) {
    let each = SignedDuration::from_millis(60_000 / i64::from(per_minute.max(1)));
    let room = each.saturating_mul(i32::try_from(BURST).unwrap_or(1));
    // A clock that was set back must not stop a channel.
    let latest = now.saturating_add(room.saturating_add(each)).unwrap_or(now);
    let used_until = if used_until > latest { now } else { used_until.max(now) };
    let ahead = used_until.duration_since(now);
    if ahead > room {
        return (used_until, ahead.saturating_sub(room));
    }
    (used_until.saturating_add(each).unwrap_or(used_until), SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_minute_has_more_messages_than_allowed(per_minute in 1_u32..200, seed in 0_i64..1000) {
            let mut now = Timestamp::from_second(1_000_000 + seed).unwrap();
            let (mut used, mut sent) = (Timestamp::MIN, Vec::new());
            for _ in 0..300 {
                let (until, wait) = turn(used, now, per_minute);
                used = until;
                if wait.is_zero() { sent.push(now) } else { now += wait }
            }
            for window in sent.windows(usize::try_from(per_minute).unwrap() + 7) {
                prop_assert!(window[window.len() - 1].duration_since(window[0]) >= SignedDuration::from_secs(59));
            }
        }
    }
}
