//! What is said through another channel, because one fails: the same words for a while, an alarm for good.
//!
//! | | through the fallback | without a fallback |
//! |---|---|---|
//! | it fails for minutes | the same message, once | P0 and P1 of which nobody was told: the same, through every channel that has not tried it; else nothing |
//! | it never will | an alarm with its words | an alarm through the channels of P1, or all others |
//!
//! What speaks for another channel is marked so, and is not spoken for itself: two broken channels do not call each other.

use super::deliver::Lane;
use super::{JOURNAL, NotifyError};
use crate::notice::{Kind, Notice};
use crate::outbox::{Parcel, Phase};
use crate::severity::Severity;

impl Lane<'_> {
    /// Tells the same otherwise, once.
    pub(super) async fn fall_back(
        &self,
        seq: u64,
        parcel: &Parcel,
        problem: &str,
    ) -> Result<(), NotifyError> {
        let Some(notice) = &parcel.notice else { return Ok(()) };
        if parcel.is_fallback {
            return Ok(());
        }
        let mut to = match self.notifier.setup.registry.fallbacks.get(self.name) {
            Some(fallback) => vec![fallback.clone()],
            None if notice.severity <= Severity::P1 && !self.is_told(seq).await? => {
                self.others(Severity::P0, &parcel.channels)
            }
            None => return Ok(()),
        };
        to.retain(|name| !parcel.channels.contains(name));
        if to.is_empty() {
            tracing::warn!(
                channel = self.name,
                notice = parcel.id(),
                problem,
                "no other channel can tell it"
            );
            return Ok(());
        }
        let mut copy = notice.clone();
        copy.id = format!("{}~for~{}", notice.id, self.name);
        copy.text =
            format!("{}\n\n(told here, because {} does not answer: {problem})", notice.text, self.name);
        let mut parcel = Parcel::new(Some(copy), to, None);
        parcel.is_fallback = true;
        self.notifier.enqueue(&parcel).await?;
        Ok(())
    }

    /// Says through another channel that a message will not arrive.
    pub(super) async fn alarm(&self, parcel: &Parcel, problem: &str) -> Result<(), NotifyError> {
        tracing::error!(channel = self.name, notice = parcel.id(), problem, "given up");
        let Some(notice) = &parcel.notice else { return Ok(()) };
        if parcel.is_fallback {
            return Ok(());
        }
        let to = match self.notifier.setup.registry.fallbacks.get(self.name) {
            Some(fallback) => vec![fallback.clone()],
            None => self.others(Severity::P1, &[]),
        };
        if to.is_empty() {
            return Ok(());
        }
        let title = format!("a message could not be delivered through {}", self.name);
        let id = format!("{}~dead~{}", notice.id, self.name);
        let thread = format!("alarm-{}", self.name);
        let severity = notice.severity.min(Severity::P1);
        let mut alarm = Notice::new(&id, &thread, Kind::Alarm, severity, self.notifier.now(), &title);
        alarm.text =
            format!("{problem}\n\nThe message was: [{}] {}\n{}", notice.severity, notice.title, notice.text);
        alarm.source.clone_from(&self.notifier.setup.identity);
        let mut parcel = Parcel::new(Some(alarm), to, None);
        parcel.is_fallback = true;
        self.notifier.enqueue(&parcel).await?;
        Ok(())
    }

    /// The other channels of a severity; all other channels that can be used where those are none.
    fn others(&self, severity: Severity, except: &[String]) -> Vec<String> {
        let setup = &self.notifier.setup;
        let is_other = |name: &String| {
            name != self.name && !except.contains(name) && setup.registry.channels.contains_key(name)
        };
        let usual: Vec<String> = setup.policy.channels(severity).into_iter().filter(is_other).collect();
        if usual.is_empty() {
            setup.registry.channels.keys().filter(|name| is_other(name)).cloned().collect()
        } else {
            usual
        }
    }

    /// Whether another channel has the parcel.
    async fn is_told(&self, seq: u64) -> Result<bool, NotifyError> {
        let (pending, _) = self.notifier.spool.load().await?;
        let has = |(channel, state): (&String, &crate::outbox::Attempted)| {
            channel != JOURNAL && channel != self.name && state.phase == Phase::Accepted
        };
        Ok(pending.iter().find(|pending| pending.seq == seq).is_some_and(|item| item.states.iter().any(has)))
    }
}
