//! When to attach again after a connection ended.
//!
//! A server that restarts, or that takes its time to load, is asked once a second, however long it was away: what is written
//! before somebody follows it would be lost with it. One that refuses is asked less and less, and so is one whose snapshot broke
//! off, because every snapshot costs it a child.

use std::time::Duration;

use tokio::time::Instant;

use super::decide::pause;

/// A connection that lasted so long was no failure.
const LASTING: Duration = Duration::from_secs(1);
/// The longest pause while a server is away.
const AWAY: Duration = Duration::from_secs(1);
/// A server that cannot be followed for so long is worth an alarm.
const ALARM: Duration = Duration::from_secs(25);

/// How far an attempt had come when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum CameTo {
    /// The server did not say that it takes us.
    #[default]
    Nothing,
    /// It was asked for the stream, and may have begun with a snapshot.
    Asked,
    /// The stream went on.
    Stream {
        /// When it began to.
        at: Instant,
        /// Behind a snapshot, which the next attempt might need again.
        anew: bool,
        /// Whether a whole command came.
        further: bool,
    },
}

/// What is to be said of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It is the first one.
    First,
    /// They go on for too long.
    Alarm,
    /// Nothing that was not said before.
    Nothing,
}

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u32,
    since: Option<Instant>,
    told: bool,
}

impl Failures {
    /// Notes one more: how long to wait now, and what to say. `may_pass` is of the error.
    pub(super) fn note(&mut self, came_to: CameTo, may_pass: bool, now: Instant) -> (Duration, Word) {
        if is_success(came_to, now) {
            *self = Self::default();
        }
        self.count += 1;
        let since = *self.since.get_or_insert(now);
        let most = if may_pass && is_cheap(came_to) { AWAY } else { Duration::MAX };
        let word = match self.count {
            1 => Word::First,
            _ if !self.told && now.duration_since(since) >= ALARM => Word::Alarm,
            _ => Word::Nothing,
        };
        self.told |= word == Word::Alarm;
        (pause(self.count).min(most), word)
    }
}

/// Whether another attempt like this one costs the server nothing.
fn is_cheap(came_to: CameTo) -> bool {
    match came_to {
        CameTo::Nothing => true,
        CameTo::Asked => false,
        CameTo::Stream { anew, .. } => !anew,
    }
}

/// Whether an attempt was worth it, so that what comes now is the first failure.
fn is_success(came_to: CameTo, now: Instant) -> bool {
    match came_to {
        CameTo::Nothing | CameTo::Asked => false,
        CameTo::Stream { at, anew, further } => (further && !anew) || now.duration_since(at) > LASTING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses of attempts that all end so, at once, for so long.
    fn pauses(came_to: impl Fn(Instant) -> CameTo, may_pass: bool, seconds: u64) -> (Vec<u64>, Vec<Word>) {
        let (begin, mut failures) = (Instant::now(), Failures::default());
        let (mut at, mut pauses, mut words) = (begin, Vec::new(), Vec::new());
        while at < begin + Duration::from_secs(seconds) {
            let (pause, word) = failures.note(came_to(at), may_pass, at);
            pauses.push(pause.as_millis() as u64);
            words.push(word);
            at += pause;
        }
        (pauses, words)
    }

    #[test]
    fn a_server_that_is_away_is_asked_every_second_and_one_that_refuses_less_and_less() {
        let (away, words) = pauses(|_| CameTo::Nothing, true, 60);
        assert_eq!(away[..5], [100, 200, 400, 800, 1000]);
        assert!(away[4..].iter().all(|pause| *pause == 1000));
        assert_eq!(words[0], Word::First);
        assert_eq!(words.iter().filter(|word| **word == Word::Alarm).count(), 1, "{words:?}");
        let (refused, words) = pauses(|_| CameTo::Nothing, false, 60);
        assert_eq!(refused[..8], [100, 200, 400, 800, 1600, 3200, 6400, 6400]);
        assert_eq!(words.iter().filter(|word| **word == Word::Alarm).count(), 1, "{words:?}");
    }

    #[test]
    fn snapshots_that_break_off_are_asked_for_less_and_less() {
        let (broken, _) = pauses(|_| CameTo::Asked, true, 30);
        assert_eq!(broken.last(), Some(&6400));
        // The stream behind one broke off at once: the next attempt may need another.
        let (broken, _) = pauses(|at| CameTo::Stream { at, anew: true, further: true }, true, 30);
        assert_eq!(broken.last(), Some(&6400));
    }

    #[test]
    fn a_connection_that_was_worth_it_begins_the_count_anew() {
        let (begin, mut failures) = (Instant::now(), Failures::default());
        for _ in 0..9 {
            failures.note(CameTo::Nothing, false, begin);
        }
        let further = CameTo::Stream { at: begin, anew: false, further: true };
        assert_eq!(failures.note(further, true, begin), (Duration::from_millis(100), Word::First));
        let nothing_came = CameTo::Stream { at: begin, anew: false, further: false };
        assert_eq!(failures.note(nothing_came, true, begin), (Duration::from_millis(200), Word::Nothing));
        let lasted = begin + Duration::from_secs(2);
        let anew = CameTo::Stream { at: begin, anew: true, further: false };
        assert_eq!(failures.note(anew, true, lasted), (Duration::from_millis(100), Word::First));
    }
}
