//! Delivers what waits: every channel by itself, at the same time, each under its lock.
//!
//! One attempt, and what survives a kill after each step:
//!
//! ```text
//! 1 intent written     → an attempt of unknown outcome: repeated (once, where repetitions cannot be told apart)
//! 2 message sent       → the same
//! 3 thread remembered  → the same
//! 4 fallback enqueued  → its id keeps it from being enqueued again
//! 5 outcome written    → the next round goes on from here
//! 6 parcel closed      → done; closing is repeated where it was cut off
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::lock::LaneLock;
use super::report::{Delivered, GivenUp, Report, Waiting};
use super::{JOURNAL, Notifier, NotifyError};
use crate::channel::Message;
use crate::notice::{Kind, Notice};
use crate::outbox::lane::{self, Item, Next, is_late};
use crate::outbox::schedule::{self, Circumstances};
use crate::outbox::{Attempted, Consequence, Finding, Outcome, Parcel, Pending, Phase, SpoolError};
use crate::severity::Severity;

/// How long another process may keep a channel before we leave our messages to it.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);
/// Time for one attempt as a whole, whatever a channel does in it.
const ATTEMPT: Duration = Duration::from_secs(120);
/// Problems are kept up to this many characters.
const PROBLEM: usize = 500;

/// One channel's work in one round.
pub(super) struct Lane<'a> {
    pub(super) notifier: &'a Notifier,
    pub(super) name: &'a str,
    lock: LaneLock,
    report: Report,
    patience: Duration,
}

impl Notifier {
    /// Delivers everything that is due, and closes what is finished.
    pub(super) async fn deliver_now(
        &self,
        cancel: &CancellationToken,
        patience: Duration,
    ) -> Result<Report, NotifyError> {
        let mut report = Report::default();
        for _ in 0..3 {
            // What fails may have put new parcels, for other channels, into the outbox.
            let (parcels, findings) = self.spool.parcels().await?;
            report.damaged.extend(self.alarm_of_damage(&findings).await?);
            let lanes: BTreeSet<String> = parcels.into_values().flat_map(|parcel| parcel.channels).collect();
            report.waiting.clear();
            let ends = join_all(lanes.iter().map(|name| self.lane(name, cancel, patience))).await;
            let mut is_more = false;
            for end in ends {
                let end = end?.unwrap_or_default();
                is_more |= !end.given_up.is_empty()
                    || !end.damaged.is_empty()
                    || end.waiting.iter().any(|waiting| waiting.attempts > 0);
                report.add(end);
            }
            if !is_more || cancel.is_cancelled() {
                break;
            }
        }
        self.spool.close_settled(self.now()).await?;
        Ok(report)
    }

    /// One channel's work: everything that is due, under its lock. `None` when another process keeps that.
    pub(super) async fn lane(
        &self,
        name: &str,
        cancel: &CancellationToken,
        patience: Duration,
    ) -> Result<Option<Report>, NotifyError> {
        let failed = |error: std::io::Error| {
            let what = self.locks.display().to_string();
            let source =
                backstay_backup_core::store::StoreError::Failed { op: "lock", what, source: error.into() };
            SpoolError::Store { op: "lock", location: self.spool.location(), source }
        };
        let Some(lock) = LaneLock::acquire(&self.locks, name, LOCK_PATIENCE).await.map_err(failed)? else {
            tracing::debug!(channel = name, "another process is at it");
            return Ok(None);
        };
        let mut lane = Lane { notifier: self, name, lock, report: Report::default(), patience };
        lane.work(cancel).await?;
        Ok(Some(lane.report))
    }

    /// Says what is damaged, to people and in words for a report, and puts it aside.
    pub(super) async fn alarm_of_damage(&self, findings: &[Finding]) -> Result<Vec<String>, NotifyError> {
        for finding in findings {
            let id = format!("damaged~{}", finding.object.replace('/', "-"));
            let mut notice =
                Notice::new(&id, "outbox", Kind::Alarm, Severity::P1, self.now(), "the outbox was damaged");
            notice.text = format!(
                "{} could not be read ({}). If it was a message, nobody was told of it; its bytes are kept beside the outbox.",
                finding.object, finding.problem
            );
            notice.source.clone_from(&self.setup.identity);
            let mut parcel = Parcel::new(Some(notice), self.setup.policy.channels(Severity::P1), None);
            parcel.is_fallback = true;
            self.enqueue(&parcel).await?;
            // Only now, so that whoever dies in between says it again.
            self.spool.put_aside(finding).await?;
        }
        Ok(findings.iter().map(|finding| format!("{}: {}", finding.object, finding.problem)).collect())
    }
}

impl Lane<'_> {
    async fn work(&mut self, cancel: &CancellationToken) -> Result<(), NotifyError> {
        loop {
            let (pending, findings) = self.notifier.spool.load_lane(self.name).await?;
            // Parcels are the business of whoever looks at all of them.
            let states: Vec<Finding> =
                findings.into_iter().filter(|finding| finding.object.starts_with("state/")).collect();
            for damaged in self.notifier.alarm_of_damage(&states).await? {
                if !self.report.damaged.contains(&damaged) {
                    self.report.damaged.push(damaged);
                }
            }
            let newest = pending.last().map(|pending| pending.seq);
            let mut mine: Vec<Pending> = pending
                .into_iter()
                .filter(|pending| pending.parcel.channels.iter().any(|name| name == self.name))
                .collect();
            for (seq, state) in
                mine.iter().map(|pending| (pending.seq, pending.state(self.name))).collect::<Vec<_>>()
            {
                if let Some(state) = state.rebased(self.notifier.now()) {
                    self.write(&mut mine, seq, state).await?;
                }
            }
            let mut worked = false;
            while let Some(again) = self.step(&mut mine, cancel).await? {
                worked |= again;
                // Something new may be worse than all that was there before.
                if !again || cancel.is_cancelled() || self.notifier.spool.newest().await? > newest {
                    break;
                }
            }
            // Another process may have enqueued something meanwhile, which counts on whoever holds the lock.
            if !worked || cancel.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// One decision and what it asks for: whether something was done, or `None` when nothing is left to do.
    async fn step(
        &mut self,
        mine: &mut [Pending],
        cancel: &CancellationToken,
    ) -> Result<Option<bool>, NotifyError> {
        let items: Vec<Item> = mine.iter().filter_map(|pending| item(pending, self.name)).collect();
        let now = self.notifier.now();
        match lane::next(&items, now, &self.notifier.setup.rules) {
            Next::Idle => {
                self.report.waiting.clear();
                Ok(None)
            }
            Next::Wait { until } => {
                if self.waits(until.duration_since(now), cancel).await {
                    return Ok(Some(true));
                }
                self.report.waiting = items
                    .iter()
                    .filter(|item| !item.state.phase.is_settled())
                    .map(|item| self.waiting(item, mine, until))
                    .collect();
                Ok(Some(false))
            }
            Next::Drop { seq } => {
                let mut state = state_of(mine, seq, self.name);
                state.phase = Phase::Superseded;
                self.write(mine, seq, state).await?;
                Ok(Some(true))
            }
            Next::Send { seq, group } => self.send(mine, seq, group, cancel).await,
        }
    }

    fn waiting(&self, item: &Item, mine: &[Pending], until: Timestamp) -> Waiting {
        let id = mine.iter().find(|pending| pending.seq == item.seq).map(|pending| pending.parcel.id());
        Waiting {
            channel: self.name.to_owned(),
            notice: id.unwrap_or_default(),
            attempts: item.state.attempts,
            until: Some(item.state.due().max(until)),
            problem: item.state.problem.clone(),
        }
    }

    /// Waits in place where that is short and worth it.
    async fn waits(&mut self, wait: SignedDuration, cancel: &CancellationToken) -> bool {
        let Ok(wait) = Duration::try_from(wait) else { return false };
        if wait > self.patience || cancel.is_cancelled() {
            return false;
        }
        self.patience -= wait;
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = cancel.cancelled() => false,
        }
    }

    async fn write(&self, mine: &mut [Pending], seq: u64, state: Attempted) -> Result<(), NotifyError> {
        self.notifier.spool.write_state(seq, self.name, &state).await?;
        if let Some(pending) = mine.iter_mut().find(|pending| pending.seq == seq) {
            pending.states.insert(self.name.to_owned(), state);
        }
        Ok(())
    }

    async fn send(
        &mut self,
        mine: &mut [Pending],
        seq: u64,
        group: Vec<u64>,
        cancel: &CancellationToken,
    ) -> Result<Option<bool>, NotifyError> {
        let notifier = self.notifier;
        let Some(parcel) =
            mine.iter().find(|pending| pending.seq == seq).map(|pending| pending.parcel.clone())
        else {
            return Ok(None);
        };
        let mut state = state_of(mine, seq, self.name).resumed(notifier.now());
        let channel = notifier.setup.registry.channels.get(self.name);
        if let (Some(channel), Some(notice)) = (channel, &parcel.notice)
            && !channel.takes(notice)
        {
            state.phase = Phase::Superseded;
            self.write(mine, seq, state).await?;
            return Ok(Some(true));
        }
        let is_idempotent = channel.is_none_or(|channel| channel.is_idempotent());
        let circumstances =
            |now, created| Circumstances { created, now, is_idempotent, chance: rand::random() };
        let created = parcel.notice.as_ref().map_or_else(|| notifier.now(), |notice| notice.created);
        if !is_idempotent && state.unknown >= 2 {
            // Both attempts were cut off; a third message would be one too many.
            let outcome = Outcome::Unknown { problem: state.problem.clone().unwrap_or_default() };
            return self
                .conclude(mine, (seq, &parcel), state, &outcome, circumstances(notifier.now(), created))
                .await;
        }
        if let Some(channel) = channel {
            let limit = notifier
                .setup
                .registry
                .per_minute
                .get(self.name)
                .copied()
                .unwrap_or_else(|| channel.per_minute());
            let wait = self.lock.take_turn(notifier.now(), limit);
            if !wait.is_zero() {
                let until = notifier.now().saturating_add(wait).unwrap_or(Timestamp::MAX);
                if self.waits(wait, cancel).await {
                    return Ok(Some(true));
                }
                let items = mine.iter().filter_map(|pending| item(pending, self.name));
                let open: Vec<Item> = items.filter(|item| !item.state.phase.is_settled()).collect();
                self.report.waiting = open.iter().map(|item| self.waiting(item, mine, until)).collect();
                return Ok(Some(false));
            }
        }
        if let Some(Err(problem)) = match channel {
            Some(channel) => Some(channel.reach().await),
            None => None,
        } {
            // Nothing was sent, and that is certain whatever happens to this process: no intent needs to be written.
            let outcome = Outcome::Later { problem };
            return self
                .conclude(mine, (seq, &parcel), state, &outcome, circumstances(notifier.now(), created))
                .await;
        }
        state.phase = Phase::Trying;
        state.group = group;
        state.written = notifier.now();
        self.write(mine, seq, state.clone()).await?;
        let attempt = self.attempt(&parcel, mine, &state);
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(ATTEMPT, attempt) => match outcome {
                Ok(outcome) => outcome?,
                Err(_) => Outcome::Unknown { problem: format!("no end within {ATTEMPT:?}") },
            },
            () = cancel.cancelled() => Outcome::Unknown { problem: "stopped during the attempt".to_owned() },
        };
        self.conclude(mine, (seq, &parcel), state, &outcome, circumstances(notifier.now(), created)).await
    }

    /// Sends one message.
    async fn attempt(
        &self,
        parcel: &Parcel,
        mine: &[Pending],
        state: &Attempted,
    ) -> Result<Outcome, NotifyError> {
        let notifier = self.notifier;
        if self.name == JOURNAL {
            let Some(event) = &parcel.event else { return Ok(Outcome::Accepted { reference: None }) };
            return Ok(match notifier.journal.append(event).await {
                Ok(()) => Outcome::Accepted { reference: None },
                Err(error) => Outcome::Later { problem: backstay_backup_core::error::describe(&error) },
            });
        }
        let Some(notice) = &parcel.notice else { return Ok(Outcome::Accepted { reference: None }) };
        let Some(channel) = notifier.setup.registry.channels.get(self.name) else {
            let gone = notifier.setup.registry.unavailable.iter().find(|gone| gone.channel == self.name);
            let problem =
                gone.map_or_else(|| "it is not configured any more".to_owned(), |gone| gone.problem.clone());
            return Ok(Outcome::Later { problem });
        };
        let now = notifier.now();
        let later: Vec<&Notice> = mine
            .iter()
            .filter(|pending| state.group.contains(&pending.seq))
            .filter_map(|pending| pending.parcel.notice.as_ref())
            .collect();
        let late =
            is_late(notice.created, now, &notifier.setup.rules).then(|| now.duration_since(notice.created));
        let letter =
            notifier.setup.templates.letter(notice, &later, self.name, late, &notifier.setup.redactor);
        // A merged message shows where things stand now, not where they stood when it was first due.
        let shown = later.last().map_or_else(
            || notice.clone(),
            |last| Notice { id: notice.id.clone(), created: notice.created, ..(*last).clone() },
        );
        let reference = notifier.spool.reference(self.name, &notice.thread).await?;
        let message = Message::new(&shown, &letter, now).reference(reference.as_deref());
        let outcome = channel.deliver(&message).await;
        if let Outcome::Accepted { reference: Some(reference) } = &outcome {
            notifier.spool.keep_reference(self.name, &notice.thread, reference).await?;
        }
        Ok(outcome)
    }

    /// Writes an outcome down, after what follows from it.
    async fn conclude(
        &mut self,
        mine: &mut [Pending],
        (seq, parcel): (u64, &Parcel),
        state: Attempted,
        outcome: &Outcome,
        circumstances: Circumstances,
    ) -> Result<Option<bool>, NotifyError> {
        let merged = state.group.len();
        let mut rules = self.notifier.setup.rules;
        if self.name == JOURNAL {
            // An event that is not kept would leave its incident open, or unknown, on every other host.
            rules.give_up_after = SignedDuration::MAX;
        }
        let (mut state, consequence) = schedule::after(state, outcome, circumstances, &rules);
        let clean = |problem: &str| {
            let problem = crate::render::clean_line(&self.notifier.setup.redactor.clean(problem));
            crate::render::fit(&problem, PROBLEM, crate::render::Unit::Chars)
        };
        state.problem = state.problem.as_deref().map(clean);
        match &consequence {
            Consequence::Nothing => {}
            Consequence::FallBack { problem } => self.fall_back(seq, parcel, &clean(problem)).await?,
            Consequence::GivenUp { problem } => self.alarm(parcel, &clean(problem)).await?,
        }
        let (notice, attempts) = (parcel.id(), state.attempts);
        let channel = self.name.to_owned();
        if state.phase == Phase::Accepted {
            self.report.delivered.push(Delivered { channel, notice, attempts, merged });
        } else if let Consequence::GivenUp { problem } = consequence {
            self.report.given_up.push(GivenUp { channel, notice, problem: clean(&problem) });
        }
        let is_there = state.phase == Phase::Accepted;
        self.write(mine, seq, state).await?;
        if is_there {
            self.wake_others(mine).await?;
        }
        Ok(Some(true))
    }

    /// The channel is there: what waits only because it was not is due now. What failed a moment ago is not, or a message
    /// that a service cannot digest would be sent with every other one.
    async fn wake_others(&self, mine: &mut [Pending]) -> Result<(), NotifyError> {
        let now = self.notifier.now();
        let rested = self.notifier.setup.rules.first_wait;
        let sleeps = |state: &Attempted| {
            state.phase == Phase::Waiting
                && state.attempts > 0
                && state.unknown == 0
                && !state.is_limited
                && state.not_before > now
                && now.duration_since(state.written) >= rested
        };
        let states = mine.iter().map(|pending| (pending.seq, pending.state(self.name)));
        for (seq, mut state) in states.filter(|(_, state)| sleeps(state)).collect::<Vec<_>>() {
            (state.written, state.not_before) = (now, now);
            self.write(mine, seq, state).await?;
        }
        Ok(())
    }
}

fn state_of(mine: &[Pending], seq: u64, lane: &str) -> Attempted {
    let pending = mine.iter().find(|pending| pending.seq == seq);
    pending.map_or_else(|| Attempted::fresh(Timestamp::MIN), |pending| pending.state(lane).recovered())
}

/// A parcel as one lane sees it.
fn item(pending: &Pending, lane: &str) -> Option<Item> {
    let state = pending.state(lane).recovered();
    if lane == JOURNAL {
        let event = pending.parcel.event.as_ref()?;
        let thread = event.incident.to_string();
        // Events are neither merged nor dropped.
        let (kind, severity) = (Kind::Opened, Severity::P0);
        return Some(Item { seq: pending.seq, thread, kind, severity, created: event.at, state });
    }
    let notice = pending.parcel.notice.as_ref()?;
    Some(Item {
        seq: pending.seq,
        thread: notice.thread.clone(),
        kind: notice.kind,
        severity: notice.severity,
        created: notice.created,
        state,
    })
}
