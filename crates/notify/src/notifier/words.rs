//! Opening, updating, acknowledging and resolving.

use jiff::{SignedDuration, Timestamp};

use super::lock::LaneLock;
use super::{Notifier, NotifyError, Told};
use crate::incident::{Change, Event, Incident, IncidentId, Objective, Receipt};
use crate::notice::Kind;
use crate::severity::{Severity, Status};

/// How an incident begins.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Opening {
    /// What it is, in a line.
    pub title: String,
    /// More words.
    pub text: String,
    /// How bad.
    pub severity: Severity,
    /// Who or what suffers.
    pub impact: String,
    /// Who leads.
    pub commander: Option<String>,
    /// Recovery tiers that are affected.
    pub tiers: Vec<String>,
    /// What it is about, for programs: while an incident with this key is open, it is updated instead.
    pub key: Option<String>,
    /// When the failure began, where that is known to be earlier.
    pub since: Option<Timestamp>,
    /// Who says so.
    pub by: String,
    /// What it is told as.
    pub kind: Kind,
}

impl Opening {
    /// An incident of that severity, told by somebody.
    #[must_use]
    pub fn new(severity: Severity, title: &str, by: &str) -> Self {
        Self {
            title: title.to_owned(),
            text: String::new(),
            severity,
            impact: String::new(),
            commander: None,
            tiers: Vec::new(),
            key: None,
            since: None,
            by: by.to_owned(),
            kind: Kind::Opened,
        }
    }
}

/// News of an incident.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Update {
    /// The news.
    pub text: String,
    /// How far it has come.
    pub status: Option<Status>,
    /// How bad it is now.
    pub severity: Option<Severity>,
    /// Who or what suffers now.
    pub impact: Option<String>,
    /// Who leads now.
    pub commander: Option<String>,
    /// Who says so.
    pub by: String,
}

impl Update {
    /// News told by somebody.
    #[must_use]
    pub fn new(text: &str, by: &str) -> Self {
        Self { text: text.to_owned(), by: by.to_owned(), ..Self::default() }
    }
}

/// The end of an incident.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Resolution {
    /// Last words.
    pub text: String,
    /// What restores measured.
    pub receipts: Vec<Receipt>,
    /// Who says so.
    pub by: String,
    /// What it is told as.
    pub kind: Kind,
}

impl Resolution {
    /// The end, told by somebody.
    #[must_use]
    pub fn new(text: &str, by: &str) -> Self {
        Self { text: text.to_owned(), receipts: Vec::new(), by: by.to_owned(), kind: Kind::Resolved }
    }
}

impl Notifier {
    /// Opens an incident and tells everybody of its severity. While one with the same key is open, that one is updated
    /// instead, unless there is nothing new to say.
    ///
    /// # Errors
    /// The outbox would not take it.
    ///
    /// # Cancel safety
    /// A dropped call leaves the incident opened and in the outbox, or not at all.
    pub async fn open_incident(&self, opening: &Opening) -> Result<Told, NotifyError> {
        let key = opening.key.as_deref().map(|key| self.key(key));
        let changing = if key.is_some() { self.changing().await } else { None };
        if key.is_some() {
            let open = self.incidents(false).await?;
            if let Some(incident) = open.into_iter().find(|incident| incident.key == key) {
                return self.again(incident, opening, changing).await;
            }
        }
        let now = self.now();
        let id = IncidentId::generate(now, &mut rand::rng());
        let change = Change::Opened {
            title: opening.title.clone(),
            text: opening.text.clone(),
            severity: opening.severity,
            impact: opening.impact.clone(),
            commander: opening.commander.clone(),
            tiers: opening.tiers.clone(),
            key,
            since: opening.since.filter(|since| *since <= now),
        };
        let event = Event::new(id, 1, now, &opening.by, change);
        let incident = Incident::fold([&event]).expect("it begins with its beginning");
        let (incident, notice) = self.consequence(&incident, &event, opening.kind, &[]);
        let channels = self.setup.policy.channels(incident.severity);
        let report = self.tell(Some(notice), Some(event), channels, changing).await?;
        Ok(Told { incident, report })
    }

    async fn again(
        &self,
        incident: Incident,
        opening: &Opening,
        changing: Option<LaneLock>,
    ) -> Result<Told, NotifyError> {
        let words =
            self.setup.redactor.clean(if opening.text.is_empty() { &opening.title } else { &opening.text });
        let is_known = incident.timeline.iter().any(|entry| entry.text == words);
        let worse = Some(opening.severity).filter(|severity| *severity < incident.severity);
        if is_known && worse.is_none() {
            return Ok(Told { incident, report: super::Report::default() });
        }
        let mut update = Update::new(&words, &opening.by);
        update.severity = worse;
        self.update_holding(incident.id.as_str(), &update, changing).await
    }

    async fn event_of(
        &self,
        id: &str,
        by: &str,
        change: Change,
        kind: Kind,
    ) -> Result<(Incident, Incident, Event, crate::notice::Notice), NotifyError> {
        let incident = self.incident(id).await?;
        if let Some(at) = incident.resolved {
            return Err(NotifyError::Over { id: incident.id, at });
        }
        let events = self.events(false).await?.0.remove(&incident.id).unwrap_or_default();
        let event = self.event(&incident, by, change);
        let (after, notice) = self.consequence(&incident, &event, kind, &events);
        Ok((incident, after, event, notice))
    }

    /// Tells news of an incident.
    ///
    /// # Errors
    /// No such incident, or it is over; the outbox would not take it.
    ///
    /// # Cancel safety
    /// As [`Notifier::open_incident`].
    pub async fn update_incident(&self, id: &str, update: &Update) -> Result<Told, NotifyError> {
        self.update_holding(id, update, self.changing().await).await
    }

    async fn update_holding(
        &self,
        id: &str,
        update: &Update,
        changing: Option<LaneLock>,
    ) -> Result<Told, NotifyError> {
        let change = Change::Updated {
            text: update.text.clone(),
            status: update.status,
            severity: update.severity,
            impact: update.impact.clone(),
            commander: update.commander.clone(),
        };
        let (before, incident, event, notice) = self.event_of(id, &update.by, change, Kind::Update).await?;
        // Who was told of it once is told the rest, also when it became less bad.
        let rule = |severity| self.setup.policy.rule(severity).channels.iter();
        let names: Vec<String> = rule(incident.severity).chain(rule(before.severity)).cloned().collect();
        let channels = self.setup.policy.reach(&names);
        let mut notice = notice;
        if incident.severity < before.severity {
            // It became worse: for a pager that is a new alert, for a person the beginning.
            notice.kind = Kind::Opened;
        }
        let report = self.tell(Some(notice), Some(event), channels, changing).await?;
        Ok(Told { incident, report })
    }

    /// Says that somebody is on it: escalation ends. Saying it again changes nothing.
    ///
    /// # Errors
    /// As [`Notifier::update_incident`].
    ///
    /// # Cancel safety
    /// As [`Notifier::open_incident`].
    pub async fn acknowledge_incident(&self, id: &str, by: &str) -> Result<Told, NotifyError> {
        let changing = self.changing().await;
        let (before, incident, event, notice) =
            self.event_of(id, by, Change::Acknowledged, Kind::Acknowledged).await?;
        if before.acknowledged.is_some() {
            return Ok(Told { incident: before, report: super::Report::default() });
        }
        let channels = self.told_so_far(&incident);
        let report = self.tell(Some(notice), Some(event), channels, changing).await?;
        Ok(Told { incident, report })
    }

    /// Says that it is over. Downtime and objectives are computed from the incident and the receipts.
    ///
    /// # Errors
    /// As [`Notifier::update_incident`].
    ///
    /// # Cancel safety
    /// As [`Notifier::open_incident`].
    pub async fn resolve_incident(&self, id: &str, end: &Resolution) -> Result<Told, NotifyError> {
        let changing = self.changing().await;
        let change = Change::Resolved { text: end.text.clone(), receipts: end.receipts.clone() };
        let (_, incident, event, mut notice) = self.event_of(id, &end.by, change, end.kind).await?;
        notice.objectives = objectives(&incident, self.setup.rto);
        let channels = self.told_so_far(&incident);
        let report = self.tell(Some(notice), Some(event), channels, changing).await?;
        Ok(Told { incident, report })
    }

    /// The channels of every severity that it had, and those of the escalation that heard of it meanwhile: an alert that
    /// was opened when it was worse must end as well.
    fn told_so_far(&self, incident: &Incident) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for severity in &incident.severities {
            let rule = self.setup.policy.rule(*severity);
            let steps = rule.escalation.iter().enumerate();
            let fired =
                steps.filter(|(index, _)| incident.fired.contains(&format!("escalation-{}", index + 1)));
            names.extend(rule.channels.iter().chain(fired.flat_map(|(_, step)| step)).cloned());
        }
        self.setup.policy.reach(&names)
    }
}

/// What was promised, against what the incident and its restores took.
fn objectives(incident: &Incident, rto: Option<SignedDuration>) -> Vec<Objective> {
    let Some(target) = rto.and_then(|rto| u64::try_from(rto.as_secs()).ok()) else { return Vec::new() };
    let downtime = incident.downtime().and_then(|downtime| u64::try_from(downtime.as_secs()).ok());
    let whole = downtime.map(|reached| Objective { name: "RTO".to_owned(), target, reached });
    let restores = incident.receipts.iter().map(|receipt| Objective {
        name: format!("Restore of {}", receipt.what),
        target,
        reached: receipt.rto_millis.div_ceil(1000),
    });
    whole.into_iter().chain(restores).collect()
}
