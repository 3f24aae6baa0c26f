//! What a service costs while nothing happens, counted in calls of its stores; that it misses nothing for it; and that it is
//! in nobody's way while much happens.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backstay_backup_core::clock::Clock;
use backstay_backup_core::config::{ChannelKind, NotifyPolicy, TimeSpan};
use backstay_backup_core::fault::{Fault, Operation};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_notify::channel::{Channel, Draft, Message};
use backstay_notify::incident::Journal;
use backstay_notify::outbox::{Outcome, Spool};
use backstay_notify::policy::Policy;
use backstay_notify::{Kind, Notifier, Opening, Setup, Severity};
use jiff::{SignedDuration, Timestamp};
use support::{at, registry};
use tokio_util::sync::CancellationToken;

/// The time of the runtime, which stands still unless everybody waits.
#[derive(Clone, Debug)]
struct Virtual(tokio::time::Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        at(0) + SignedDuration::try_from(self.0.elapsed()).unwrap()
    }
}

/// Takes everything, or says that it is not to be asked again for a day.
#[derive(Debug)]
struct Room {
    takes: bool,
    takes_time: Duration,
    told: Mutex<Vec<(Kind, String, tokio::time::Instant)>>,
}

#[async_trait]
impl Channel for Room {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Webhook
    }

    fn is_idempotent(&self) -> bool {
        true
    }

    fn per_minute(&self) -> u32 {
        u32::MAX
    }

    fn draft(&self, _: &Message<'_>) -> Vec<Draft> {
        Vec::new()
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        if !self.takes {
            let retry_after = Some(Duration::from_secs(86_400));
            return Outcome::Limited { retry_after, problem: "not today".to_owned() };
        }
        let (kind, title) = (message.notice.kind, message.notice.title.clone());
        self.told.lock().unwrap().push((kind, title, tokio::time::Instant::now()));
        tokio::time::sleep(self.takes_time).await;
        Outcome::Accepted { reference: None }
    }
}

/// A service with one channel that takes nothing, so that all parcels stay, and one that takes everything.
struct Scene {
    state: tempfile::TempDir,
    clock: Virtual,
    outbox: Arc<Fault>,
    incidents: Option<Arc<Fault>>,
    room: Arc<Room>,
}

impl Scene {
    fn new(is_far: bool) -> Self {
        let state = tempfile::tempdir().unwrap();
        let counted = |name: &str| Arc::new(Fault::new(Arc::new(local(&state.path().join(name))), 7));
        let room = Room { takes: true, takes_time: Duration::from_millis(200), told: Mutex::default() };
        Self {
            clock: Virtual(tokio::time::Instant::now()),
            outbox: counted("outbox"),
            incidents: is_far.then(|| counted("elsewhere")),
            room: Arc::new(room),
            state,
        }
    }

    /// As every process opens it for itself.
    fn notifier(&self) -> Notifier {
        let mut table = NotifyPolicy::default();
        table.p0.channels = Some(vec!["away".to_owned(), "room".to_owned()]);
        table.p0.response_time = Some(TimeSpan::from_secs(3600));
        table.p0.update_every = Some(TimeSpan::from_secs(0));
        table.p1 = table.p0.clone();
        table.p1.channels = Some(vec!["room".to_owned()]);
        table.p1.response_time = Some(TimeSpan::from_secs(4));
        table.p1.escalation = Some(vec![vec!["room".to_owned()]]);
        let names = ["away", "room"].map(str::to_owned);
        let policy = Policy::new(&table, names);
        let mut setup = Setup::new(self.state.path(), policy, Arc::new(self.clock.clone()), "test on host-a");
        let away = Room { takes: false, takes_time: Duration::ZERO, told: Mutex::default() };
        setup.registry = registry(vec![("away", Arc::new(away)), ("room", self.room.clone())]);
        setup.journal =
            self.incidents.as_ref().map(|store| Journal::new(vec![store.clone()], Prefix::root()));
        Notifier::over(Spool::new(self.outbox.clone()), setup).unwrap()
    }

    async fn open(&self, severity: Severity, title: &str) {
        self.notifier().open_incident(&Opening::new(severity, title, "ada")).await.unwrap();
    }

    fn calls(&self, operation: Operation) -> u64 {
        self.outbox.count(operation) + self.incidents.as_ref().map_or(0, |store| store.count(operation))
    }
}

fn local(directory: &Path) -> LocalStore {
    LocalStore::create(directory.to_owned()).unwrap()
}

const OPEN: u64 = 40;

#[tokio::test(start_paused = true)]
async fn a_service_that_has_nothing_to_do_reads_next_to_nothing() {
    for is_far in [false, true] {
        let scene = Scene::new(is_far);
        for number in 0..OPEN {
            scene.open(Severity::P0, &format!("incident {number}")).await;
        }
        // Told, told again, and done: what is kept of them is read once.
        for number in 0..60 {
            scene.open(Severity::P1, &format!("mild {number}")).await;
        }
        let (cancel, notifier) = (CancellationToken::new(), scene.notifier());
        let watch = async {
            // What it does at first does not count.
            tokio::time::sleep(Duration::from_secs(90)).await;
            let before = (scene.calls(Operation::Get), scene.calls(Operation::List));
            tokio::time::sleep(Duration::from_secs(300)).await;
            let after = (scene.calls(Operation::Get), scene.calls(Operation::List));
            cancel.cancel();
            (after.0 - before.0, after.1 - before.1)
        };
        let (ended, (gets, lists)) = tokio::join!(notifier.follow(&cancel, |_| {}), watch);
        ended.unwrap();
        // Once a minute the channel that waits looks how far each of its parcels is, and so does whoever closes after each of the
        // three ways. Everything else is read once.
        let most = OPEN * 5 * 4 + 20;
        assert!(gets <= most, "far: {is_far}: {gets} reads in five minutes, of at most {most}");
        let looks = if is_far { 20 } else { 5 };
        assert!(lists <= 300 * 2 + looks * 12 + 5 * 40, "far: {is_far}: {lists} listings in five minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_with_nothing_to_do_misses_nothing_that_another_process_puts_in() {
    let scene = Scene::new(false);
    let (cancel, notifier) = (CancellationToken::new(), scene.notifier());
    let others = async {
        tokio::time::sleep(Duration::from_millis(30_300)).await;
        // Opened, told and closed between two looks; the step of its escalation is the service's business.
        let begun = tokio::time::Instant::now();
        scene.open(Severity::P1, "down").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        cancel.cancel();
        begun
    };
    let (ended, begun) = tokio::join!(notifier.follow(&cancel, |_| {}), others);
    ended.unwrap();
    let told = scene.room.told.lock().unwrap().clone();
    let kinds: Vec<Kind> = told.iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(kinds, [Kind::Opened, Kind::Escalation]);
    let after = told[1].2.duration_since(begun);
    assert!(after >= Duration::from_secs(4) && after < Duration::from_millis(4_500), "{after:?}");
}

/// The steps of many incidents are due at once, and the channel takes its time for each: whoever has something worse to say
/// waits for one message and not for all of them.
#[tokio::test(start_paused = true)]
async fn a_service_with_much_to_do_lets_what_is_worse_go_first() {
    let scene = Scene::new(false);
    for number in 0..60 {
        scene.open(Severity::P1, &format!("incident {number}")).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    scene.room.told.lock().unwrap().clear();
    let (cancel, notifier) = (CancellationToken::new(), scene.notifier());
    let begun = tokio::time::Instant::now();
    let moments = [100, 400, 900, 2000, 4000].map(Duration::from_millis);
    // These calls come back when the service has let go of the channel; what they say is out long before.
    let scene = &scene;
    let calls = futures::future::join_all(moments.map(|moment| async move {
        tokio::time::sleep_until(begun + moment).await;
        scene.open(Severity::P0, &format!("worse {moment:?}")).await;
    }));
    let watch = async {
        tokio::time::sleep_until(begun + Duration::from_secs(6)).await;
        let told = scene.room.told.lock().unwrap().clone();
        cancel.cancel();
        told
    };
    let (ended, told, _) = tokio::join!(notifier.follow(&cancel, |_| {}), watch, calls);
    ended.unwrap();
    let steps = told.iter().filter(|(kind, ..)| *kind == Kind::Escalation).count();
    assert!((15..60).contains(&steps), "{steps} steps were told meanwhile");
    for moment in moments {
        let title = format!("worse {moment:?}");
        let at =
            told.iter().find(|(_, told, _)| *told == title).map(|(.., at)| at.duration_since(begun + moment));
        assert!(at.is_some_and(|wait| wait < Duration::from_millis(700)), "{title} came after {at:?}");
    }
}
