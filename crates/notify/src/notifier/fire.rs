//! Reminders and escalation, and the heartbeat.

use std::collections::BTreeSet;

use backstay_backup_core::secret::Secret;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};

use super::report::Report;
use super::{JOURNAL, Notifier, NotifyError};
use crate::channel::http::Call;
use crate::incident::{Change, Event, Incident};
use crate::notice::{Kind, Notice};
use crate::outbox::Parcel;
use crate::policy::{self, Due, Timer};

/// Longer than a process that waits for a lock takes to look again.
const BREATH: std::time::Duration = std::time::Duration::from_millis(30);
/// How far the clocks of two hosts may differ without a word.
const SKEW: SignedDuration = SignedDuration::from_secs(2);
/// How long a host that took a timer has to fire it before another one does.
const CLAIM: SignedDuration = SignedDuration::from_secs(120);

impl Notifier {
    /// Puts the notices of timers that are due into the outbox, so many at most; says which, and when the next one goes off.
    pub(super) async fn fire_timers(
        &self,
        most: usize,
    ) -> Result<(Vec<String>, Option<Timestamp>), NotifyError> {
        let now = self.now();
        let mut fired = Vec::new();
        let mut next: Option<Timestamp> = None;
        for incident in self.timed(now).await? {
            let rule = self.setup.policy.rule(incident.severity);
            next = next.into_iter().chain(policy::next_due(&incident, rule, now)).min();
            for due in policy::due(&incident, rule, now) {
                if fired.len() >= most {
                    return Ok((fired, Some(now)));
                }
                if !self.journal.claim(&incident.id, &due.name, &self.setup.identity, now, CLAIM).await {
                    continue;
                }
                if self.fire(&incident, &due, now).await? {
                    fired.push(format!("{} {}", incident.id, due.name));
                    // Numbers are given out one at a time: whoever waits for one gets it before the next of many timers.
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        Ok((fired, next))
    }

    /// The open incidents with their moments by the clock of this host. What is still to come by that clock was written
    /// by another host, or before it was set back: its spans count from the moment it was noticed, so that nobody
    /// waits longer than was meant.
    async fn timed(&self, now: Timestamp) -> Result<Vec<Incident>, NotifyError> {
        let mut incidents = self.incidents(false).await?;
        let mut noticed = self.spool.noticed().await?;
        let soon = now.saturating_add(SKEW).unwrap_or(now);
        let mut kept = BTreeSet::new();
        for incident in &mut incidents {
            for (at, here) in [
                (incident.opened, &mut incident.opened_here),
                (incident.last_update, &mut incident.updated_here),
            ] {
                let name = |at: Timestamp| format!("{}-{}", incident.id, at.as_second());
                let mut from = at;
                kept.insert(name(from));
                while let Some(seen) = noticed.get(&name(from)).copied().filter(|seen| *seen < from) {
                    from = seen;
                    kept.insert(name(from));
                }
                if from > soon {
                    self.spool.note(&name(from), now).await?;
                    noticed.insert(name(from), now);
                    from = now;
                }
                *here = from;
            }
        }
        // Of incidents that are over, or words that others followed.
        for name in noticed.keys().filter(|name| !kept.contains(*name)) {
            self.spool.forget_note(name).await?;
        }
        Ok(incidents)
    }

    async fn fire(&self, incident: &Incident, due: &Due, now: Timestamp) -> Result<bool, NotifyError> {
        let kind = match due.timer {
            Timer::Escalation { .. } => Kind::Escalation,
            Timer::Reminder { .. } => Kind::Reminder,
        };
        let mut notice = Notice::about(incident, &format!("{}~{}", incident.id, due.name), kind, now);
        notice.text = self.words(incident, due, now);
        notice.source.clone_from(&self.setup.identity);
        let event = Event::new(
            incident.id.clone(),
            incident.number.saturating_add(1),
            now,
            &self.setup.identity,
            Change::Fired { timer: due.name.clone() },
        );
        let mut channels = self.setup.policy.reach(&due.channels);
        channels.insert(0, JOURNAL.to_owned());
        let parcel = Parcel::new(Some(self.cleaned(notice)), channels, Some(event));
        let _changing = self.changing().await;
        if self.is_overtaken(incident, due).await? {
            return Ok(false);
        }
        Ok(self.enqueue(&parcel).await?.is_some())
    }

    /// Whether something was said on this host since the incident was read that makes a timer pointless: of many that are
    /// due at once, the last ones go off seconds later.
    async fn is_overtaken(&self, incident: &Incident, due: &Due) -> Result<bool, NotifyError> {
        let (pending, _) = self.spool.parcels().await?;
        let waiting = pending.into_values().filter_map(|parcel| parcel.event);
        let is_reminder = matches!(due.timer, Timer::Reminder { .. });
        let ends = |event: &Event| match event.change {
            Change::Resolved { .. } => true,
            Change::Acknowledged => !is_reminder,
            Change::Updated { .. } => is_reminder && event.number > incident.number,
            _ => false,
        };
        let mut all = waiting.chain(self.spool.done_events().await?);
        Ok(all.any(|event| event.incident == incident.id && ends(&event)))
    }

    fn words(&self, incident: &Incident, due: &Due, now: Timestamp) -> String {
        let age = |since: Timestamp| policy::span(now.duration_since(since));
        match due.timer {
            Timer::Escalation { step, of } => {
                let open = age(incident.opened_here);
                format!("Open for {open}, and nobody has acknowledged it. Escalation step {step} of {of}.")
            }
            Timer::Reminder { overdue } => {
                let silent = age(incident.updated_here);
                let missed =
                    if overdue > 1 { format!(" {overdue} updates are overdue.") } else { String::new() };
                let who = incident
                    .commander
                    .as_ref()
                    .map_or_else(String::new, |who| format!(" {who}, please post one."));
                format!("No update for {silent}.{missed}{who}")
            }
        }
    }

    /// Tells whoever watches us that a round was made, and whether it was a good one. Its failure is no failure of ours.
    pub(super) async fn beat(&self, report: &Report) {
        let Some((client, url)) = &self.setup.heartbeat else { return };
        let mut url = url.expose().clone();
        let stuck = |waiting: &super::Waiting| waiting.attempts >= 5;
        if report.is_in_trouble() || report.waiting.iter().any(stuck) {
            let path = format!("{}/fail", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        let words = format!(
            "{} delivered, {} waiting, {} given up, {} damaged",
            report.delivered.len(),
            report.waiting.len(),
            report.given_up.len(),
            report.damaged.len()
        );
        let call = Call::new(Method::POST, &Secret::new(url), words.into_bytes());
        match client.send(call).await {
            Ok(answer) if answer.is_success() => {}
            Ok(answer) => tracing::warn!(status = answer.status, "heartbeat not taken"),
            Err(_) => tracing::warn!("heartbeat not sent"),
        }
    }
}
