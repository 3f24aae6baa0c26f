//! The service: everything at its moment, and no channel in the way of another.
//!
//! ```text
//! once a second, and when something is due or ends
//!   timers ─▶ outbox ─▶ every channel that has something to do, and is not at it already, starts
//!                       └── each under its own lock, at its own pace; one that hangs holds up itself alone
//! ```
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

/// How long a service sleeps at most before it looks for what other processes put into the outbox.
const LOOK: SignedDuration = SignedDuration::from_secs(1);
/// How often it asks a repository what other hosts did, between timers.
const LOOK_FAR: SignedDuration = SignedDuration::from_secs(15);
/// How often the heartbeat is sent, and old things are forgotten.
const BEAT: SignedDuration = SignedDuration::from_secs(60);

/// A channel that runs, and what became of it.
type Running<'a> = Pin<Box<dyn Future<Output = (String, Result<Report, NotifyError>)> + Send + 'a>>;

/// What a channel was left with.
struct Rest {
    /// When it was left.
    at: Timestamp,
    /// The parcels that it knew.
    seqs: BTreeSet<u64>,
    /// What waits there.
    waiting: Vec<Waiting>,
}

impl Rest {
    fn until(&self) -> Option<Timestamp> {
        self.waiting.iter().filter_map(|waiting| waiting.until).min()
    }
}

/// The service while it runs.
struct Service<'a> {
    notifier: &'a Notifier,
    cancel: &'a CancellationToken,
    running: FuturesUnordered<Running<'a>>,
    /// Names of those that run, with the parcels that they were started for.
    busy: BTreeMap<String, BTreeSet<u64>>,
    rests: BTreeMap<String, Rest>,
    looked: Option<Timestamp>,
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
            busy: BTreeMap::new(),
            rests: BTreeMap::new(),
            looked: None,
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
        while let Some((_, ended)) = service.running.next().await {
            let report = ended?;
            if report.did_something() {
                show(&report);
            }
        }
        self.spool.close_settled(self.now()).await?;
        Ok(())
    }
}

impl Service<'_> {
    /// Fires timers, and starts every channel that has something to do.
    async fn start_what_is_due(&mut self, is_news: bool) -> Result<Report, NotifyError> {
        let notifier = self.notifier;
        let now = notifier.now();
        // A journal beside the outbox is read in every round. Elsewhere that costs requests: it is read when a timer is due,
        // when something happened here, and often enough to hear of what other hosts did.
        let rest = if notifier.setup.journal.is_some() { LOOK_FAR } else { SignedDuration::ZERO };
        let is_due = self.timer.is_some_and(|at| at <= now);
        let mut report = Report::default();
        if is_news || is_due || self.looked.is_none_or(|at| now.duration_since(at).abs() >= rest) {
            report.fired = notifier.fire_timers().await?;
            (self.looked, self.timer) = (Some(now), notifier.next_timer().await?);
        }
        let (pending, findings) = notifier.spool.load().await?;
        report.damaged =
            findings.iter().map(|finding| format!("{}: {}", finding.object, finding.problem)).collect();
        notifier.alarm_of_damage(&findings).await?;
        let mut lanes: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for item in &pending {
            for channel in &item.parcel.channels {
                lanes.entry(channel.clone()).or_default().insert(item.seq);
            }
        }
        self.rests.retain(|name, _| lanes.contains_key(name));
        for (name, seqs) in lanes {
            let wakes = self.rests.get(&name).is_none_or(|rest| {
                rest.seqs != seqs
                    || rest.until().is_some_and(|until| until <= now)
                    || now.duration_since(rest.at).abs() >= LOOK
            });
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
        let mut ended = tokio::select! {
            Some(ended) = self.running.next() => Some(ended),
            () = tokio::time::sleep(wait) => None,
            () = self.cancel.cancelled() => None,
        };
        let mut any = false;
        while let Some((name, lane)) = ended {
            let lane = lane?;
            let seqs = self.busy.remove(&name).unwrap_or_default();
            if name != HEART {
                let rest = Rest { at: self.notifier.now(), seqs, waiting: lane.waiting.clone() };
                self.rests.insert(name, rest);
                any = true;
            }
            report.add(lane);
            ended = self.running.next().now_or_never().flatten();
        }
        self.happened.delivered.extend(report.delivered.iter().cloned());
        self.happened.given_up.extend(report.given_up.iter().cloned());
        self.happened.damaged.extend(report.damaged.iter().cloned());
        if any {
            self.notifier.spool.close_settled(self.notifier.now()).await?;
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
        self.notifier.spool.forget_old(now).await?;
        let mut report = std::mem::take(&mut self.happened);
        report.waiting = self.rests.values().flat_map(|rest| rest.waiting.clone()).collect();
        self.busy.insert(HEART.to_owned(), BTreeSet::new());
        let (notifier, cancel) = (self.notifier, self.cancel);
        self.running.push(Box::pin(async move {
            tokio::select! {
                () = notifier.beat(&report) => {}
                () = cancel.cancelled() => {}
            }
            (HEART.to_owned(), Ok(Report::default()))
        }));
        Ok(())
    }
}
