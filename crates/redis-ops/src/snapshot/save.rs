//! `BGSAVE`, and the right way to wait for it.
//!
//! `LASTSAVE` has a resolution of a second and does not move when a save fails, so it cannot tell the end. `INFO
//! persistence` can, together with the server's own clock; [`judge`] is that decision.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::server::{Info, Server};
use crate::source::Address;

use super::pump::Input;

const POLL: Duration = Duration::from_millis(100);

/// What `INFO persistence` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persistence {
    /// Whether a background save runs.
    pub in_progress: bool,
    /// Whether the last one that ended succeeded.
    pub last_ok: bool,
    /// When the last one that succeeded ended, in seconds by the server's clock.
    pub last_save: i64,
    /// Background saves that began; servers before 7.0 do not say.
    pub begun: Option<i64>,
}

impl Persistence {
    /// Out of `INFO persistence`.
    #[must_use]
    pub fn of(info: &Info) -> Self {
        Self {
            in_progress: info.is_on("rdb_bgsave_in_progress"),
            last_ok: info.get("rdb_last_bgsave_status") == Some("ok"),
            last_save: info.number("rdb_last_save_time").unwrap_or_default(),
            begun: info.number("rdb_saves"),
        }
    }
}

/// Whether a background save that was asked for is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Not yet.
    Waiting,
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
}

/// Judges by the state before it was asked for, the state now, whether it was seen running in between, and when it was
/// asked for by the server's clock.
#[must_use]
pub fn judge(before: &Persistence, now: &Persistence, seen_running: bool, asked_at: i64) -> Judgement {
    if now.in_progress {
        return Judgement::Waiting;
    }
    let more_begun = matches!((before.begun, now.begun), (Some(before), Some(now)) if now > before);
    let over = seen_running || more_begun || now.last_save > before.last_save;
    match (over, now.last_ok) {
        (false, _) => Judgement::Waiting,
        (true, true) if now.last_save >= asked_at => Judgement::Done,
        (true, true) => Judgement::Waiting,
        (true, false) => Judgement::Failed,
    }
}

/// Saves on the server's disk and opens the file. Says also when it was asked for, by the server's clock.
pub(super) async fn save(
    server: &mut Server,
    file: Option<&PathBuf>,
    patience: Duration,
) -> Result<(Input, i64), Error> {
    let address = server.endpoint().address.clone();
    let path = match file {
        Some(path) => path.clone(),
        None => snapshot_file(server, &address).await?,
    };
    let deadline = Instant::now() + patience;
    wait_for_others(server, &address, deadline).await?;
    let before = state(server).await?;
    let asked_at = server.time().await?;
    let mut seen_running = ask(server, &address, deadline).await?;
    loop {
        let now = state(server).await?;
        seen_running |= now.in_progress;
        match judge(&before, &now, seen_running, asked_at) {
            Judgement::Done => break,
            Judgement::Failed => {
                return Err(Error::Save { address, problem: "the server says so".to_owned() });
            }
            Judgement::Waiting => pause(&address, deadline).await?,
        }
    }
    let shown = path.display().to_string();
    let opened = tokio::fs::File::open(&path).await;
    let file = opened.map_err(|source| Error::File { op: "open", path: shown.clone(), source })?;
    Ok((Input::File(file, shown), asked_at))
}

async fn state(server: &mut Server) -> Result<Persistence, Error> {
    Ok(Persistence::of(&server.info(Some("persistence")).await?))
}

async fn pause(address: &Address, deadline: Instant) -> Result<(), Error> {
    if Instant::now() >= deadline {
        let problem = "it did not end in time".to_owned();
        return Err(Error::Save { address: address.clone(), problem });
    }
    tokio::time::sleep(POLL).await;
    Ok(())
}

/// A save that runs already began before now; its state is too old.
async fn wait_for_others(server: &mut Server, address: &Address, deadline: Instant) -> Result<(), Error> {
    while state(server).await?.in_progress {
        pause(address, deadline).await?;
    }
    Ok(())
}

/// Whether it runs already; else it is to run.
async fn ask(server: &mut Server, address: &Address, deadline: Instant) -> Result<bool, Error> {
    loop {
        match server.ask(&["BGSAVE"], "BGSAVE").await {
            // The server forks before it answers. A small one may be done before it is looked at.
            Ok(_) => return Ok(true),
            Err(Error::Refused { words, .. }) if words.contains("already in progress") => {
                pause(address, deadline).await?;
            }
            // While the append-only file is rewritten a save can only be put behind it.
            Err(Error::Refused { words, .. }) if words.contains("child") || words.contains("AOF") => {
                server.ask(&["BGSAVE", "SCHEDULE"], "BGSAVE").await?;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
}

async fn snapshot_file(server: &mut Server, address: &Address) -> Result<PathBuf, Error> {
    let mut path = PathBuf::new();
    for name in ["dir", "dbfilename"] {
        let settings = server.settings(name).await?;
        match settings.into_iter().find(|(key, value)| key == name && !value.is_empty()) {
            Some((_, value)) => path.push(value),
            None => {
                let problem = format!("it does not say where its file is ({name}): name it with --rdb-file");
                return Err(Error::Save { address: address.clone(), problem });
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Persistence =
        Persistence { in_progress: false, last_ok: true, last_save: 100, begun: Some(4) };

    fn now(in_progress: bool, last_ok: bool, last_save: i64, begun: Option<i64>) -> Persistence {
        Persistence { in_progress, last_ok, last_save, begun }
    }

    #[test]
    fn a_save_is_over_only_when_it_was_ours() {
        use Judgement::{Done, Failed, Waiting};
        for (state, seen, asked_at, expected, why) in [
            (now(true, true, 100, Some(5)), true, 100, Waiting, "it runs"),
            (
                now(false, true, 100, Some(4)),
                false,
                100,
                Waiting,
                "a save of the same second that was not ours",
            ),
            (now(false, true, 100, Some(5)), false, 100, Done, "begun and ended within the second"),
            (now(false, true, 107, Some(5)), false, 105, Done, "too quick to be seen"),
            (now(false, false, 100, Some(5)), false, 105, Failed, "too quick to be seen failing"),
            (now(false, false, 100, Some(5)), true, 105, Failed, "seen and failed"),
            (now(false, true, 104, Some(5)), false, 105, Waiting, "ended before it was asked for"),
            (now(false, true, 106, None), false, 105, Done, "a server that does not count"),
        ] {
            assert_eq!(judge(&BEFORE, &state, seen, asked_at), expected, "{why}");
        }
        let failed_before = Persistence { last_ok: false, ..BEFORE };
        let scheduled = now(false, false, 100, Some(4));
        assert_eq!(judge(&failed_before, &scheduled, false, 105), Judgement::Waiting, "not begun yet");
    }
}
