//! The incidents that this host knows of: what the journal has, and what still waits in the outbox.

use std::collections::BTreeMap;

use super::{Notifier, NotifyError};
use crate::incident::{Event, Incident, IncidentId, Known};

/// The incidents that could be read.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KnownIncidents {
    /// They, the newest first.
    pub incidents: Vec<Incident>,
    /// Whether the record of them could be read: without it there may be others, and these may be over.
    pub is_whole: bool,
}

impl Notifier {
    /// All events known to the journal and to the outbox, and whether the journal could be read; one that cannot is left
    /// out with a warning.
    pub(super) async fn events(
        &self,
        closed: bool,
    ) -> Result<(BTreeMap<IncidentId, Vec<Event>>, bool), NotifyError> {
        let read = tokio::time::timeout(self.setup.journal_time, self.journal.events(closed)).await;
        let known = match read {
            Ok(Ok(events)) => Some(events),
            Ok(Err(error)) => {
                let error = backstay_backup_core::error::describe(&error);
                tracing::warn!(error, "going on with what the outbox knows");
                None
            }
            Err(_) => {
                tracing::warn!("the incidents do not answer; going on with what the outbox knows");
                None
            }
        };
        let is_whole = known.is_some();
        let Known { events: mut all, over, .. } = known.unwrap_or_default();
        let (pending, _) = self.spool.parcels().await?;
        let waiting = pending.into_values().filter_map(|parcel| parcel.event);
        let done = self.spool.done_events().await?;
        for event in waiting.chain(done).filter(|event| !over.contains(&event.incident)) {
            all.entry(event.incident.clone()).or_default().push(event);
        }
        Ok((all, is_whole))
    }

    /// The incidents that are open; with `closed` all that are known. The newest first.
    ///
    /// # Errors
    /// The outbox cannot be read.
    pub async fn incidents(&self, closed: bool) -> Result<Vec<Incident>, NotifyError> {
        Ok(self.known_incidents(closed).await?.incidents)
    }

    /// As [`Notifier::incidents`], for whoever must not take what cannot be read for what is not there.
    ///
    /// # Errors
    /// As [`Notifier::incidents`].
    pub async fn known_incidents(&self, closed: bool) -> Result<KnownIncidents, NotifyError> {
        let (events, is_whole) = self.events(closed).await?;
        let all = events.values().rev().filter_map(|events| self.fold(events));
        let incidents = all.filter(|incident| closed || incident.is_open()).collect();
        Ok(KnownIncidents { incidents, is_whole })
    }

    /// The incident that events add up to, with the next word that is due.
    pub(super) fn fold<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> Option<Incident> {
        let mut incident = Incident::fold(events)?;
        let every = self.setup.policy.rule(incident.severity).update_every;
        let every = every.filter(|_| incident.is_open());
        incident.update_due = every.and_then(|every| incident.last_update.checked_add(every).ok());
        Some(incident)
    }

    /// One incident, by its name or key. A beginning of its name suffices where it is the only one, or the only open one.
    ///
    /// # Errors
    /// [`NotifyError::NoIncident`] when there is none, or several begin so.
    pub async fn incident(&self, id: &str) -> Result<Incident, NotifyError> {
        // What is over is read only where nothing open is meant: in years it becomes much.
        for closed in [false, true] {
            let mut found = self.incidents(closed).await?;
            found.retain(|incident| self.is_called(incident, id));
            match found.len() {
                0 => {}
                1 => return Ok(found.remove(0)),
                _ => break,
            }
        }
        Err(NotifyError::NoIncident { id: id.chars().take(100).collect() })
    }

    /// Whether a text means this incident. Nothing means none: a script that lost the name must not end whatever is open.
    fn is_called(&self, incident: &Incident, text: &str) -> bool {
        !text.is_empty()
            && (incident.id.as_str().starts_with(text)
                || incident.key.as_ref().is_some_and(|key| *key == self.key(text)))
    }

    /// A key as it is kept: where a secret was taken out of it, a digest keeps it apart from others.
    pub(crate) fn key(&self, key: &str) -> String {
        let clean = self.setup.redactor.clean(key);
        if clean == key { clean } else { format!("{clean}~{}", crate::outbox::mark(key)) }
    }
}
