//! What follows from the outcome of an attempt: pure, with time and chance handed in.
//!
//! | outcome | what is known | what follows |
//! |---|---|---|
//! | accepted | the channel has it | done |
//! | limited | it does not, and wants to be left alone | not before it said; the whole channel waits |
//! | later | it does not | again, twice as long each time, at most an eighth of the time that it failed so far (but 15 s), or a quarter of an hour |
//! | unknown | it may | again; a channel that cannot tell repetitions apart gets one repetition, then the fallback |
//! | refused | it never will | given up, and said through another channel |
//!
//! Whatever fails for a while is told through the fallback too, once, and keeps being tried.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::record::{Attempted, Phase};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The channel has it; with what it calls the thread, where it calls it anything.
    Accepted {
        /// Message, issue or incident of the channel.
        reference: Option<String>,
    },
    /// The channel does not have it and wants to be left alone.
    Limited {
        /// For how long, where it said so.
        retry_after: Option<Duration>,
        /// Its words.
        problem: String,
    },
    /// The channel does not have it, for the moment.
    Later {
        /// Its words.
        problem: String,
    },
    /// The channel may have it: the answer is missing.
    Unknown {
        /// What is known.
        problem: String,
    },
    /// The channel will never take it.
    Refused {
        /// Its words.
        problem: String,
    },
}

/// The numbers of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// Wait after the first failure.
    pub first_wait: SignedDuration,
    /// Longest wait.
    pub longest_wait: SignedDuration,
    /// Wait after a limit without a time of its own.
    pub limit_wait: SignedDuration,
    /// How long delivery is tried.
    pub give_up_after: SignedDuration,
    /// How long a channel may fail before its fallback is used.
    pub fallback_after: SignedDuration,
    /// Age from which a message is late.
    pub late_after: SignedDuration,
}

impl Default for Rules {
    fn default() -> Self {
        let seconds = SignedDuration::from_secs;
        Self {
            first_wait: seconds(5),
            longest_wait: seconds(900),
            limit_wait: seconds(30),
            give_up_after: seconds(3 * 86_400),
            fallback_after: seconds(120),
            late_after: seconds(600),
        }
    }
}

/// What else has to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing.
    Nothing,
    /// The same is told through the fallback.
    FallBack {
        /// Why.
        problem: String,
    },
    /// Nobody will be told through this channel: an alarm through another one.
    GivenUp {
        /// Why.
        problem: String,
    },
}

/// What is known of the channel and the parcel.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// When the notice was written.
    pub created: Timestamp,
    /// The time.
    pub now: Timestamp,
    /// Whether the channel tells repetitions apart.
    pub is_idempotent: bool,
    /// Chance, from 0 to 1.
    pub chance: f64,
}

/// The state after an attempt that ended so, and what else has to happen.
#[must_use]
pub fn after(
    mut state: Attempted,
    outcome: &Outcome,
    at: Circumstances,
    rules: &Rules,
) -> (Attempted, Consequence) {
    let Circumstances { now, .. } = at;
    state.written = now;
    state.is_limited = false;
    state.attempts = state.attempts.saturating_add(1);
    state.phase = Phase::Waiting;
    if state.unknown == 0 && !matches!(outcome, Outcome::Accepted { .. } | Outcome::Unknown { .. }) {
        // Nothing of it arrived, so the next attempt may tell more, or less.
        state.group.clear();
    }
    let problem = match outcome {
        Outcome::Accepted { .. } => {
            state.phase = Phase::Accepted;
            state.problem = None;
            return (state, Consequence::Nothing);
        }
        Outcome::Refused { problem } => {
            state.phase = Phase::Dead;
            state.problem = Some(problem.clone());
            return (state, Consequence::GivenUp { problem: problem.clone() });
        }
        Outcome::Limited { problem, .. } | Outcome::Later { problem } | Outcome::Unknown { problem } => {
            problem.clone()
        }
    };
    state.problem = Some(problem.clone());
    let failing_since = *state.failing_since.get_or_insert(now);
    // Who takes a connection is there again: the failures of a day without network say nothing about it.
    let tries = match outcome {
        Outcome::Unknown { .. } => state.unknown.saturating_add(1),
        _ => state.attempts,
    };
    let wait = backoff(tries, rules, at.chance);
    let wait = match outcome {
        // Who was out for a minute is asked within seconds after it is back, who was out for a day within minutes.
        Outcome::Later { .. } => {
            wait.min((now.duration_since(failing_since) / 8).max(rules.first_wait.saturating_mul(3)))
        }
        _ => wait,
    };
    let wait = match outcome {
        Outcome::Limited { retry_after: Some(asked), .. } => {
            state.is_limited = true;
            // It is there and says when: after that, a day of failures before counts for little.
            let least = wait.min(rules.limit_wait);
            least.max(SignedDuration::try_from(*asked).unwrap_or(SignedDuration::MAX))
        }
        Outcome::Limited { retry_after: None, .. } => {
            state.is_limited = true;
            wait.max(rules.limit_wait)
        }
        _ => wait,
    };
    state.not_before = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
    if let Outcome::Unknown { .. } = outcome {
        state.unknown = state.unknown.saturating_add(1);
    }
    if let Some(end) = hopeless(&mut state, at, rules, &problem) {
        return (state, end);
    }
    let failing = now.duration_since(failing_since).saturating_add(wait);
    if !state.fell_back && failing >= rules.fallback_after {
        state.fell_back = true;
        return (state, Consequence::FallBack { problem });
    }
    (state, Consequence::Nothing)
}

/// Ends what can only get worse: a third copy, or a message of last week.
fn hopeless(state: &mut Attempted, at: Circumstances, rules: &Rules, problem: &str) -> Option<Consequence> {
    if !at.is_idempotent && state.unknown >= 2 {
        state.phase = Phase::Unconfirmed;
        let problem = format!("sent twice without an answer, so it is not sent again: {problem}");
        return Some(Consequence::GivenUp { problem });
    }
    let tried_since = state.failing_since.unwrap_or(at.now).max(at.created);
    let last = tried_since.saturating_add(rules.give_up_after).unwrap_or(Timestamp::MAX);
    if state.not_before > last.max(at.now) {
        state.phase = Phase::Dead;
        let problem = format!("given up after {} attempts: {problem}", state.attempts);
        return Some(Consequence::GivenUp { problem });
    }
    None
}

/// Twice as long each time, a fifth more or less by chance.
fn backoff(attempts: u32, rules: &Rules, chance: f64) -> SignedDuration {
    let doublings = attempts.saturating_sub(1).min(16);
    let wait = rules.first_wait.saturating_mul(1 << doublings).min(rules.longest_wait);
    let factor = 0.8 + 0.4 * chance.clamp(0.0, 1.0);
    SignedDuration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(wait)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn here(now: i64, is_idempotent: bool) -> Circumstances {
        Circumstances { created: at(1000), now: at(now), is_idempotent, chance: 0.5 }
    }

    fn limited(seconds: u64) -> Outcome {
        Outcome::Limited { retry_after: Some(Duration::from_secs(seconds)), problem: "429".to_owned() }
    }

    #[test]
    fn a_limit_is_kept_to_the_second_and_a_second_copy_is_the_last() {
        let rules = Rules::default();
        let (state, consequence) = after(Attempted::fresh(at(1000)), &limited(90), here(1000, false), &rules);
        assert!(state.is_limited && state.not_before == at(1090));
        assert_eq!(consequence, Consequence::Nothing);
        let unknown = Outcome::Unknown { problem: "no answer".to_owned() };
        let (state, _) = after(Attempted::fresh(at(1000)), &unknown, here(1000, false), &rules);
        assert_eq!(state.phase, Phase::Waiting);
        let (state, consequence) = after(state, &unknown, here(1010, false), &rules);
        assert_eq!(state.phase, Phase::Unconfirmed);
        assert!(matches!(consequence, Consequence::GivenUp { .. }));
    }

    #[test]
    fn what_waits_longer_than_the_fallback_allows_is_told_otherwise_once() {
        let rules = Rules::default();
        let (state, consequence) = after(Attempted::fresh(at(1000)), &limited(600), here(1000, true), &rules);
        assert!(matches!(consequence, Consequence::FallBack { .. }) && state.fell_back);
        let (_, consequence) = after(state, &limited(600), here(1600, true), &rules);
        assert_eq!(consequence, Consequence::Nothing);
    }

    #[test]
    fn an_answer_that_was_lost_after_a_long_outage_is_asked_for_again_soon() {
        let rules = Rules::default();
        let (mut state, mut now) = (Attempted::fresh(at(1000)), 1000);
        for _ in 0..12 {
            (state, _) = after(state, &Outcome::Later { problem: "x".to_owned() }, here(now, true), &rules);
            now = state.not_before.as_second();
        }
        let lost = Outcome::Unknown { problem: "no answer".to_owned() };
        let (state, _) = after(state, &lost, here(now, true), &rules);
        assert_eq!(state.not_before, at(now + 5));
        let (state, _) = after(state, &lost, here(now, true), &rules);
        assert_eq!(state.not_before, at(now + 10), "and less often while it stays silent");
    }

    proptest! {
        #[test]
        fn nothing_is_tried_early_or_for_ever(asked in 0_u64..200_000, chance in 0.0..1.0_f64, steps in 1_usize..60) {
            let rules = Rules::default();
            let mut state = Attempted::fresh(at(1000));
            let mut now = at(1000);
            for step in 0..steps {
                let outcome = if step % 3 == 0 { limited(asked) } else { Outcome::Later { problem: "x".to_owned() } };
                let was = now;
                let circumstances = Circumstances { created: at(1000), now, is_idempotent: true, chance };
                let (next, _) = after(state, &outcome, circumstances, &rules);
                if next.phase.is_settled() {
                    prop_assert!(next.not_before > at(1000) + rules.give_up_after);
                    return Ok(());
                }
                prop_assert!(next.not_before > was);
                if step % 3 == 0 {
                    prop_assert!(next.not_before.duration_since(was).as_secs() >= i64::try_from(asked).unwrap());
                } else {
                    prop_assert!(next.not_before.duration_since(was) <= SignedDuration::from_secs(1081));
                }
                now = next.not_before;
                state = next;
            }
        }
    }
}
