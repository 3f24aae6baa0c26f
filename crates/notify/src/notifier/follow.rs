//! The service: everything at its moment, and no channel in the way of another.
//!
//! ```text
//! once a second, and when something is due or ends
//!   the names in the outbox: are they the same, and nothing is due? then that was all
//!   timers ─▶ outbox ─▶ every channel that has something to do, and is not at it already, starts
//!                       └── each under its own lock, at its own pace; one that hangs holds up itself alone
//! ```
//!
//! Channels go on while timers are fired and the outbox is read: a channel that stood still meanwhile would keep its lock from
//! whoever wants to tell something new.
//!
//! Every change of an incident on this host goes through the outbox, so whoever makes one changes those names. Everything
//! is looked at once a minute all the same, and more often where other hosts can change something.
//!
//! Nothing is kept in memory that matters: whoever kills this loses what a killed attempt loses.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;

use futures::future::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::report::{Report, Waiting};
use super::{Notifier, NotifyError};
use crate::outbox::Mark;

/// How long a service sleeps at most before it looks for what other processes put into the outbox.
const LOOK: SignedDuration = SignedDuration::from_secs(1);
/// How often it reads everything, for what somebody changed by hand.
const LOOK_ALL: SignedDuration = SignedDuration::from_secs(60);
/// The same where other hosts write to the repository of the incidents.
const LOOK_FAR: SignedDuration = SignedDuration::from_secs(15);
/// Timers that are fired before channels are started that have something to do by then.
const MOST_TIMERS: usize = 20;
/// How often the heartbeat is sent, and old things are forgotten.
const BEAT: SignedDuration = SignedDuration::from_secs(60);

/// A channel that runs, and what became of it.
type Running<'a> = Pin<Box<dyn Future<Output = (String, Result<Option<Report>, NotifyError>)> + Send + 'a>>;

/// What a channel was left with.
struct Rest {
    /// When it was left.
    at: Timestamp,
    /// The parcels that it knew.
    seqs: BTreeSet<u64>,
    /// What waits there.
    waiting: Vec<Waiting>,
    /// Another process keeps the channel.
    is_kept: bool,
}

impl Rest {
    /// Whether there may be something to do for these parcels.
    fn is_over(&self, seqs: &BTreeSet<u64>, now: Timestamp) -> bool {
        let age = now.duration_since(self.at);
        let look = if self.is_kept { LOOK } else { LOOK_ALL };
        // A clock that was set back says nothing of how long it was.
        self.seqs != *seqs
            || self.until().is_some_and(|until| until <= now)
            || age >= look
            || age.is_negative()
    }

    fn until(&self) -> Option<Timestamp> {
        self.waiting.iter().filter_map(|waiting| waiting.until).min()
    }
}

/// What a look at everything found.
struct Look {
    fired: Vec<String>,
    damaged: Vec<String>,
    timer: Option<Timestamp>,
    lanes: BTreeMap<String, BTreeSet<u64>>,
}

/// The service while it runs.
struct Service<'a> {
    notifier: &'a Notifier,
    cancel: &'a CancellationToken,
    running: FuturesUnordered<Running<'a>>,
    /// Channels that ended while something else was done.
    ended: Vec<(String, Result<Option<Report>, NotifyError>)>,
    /// Names of those that run, with the parcels that they were started for.
    busy: BTreeMap<String, BTreeSet<u64>>,
    rests: BTreeMap<String, Rest>,
    /// When everything was read last, and what lay in the outbox then.
    looked: Option<(Timestamp, Mark)>,
    /// What lay there for each channel.
    lanes: BTreeMap<String, BTreeSet<u64>>,
    timer: Option<Timestamp>,
    beaten: Option<Timestamp>,
    /// What happened since the last heartbeat.
    happened: Report,
}

/// Name of the heartbeat among the channels; none of them has a dot.
const HEART: &str = "heart.beat";

impl Notifier {
    /// Rounds until it is told to stop: at the moment something is due, and soon after another process put something
    /// into the outbox. Each round that did something is shown.
    ///
    /// # Errors
    /// As [`Notifier::tick`].
    ///
    /// # Cancel safety
    /// As [`Notifier::tick`].
    pub async fn follow(
        &self,
        cancel: &CancellationToken,
        mut show: impl FnMut(&Report),
    ) -> Result<(), NotifyError> {
        let mut service = Service {
            notifier: self,
            cancel,
            running: FuturesUnordered::new(),
            ended: Vec::new(),
            busy: BTreeMap::new(),
            rests: BTreeMap::new(),
            looked: None,
            lanes: BTreeMap::new(),
            timer: None,
            beaten: None,
            happened: Report::default(),
        };
        let mut is_news = true;
        while !cancel.is_cancelled() {
            let mut report = service.start_what_is_due(is_news).await?;
            service.end_of_something(&mut report).await?;
            is_news = report.did_something();
            if is_news {
                show(&report);
            }
        }
        // They know that they are to stop.
        while let Some(ended) = service.running.next().await {
            service.ended.push(ended);
        }
        for (_, ended) in service.ended {
            let report = ended?;
            if let Some(report) = report.filter(Report::did_something) {
                show(&report);
            }
        }
        self.spool.close_settled(self.now()).await?;
        Ok(())
    }
}

impl Service<'_> {
    /// Does something while the channels go on: they hold their locks meanwhile, and other processes wait for those.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(ended) = self.running.next() => self.ended.push(ended),
            }
        }
    }

    /// Fires timers, and starts every channel that has something to do.
    async fn start_what_is_due(&mut self, is_news: bool) -> Result<Report, NotifyError> {
        let notifier = self.notifier;
        let now = notifier.now();
        let mut report = Report::default();
        // First what is there, then what it says: whatever changes in between is seen the next time.
        let mark = self.beside(notifier.spool.mark()).await?;
        let is_due = self.timer.is_some_and(|at| at <= now);
        let rest = if notifier.setup.journal.is_some() { LOOK_FAR } else { LOOK_ALL };
        let is_known = self.looked.as_ref().is_some_and(|(at, known)| {
            let age = now.duration_since(*at);
            *known == mark && age < rest && !age.is_negative()
        });
        if is_news || is_due || !is_known {
            let look = self.beside(look(notifier)).await?;
            (report.fired, report.damaged) = (look.fired, look.damaged);
            (self.timer, self.lanes) = (look.timer, look.lanes);
            self.rests.retain(|name, _| self.lanes.contains_key(name));
            self.looked = Some((now, mark));
        }
        for (name, seqs) in self.lanes.clone() {
            let wakes = self.rests.get(&name).is_none_or(|rest| rest.is_over(&seqs, now));
            if wakes && !self.busy.contains_key(&name) {
                self.busy.insert(name.clone(), seqs);
                let cancel = self.cancel;
                self.running.push(Box::pin(async move {
                    let ended = notifier.lane(&name, cancel, Duration::ZERO).await;
                    (name, ended)
                }));
            }
        }
        self.beat(now).await?;
        Ok(report)
    }

    /// Waits until something ends or is due, and notes what ended.
    async fn end_of_something(&mut self, report: &mut Report) -> Result<(), NotifyError> {
        let due = self.rests.iter().filter(|(name, _)| !self.busy.contains_key(*name));
        let due = due.filter_map(|(_, rest)| rest.until()).chain(self.timer).min();
        let wait = due.map_or(LOOK, |due| due.duration_since(self.notifier.now()).min(LOOK));
        let wait = Duration::try_from(wait.max(SignedDuration::from_millis(10))).unwrap_or_default();
        if self.ended.is_empty() {
            tokio::select! {
                Some(ended) = self.running.next() => self.ended.push(ended),
                () = tokio::time::sleep(wait) => {}
                () = self.cancel.cancelled() => {}
            }
        }
        while let Some(ended) = self.running.next().now_or_never().flatten() {
            self.ended.push(ended);
        }
        let mut any = false;
        for (name, lane) in std::mem::take(&mut self.ended) {
            let (lane, is_kept) = match lane? {
                Some(lane) => (lane, false),
                None => (Report::default(), true),
            };
            let seqs = self.busy.remove(&name).unwrap_or_default();
            if name != HEART {
                let (at, waiting) = (self.notifier.now(), lane.waiting.clone());
                let rest = Rest { at, seqs, waiting, is_kept };
                self.rests.insert(name, rest);
                any = true;
            }
            report.add(lane);
        }
        self.happened.delivered.extend(report.delivered.iter().cloned());
        self.happened.given_up.extend(report.given_up.iter().cloned());
        self.happened.damaged.extend(report.damaged.iter().cloned());
        if any {
            let notifier = self.notifier;
            self.beside(notifier.spool.close_settled(notifier.now())).await?;
        }
        report.waiting = self.rests.values().flat_map(|rest| rest.waiting.clone()).collect();
        report.next = Notifier::next(report, self.timer);
        Ok(())
    }

    /// Once a minute: the heartbeat, which holds nothing up, and room on the disk.
    async fn beat(&mut self, now: Timestamp) -> Result<(), NotifyError> {
        let is_time = self.beaten.is_none_or(|last| now.duration_since(last).abs() >= BEAT);
        if !is_time || self.busy.contains_key(HEART) {
            return Ok(());
        }
        self.beaten = Some(now);
        let notifier = self.notifier;
        self.beside(notifier.spool.forget_old(now)).await?;
        let mut report = std::mem::take(&mut self.happened);
        report.waiting = self.rests.values().flat_map(|rest| rest.waiting.clone()).collect();
        self.busy.insert(HEART.to_owned(), BTreeSet::new());
        let cancel = self.cancel;
        self.running.push(Box::pin(async move {
            tokio::select! {
                () = notifier.beat(&report) => {}
                () = cancel.cancelled() => {}
            }
            (HEART.to_owned(), Ok(None))
        }));
        Ok(())
    }
}

/// Reads everything: fires timers that are due, and finds out which channels have something to do.
async fn look(notifier: &Notifier) -> Result<Look, NotifyError> {
    let (fired, timer) = notifier.fire_timers(MOST_TIMERS).await?;
    let (parcels, findings) = notifier.spool.parcels().await?;
    let damaged = notifier.alarm_of_damage(&findings).await?;
    let mut lanes: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (seq, parcel) in parcels {
        for channel in parcel.channels {
            lanes.entry(channel).or_default().insert(seq);
        }
    }
    Ok(Look { fired, damaged, timer, lanes })
}
