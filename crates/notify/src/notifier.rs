//! Incidents and their notices, from the call to the channel.
//!
//! Every call first puts one parcel into the outbox, which holds the event, the notice and its channels; when that is
//! durable the call has succeeded, whatever happens to the network afterwards. Then it delivers what can be delivered
//! now. [`Notifier::tick`], from a timer, or [`Notifier::follow`], as a service, do the rest: retries, reminders,
//! escalation, alarms, the heartbeat. No part of this needs the others to be alive.
//!
//! | failure | what happens |
//! |---|---|
//! | the process dies before the parcel is durable | nothing happened; the caller saw no success |
//! | it dies afterwards | the next invocation of any program delivers it |
//! | the repository of the incidents cannot be reached | the event waits in the outbox like a message to any channel |
//! | a channel cannot be used (secret, certificate) | its messages wait, the others go |
//! | the disk of the outbox is full | the call fails and says so; nothing is told that is not kept |

mod deliver;
mod fire;
mod follow;
mod known;
mod lock;
mod otherwise;
mod report;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::clock::Clock;
use backstay_backup_core::error::{Class, Classified};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::store::StoreError;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

pub use known::KnownIncidents;
pub use report::{Delivered, GivenUp, Report, Told, Waiting};
pub use words::{Opening, Resolution, Update};

use crate::channel::Registry;
use crate::channel::http::Client;
use crate::incident::{Change, Event, Incident, IncidentId, Journal};
use crate::notice::{Kind, Notice};
use crate::outbox::{Parcel, Rules, Spool, SpoolError};
use crate::policy::Policy;
use crate::redact::Redactor;
use crate::render::{Templates, Unit, fit};

/// Name of the lane that writes events to the journal.
pub const JOURNAL: &str = "journal";
/// Name of the lock for giving out numbers; no channel is called so, because theirs have no dot.
const ENQUEUE: &str = "enqueue.numbers";
/// How long another process may keep that lock.
const ENQUEUE_TIME: Duration = Duration::from_secs(30);
/// Name of the lock for changing an incident by what is known of it.
const CHANGE: &str = "change.incidents";
/// How long another process may keep that one.
const CHANGE_TIME: Duration = Duration::from_secs(10);
/// Longest text that is kept, in bytes: no channel carries more, and a record must stay one that can be read.
const MAX_TEXT: usize = 100_000;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The outbox would not take it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The directory of the outbox cannot be used.
    #[error("cannot use the directory {} for the outbox", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: StoreError,
    },
    /// Nobody knows such an incident.
    #[error("no incident {id} is known here")]
    NoIncident {
        /// Its name.
        id: String,
    },
    /// The incident is over.
    #[error("incident {id} is over since {}", crate::render::stamp(*at))]
    Over {
        /// Its name.
        id: IncidentId,
        /// Since when.
        at: Timestamp,
    },
    /// There is nobody to tell.
    #[error("no channel is configured")]
    NoChannel,
    /// A channel of that name is not configured.
    #[error("no channel is called {name:?}")]
    UnknownChannel {
        /// The name.
        name: String,
    },
}

impl Classified for NotifyError {
    fn class(&self) -> Class {
        match self {
            Self::Spool(error) => error.class(),
            Self::State { source, .. } if source.is_temporary() => Class::Temporary,
            Self::State { source: StoreError::Full { .. }, .. } => Class::Temporary,
            Self::State { .. } | Self::NoChannel | Self::UnknownChannel { .. } => Class::Usage,
            Self::NoIncident { .. } => Class::Absent,
            Self::Over { .. } => Class::Conflict,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Spool(error) => error.hint(),
            Self::State { .. } => {
                Some("set notify.state to a directory that this account may write to".to_owned())
            }
            Self::NoIncident { .. } => {
                Some("`send-notification list --all` shows those that are known".to_owned())
            }
            Self::Over { .. } => Some("open a new incident".to_owned()),
            Self::NoChannel => Some("add a [[notify.channel]] section to the configuration".to_owned()),
            Self::UnknownChannel { .. } => Some("`send-notification explain` shows the channels".to_owned()),
        }
    }
}

/// What a notifier works with.
#[derive(Debug)]
#[non_exhaustive]
pub struct Setup {
    /// Directory of the outbox, on a local disk.
    pub state: PathBuf,
    /// Where incidents are kept; beside the outbox without it.
    pub journal: Option<Journal>,
    /// The channels.
    pub registry: Registry,
    /// Who is told what.
    pub policy: Policy,
    /// The words.
    pub templates: Templates,
    /// The secrets that must not be told.
    pub redactor: Redactor,
    /// The numbers of the schedule.
    pub rules: Rules,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who writes: program and host.
    pub identity: String,
    /// Promised time from the begin of a failure to its end.
    pub rto: Option<SignedDuration>,
    /// Called after each round.
    pub heartbeat: Option<(Client, backstay_backup_core::secret::Secret<url::Url>)>,
    /// Time for the store of the incidents to answer, before its silence is taken for one: what the outbox knows counts then.
    pub journal_time: Duration,
    /// How long one call waits in place for a limit or a first repetition, instead of leaving it to the next round.
    pub patience: Duration,
}

impl Setup {
    /// A notifier without channels, with its outbox in a directory.
    #[must_use]
    pub fn new(state: &Path, policy: Policy, clock: Arc<dyn Clock>, identity: &str) -> Self {
        Self {
            state: state.to_owned(),
            journal: None,
            registry: Registry::default(),
            policy,
            templates: Templates::default(),
            redactor: Redactor::default(),
            rules: Rules::default(),
            clock,
            identity: identity.to_owned(),
            rto: None,
            heartbeat: None,
            journal_time: Duration::from_secs(10),
            patience: Duration::ZERO,
        }
    }
}

/// Tells people what is going on.
#[derive(Debug)]
pub struct Notifier {
    setup: Setup,
    spool: Spool,
    journal: Journal,
    locks: PathBuf,
}

impl Notifier {
    /// Opens the outbox, and makes it where there is none. Blocks for a few system calls.
    ///
    /// # Errors
    /// [`NotifyError::State`] when the directory cannot be used.
    pub fn open(setup: Setup) -> Result<Self, NotifyError> {
        let failed = |source| NotifyError::State { path: setup.state.clone(), source };
        let spool = LocalStore::create(setup.state.join("outbox")).map_err(failed)?;
        let locks = setup.state.join("locks");
        std::fs::create_dir_all(&locks).map_err(|error| {
            failed(StoreError::Denied {
                op: "create",
                what: locks.display().to_string(),
                source: error.into(),
            })
        })?;
        let journal = match &setup.journal {
            Some(journal) => journal.clone(),
            None => {
                let store = LocalStore::create(setup.state.join("incidents")).map_err(failed)?;
                let root = backstay_backup_core::key::Prefix::root();
                Journal::new(vec![Arc::new(store)], root)
            }
        };
        Ok(Self { spool: Spool::new(Arc::new(spool)), journal, locks, setup })
    }

    /// As [`Notifier::open`], over an outbox that is given: for tests of full disks and other faults.
    ///
    /// # Errors
    /// As [`Notifier::open`].
    pub fn over(spool: Spool, setup: Setup) -> Result<Self, NotifyError> {
        Ok(Self { spool, ..Self::open(setup)? })
    }

    /// The table.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.setup.policy
    }

    /// The channels.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.setup.registry
    }

    /// Checks every template of the configured directory.
    #[must_use]
    pub fn lint_templates(&self) -> crate::render::Lint {
        self.setup.templates.lint()
    }

    /// Where incidents are kept.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The outbox.
    #[must_use]
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    fn now(&self) -> Timestamp {
        self.setup.clock.now()
    }

    /// Keeps other processes of this host from changing an incident meanwhile: each sees what the one before it did. Who
    /// does not get the lock in time goes on without it, because told twice is better than not told.
    async fn changing(&self) -> Option<lock::LaneLock> {
        lock::LaneLock::acquire(&self.locks, CHANGE, CHANGE_TIME).await.ok().flatten()
    }

    /// Puts a parcel into the outbox, lets others change incidents again, and delivers what can be delivered now.
    async fn tell(
        &self,
        notice: Option<Notice>,
        event: Option<Event>,
        channels: Vec<String>,
        changing: Option<lock::LaneLock>,
    ) -> Result<Report, NotifyError> {
        let notice = notice.map(|notice| self.cleaned(notice));
        let mut lanes = channels;
        if event.is_some() {
            lanes.insert(0, JOURNAL.to_owned());
        }
        let event = event.map(|event| self.cleaned_event(event));
        self.enqueue(&Parcel::new(notice, lanes, event)).await?;
        drop(changing);
        self.deliver_now(&CancellationToken::new(), self.setup.patience).await
    }

    /// Puts a parcel into the outbox; numbers are given out one process at a time, so that none is given twice.
    async fn enqueue(&self, parcel: &Parcel) -> Result<Option<u64>, NotifyError> {
        let failed = |source| NotifyError::State { path: self.locks.clone(), source };
        let what = || self.locks.display().to_string();
        let lock = lock::LaneLock::acquire(&self.locks, ENQUEUE, ENQUEUE_TIME)
            .await
            .map_err(|error| failed(StoreError::Failed { op: "lock", what: what(), source: error.into() }))?;
        let Some(_lock) = lock else {
            let source = "another process keeps it".into();
            return Err(failed(StoreError::Temporary {
                op: "lock",
                what: what(),
                retry_after: None,
                source,
            }));
        };
        Ok(self.spool.enqueue(parcel).await?)
    }

    fn cleaned(&self, notice: Notice) -> Notice {
        notice.map_texts(|text| self.cleaned_text(text))
    }

    fn cleaned_text(&self, text: &str) -> String {
        fit(&self.setup.redactor.clean(text), MAX_TEXT, Unit::Bytes)
    }

    fn cleaned_event(&self, mut event: Event) -> Event {
        let clean = |text: &mut String| *text = self.cleaned_text(text);
        clean(&mut event.by);
        match &mut event.change {
            Change::Opened { title, text, impact, commander, tiers, .. } => {
                [title, text, impact].into_iter().chain(commander).chain(tiers).for_each(clean);
            }
            Change::Updated { text, impact, commander, .. } => {
                std::iter::once(text).chain(impact).chain(commander).for_each(clean);
            }
            Change::Resolved { text, receipts } => {
                std::iter::once(text)
                    .chain(receipts.iter_mut().map(|receipt| &mut receipt.what))
                    .for_each(clean);
            }
            _ => {}
        }
        event
    }

    /// Sends a notice of its own, to the channels of its severity or to those named.
    ///
    /// # Errors
    /// The outbox would not take it; an unknown channel; no channel at all.
    ///
    /// # Cancel safety
    /// A dropped call leaves the notice in the outbox or not at all.
    pub async fn send(&self, notice: Notice, channels: &[String]) -> Result<Report, NotifyError> {
        let known = |name: &&String| self.is_known(name);
        if let Some(strange) = channels.iter().find(|name| !known(name)) {
            return Err(NotifyError::UnknownChannel { name: strange.clone() });
        }
        let to = match channels {
            [] => self.setup.policy.channels(notice.severity),
            named => named.to_vec(),
        };
        if to.is_empty() {
            return Err(NotifyError::NoChannel);
        }
        let notice = if notice.source.is_empty() { notice.source(&self.setup.identity) } else { notice };
        self.tell(Some(notice), None, to, None).await
    }

    fn is_known(&self, name: &str) -> bool {
        let registry = &self.setup.registry;
        registry.channels.contains_key(name) || registry.unavailable.iter().any(|gone| gone.channel == name)
    }

    /// Delivers what others left, for whoever has nothing to tell: what is due now, without waiting for anything.
    ///
    /// # Errors
    /// As [`Notifier::tick`].
    ///
    /// # Cancel safety
    /// As [`Notifier::tick`].
    pub async fn deliver_what_waits(&self) -> Result<Report, NotifyError> {
        match self.spool.newest().await? {
            Some(_) => self.deliver_now(&CancellationToken::new(), Duration::ZERO).await,
            None => Ok(Report::default()),
        }
    }

    /// One round: timers, deliveries, alarms, the heartbeat.
    ///
    /// # Errors
    /// The outbox cannot be read or written.
    ///
    /// # Cancel safety
    /// As killing the process: nothing is lost, one message per channel may be sent again.
    pub async fn tick(&self, cancel: &CancellationToken) -> Result<Report, NotifyError> {
        let (fired, timer) = self.fire_timers(usize::MAX).await?;
        let mut report = self.deliver_now(cancel, self.setup.patience).await?;
        report.fired = fired;
        report.next = Self::next(&report, timer);
        self.spool.forget_old(self.now()).await?;
        self.beat(&report).await;
        Ok(report)
    }

    /// When something is due that is not yet.
    fn next(report: &Report, timer: Option<Timestamp>) -> Option<Timestamp> {
        report.waiting.iter().filter_map(|waiting| waiting.until).chain(timer).min()
    }

    fn event(&self, incident: &Incident, by: &str, change: Change) -> Event {
        Event::new(incident.id.clone(), incident.number.saturating_add(1), self.now(), by, change)
    }

    /// The incident as it is after an event, and the notice about it.
    fn consequence(
        &self,
        incident: &Incident,
        event: &Event,
        kind: Kind,
        events: &[Event],
    ) -> (Incident, Notice) {
        let all = events.iter().chain([event]);
        let after = self.fold(all).unwrap_or_else(|| incident.clone());
        let mut notice = Notice::about(&after, &format!("{}~{}", after.id, event.id), kind, event.at);
        notice.source.clone_from(&self.setup.identity);
        notice.update_due = after.update_due;
        (after, notice)
    }
}
