//! Leases on stores of three abilities, and with faults at each call.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::fault::{ErrorKind, Fault, Mishap, Operation};
use crate::memory::MemoryStore;
use crate::store::{Capabilities, SharedStore};

fn now() -> Timestamp {
    "2026-11-22T22:00:00Z".parse().unwrap()
}

fn stanza() -> Stanza {
    Stanza::parse("main").unwrap()
}

/// A clock that advances with tokio's, so that paused time moves both.
#[derive(Debug)]
pub(crate) struct PacedClock {
    began: Instant,
    /// Stores tell times in whole seconds.
    whole_seconds: bool,
}

impl PacedClock {
    pub(crate) fn new(whole_seconds: bool) -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), whole_seconds })
    }
}

impl Clock for PacedClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.began.elapsed()).unwrap();
        let elapsed = if self.whole_seconds { SignedDuration::from_secs(elapsed.as_secs()) } else { elapsed };
        now() + elapsed
    }
}

const MODES: [(bool, bool, LeaseMode); 3] = [
    (true, true, LeaseMode::CompareAndSwap),
    (true, false, LeaseMode::CreateOnly),
    (false, false, LeaseMode::Advisory),
];

pub(super) fn memory(clock: Arc<dyn Clock>, create_only: bool, compare_and_swap: bool) -> SharedStore {
    let can = Capabilities { create_only, compare_and_swap, min_part: 1, max_parts: 10 };
    Arc::new(MemoryStore::with_capabilities(clock, can))
}

pub(super) async fn repository(store: SharedStore) -> Repository {
    Repository::open_or_create("store", store, &ManualClock::at(now())).await.unwrap()
}

async fn acquire(repository: &Repository, holder: &str) -> Result<Lease, Error> {
    Lease::acquire(repository, &stanza(), "backup", &LeaseOptions::new(holder)).await
}

#[tokio::test(start_paused = true)]
async fn a_lease_excludes_others_until_it_is_released() {
    for (create_only, swap, mode) in MODES {
        let repository = repository(memory(PacedClock::new(false), create_only, swap)).await;
        let first = acquire(&repository, "first").await.unwrap();
        assert_eq!((first.token(), first.mode()), (1, mode));
        match acquire(&repository, "second").await {
            Err(Error::Lease(LeaseError::Held { holder, .. })) => assert_eq!(holder, "first"),
            other => panic!("{mode:?}: {other:?}"),
        }
        first.check().await.unwrap();
        first.renew().await.unwrap();
        first.release().await.unwrap();
        let second = acquire(&repository, "second").await.unwrap();
        assert_eq!(second.token(), 2, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_holder_is_replaced_after_its_time_and_notices() {
    for (create_only, swap, mode) in MODES {
        let repository = repository(memory(PacedClock::new(true), create_only, swap)).await;
        let crashed = acquire(&repository, "crashed").await.unwrap();
        tokio::time::sleep(Duration::from_secs(55)).await;
        assert!(
            matches!(acquire(&repository, "next").await, Err(Error::Lease(LeaseError::Held { .. }))),
            "{mode:?}"
        );
        tokio::time::sleep(Duration::from_secs(10)).await;
        let next = acquire(&repository, "next").await.unwrap();
        assert_eq!(next.token(), 2);
        for lost in [crashed.check().await, crashed.renew().await] {
            assert!(
                matches!(lost, Err(Error::Lease(LeaseError::Lost { ref holder, .. })) if holder == "next"),
                "{mode:?}"
            );
        }
        assert!(matches!(crashed.release().await, Err(Error::Lease(LeaseError::Lost { .. }))));
        next.check().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn keeping_a_lease_holds_it_far_beyond_its_time() {
    let repository = repository(memory(PacedClock::new(true), true, true)).await;
    let lease = acquire(&repository, "long").await.unwrap();
    tokio::select! {
        error = lease.keep() => panic!("{error}"),
        () = tokio::time::sleep(Duration::from_secs(3600)) => {}
    }
    assert!(matches!(acquire(&repository, "other").await, Err(Error::Lease(LeaseError::Held { .. }))));
    assert_eq!(lease.token(), 1);
}

#[tokio::test(start_paused = true)]
async fn keeping_ends_when_the_store_is_gone_for_too_long() {
    let fault = Arc::new(Fault::new(memory(PacedClock::new(false), true, true), 7));
    let repository = repository(fault.clone()).await;
    let lease = acquire(&repository, "cut off").await.unwrap();
    let begin = Instant::now();
    fault.always(Operation::Put, Mishap::Error(ErrorKind::Temporary));
    assert!(matches!(lease.keep().await, Error::Store { .. }));
    let ended = begin.elapsed();
    assert!((Duration::from_secs(60)..Duration::from_secs(61)).contains(&ended), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn overdue_but_untaken_leases_are_renewed_by_a_check() {
    let repository = repository(memory(PacedClock::new(false), true, true)).await;
    let lease = acquire(&repository, "slept").await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(lease.remaining().await.is_zero());
    lease.check().await.unwrap();
    assert!(lease.remaining().await > Duration::from_secs(50));
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_at_any_call_leaves_one_holder() {
    for (create_only, swap, mode) in MODES {
        for call in 1..=12 {
            let fault = Arc::new(Fault::new(memory(PacedClock::new(false), create_only, swap), call));
            let repository = repository(fault.clone()).await;
            let before = fault.calls().len() as u64;
            fault.on_call(before + call, Mishap::LostReply);
            let first = acquire(&repository, "first").await;
            let renewed = match &first {
                Ok(lease) => lease.renew().await.is_ok(),
                Err(_) => false,
            };
            fault.calm();
            if let Ok(lease) = &first {
                lease.check().await.unwrap_or_else(|error| panic!("{mode:?} {call}: {error}"));
                lease.renew().await.unwrap_or_else(|error| panic!("{mode:?} {call} {renewed}: {error}"));
                let other = acquire(&repository, "other").await;
                assert!(
                    matches!(other, Err(Error::Lease(LeaseError::Held { .. }))),
                    "{mode:?} {call}: {other:?}"
                );
            }
            tokio::time::sleep(Duration::from_secs(70)).await;
            let other = acquire(&repository, "other").await.unwrap();
            if let Ok(lease) = &first {
                assert!(other.token() > lease.token());
                assert!(
                    matches!(lease.check().await, Err(Error::Lease(LeaseError::Lost { .. }))),
                    "{mode:?} {call}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn collected_log_entries_do_not_let_a_sleeper_back_in() {
    let store = memory(PacedClock::new(false), true, false);
    let repository = repository(store.clone()).await;
    let sleeper = acquire(&repository, "sleeper").await.unwrap();
    tokio::time::sleep(Duration::from_secs(70)).await;
    let next = acquire(&repository, "next").await.unwrap();
    next.renew().await.unwrap();
    for number in [1, 2] {
        let key = crate::key::Key::parse(format!("main/leases/backup/{number:020}.json")).unwrap();
        store.head(&key).await.unwrap();
        store.delete(&key).await.unwrap();
    }
    assert!(matches!(sleeper.renew().await, Err(Error::Lease(LeaseError::Lost { .. }))));
    next.check().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_an_error_not_a_free_lease() {
    let fault = Arc::new(Fault::new(memory(PacedClock::new(false), true, true), 3));
    let repository = repository(fault.clone()).await;
    let lease = acquire(&repository, "first").await.unwrap();
    fault.always(Operation::Get, Mishap::Flip);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(matches!(acquire(&repository, "other").await, Err(Error::Lease(LeaseError::Unreadable { .. }))));
    assert!(matches!(lease.check().await, Err(Error::Lease(LeaseError::Unreadable { .. }))));
}

#[tokio::test(start_paused = true)]
async fn the_stores_clock_is_read_by_writing() {
    for (create_only, swap, mode) in MODES {
        let clock = PacedClock::new(false);
        let repository = repository(memory(clock.clone(), create_only, swap)).await;
        for _ in 0..3 {
            let before = clock.now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            let told = register::store_now(&repository, &stanza()).await.unwrap();
            assert!(before < told && told <= clock.now(), "{mode:?}");
        }
    }
}

#[tokio::test]
async fn names_that_are_not_one_segment_are_refused() {
    let repository = repository(memory(Arc::new(ManualClock::at(now())), true, true)).await;
    for name in ["", "a/b", "..", "clock", "a b"] {
        let options = LeaseOptions::new("x");
        assert!(Lease::acquire(&repository, &stanza(), name, &options).await.is_err(), "{name:?}");
    }
}

mod groups {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::replicas::Repositories;

    async fn two() -> (Repositories, [Arc<Fault>; 2]) {
        let clock = PacedClock::new(false);
        let faults = [1, 2].map(|seed| Arc::new(Fault::new(memory(clock.clone(), true, true), seed)));
        let mut members = Vec::new();
        for (fault, name) in faults.iter().zip(["near", "far"]) {
            members.push(Repository::create(name, fault.clone(), &*clock).await.unwrap());
        }
        (Repositories::new(members, 1, clock).unwrap(), faults)
    }

    async fn group(repositories: &Repositories, holder: &str) -> Result<LeaseGroup, Error> {
        LeaseGroup::acquire(repositories, &stanza(), "backup", &LeaseOptions::new(holder)).await
    }

    #[tokio::test(start_paused = true)]
    async fn one_common_repository_excludes() {
        let (repositories, faults) = two().await;
        faults[0].always(Operation::Get, Mishap::Error(ErrorKind::Temporary));
        let first = group(&repositories, "first").await.unwrap();
        assert_eq!(first.leases().len(), 1);
        faults[0].calm();
        assert!(matches!(group(&repositories, "second").await, Err(Error::Lease(LeaseError::Held { .. }))));
        // What the loser took is free again.
        first.release().await.unwrap();
        let second = group(&repositories, "second").await.unwrap();
        assert_eq!(second.leases().len(), 2);
        second.check().await.unwrap();
    }

    async fn outwait(
        repositories: &Repositories,
        cancel: &CancellationToken,
    ) -> (Result<LeaseGroup, Error>, Duration) {
        let (begin, options) = (Instant::now(), LeaseOptions::new("patient").ttl(Duration::from_secs(20)));
        let ended = LeaseGroup::acquire_or_outwait(repositories, &stanza(), "backup", &options, cancel).await;
        (ended, begin.elapsed())
    }

    async fn short_group(repositories: &Repositories, holder: &str) -> LeaseGroup {
        let options = LeaseOptions::new(holder).ttl(Duration::from_secs(20));
        LeaseGroup::acquire(repositories, &stanza(), "backup", &options).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_holder_is_outwaited() {
        let (repositories, faults) = two().await;
        // The second record is written later than the first and so ends later.
        faults[1].on(Operation::Put, 2, Mishap::Slow(Duration::from_secs(3)));
        drop(short_group(&repositories, "dead").await);
        let (ended, waited) = outwait(&repositories, &CancellationToken::new()).await;
        assert_eq!(ended.unwrap().leases().len(), 2);
        assert!((20..=25).contains(&waited.as_secs()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_living_holder_is_not_waited_for_longer_than_its_next_renewal() {
        let (repositories, _) = two().await;
        let alive = short_group(&repositories, "alive").await;
        let none = CancellationToken::new();
        let (ended, waited) = tokio::select! {
            ended = outwait(&repositories, &none) => ended,
            lost = alive.keep() => panic!("{lost}"),
        };
        assert!(
            matches!(ended, Err(Error::Lease(LeaseError::Held { ref holder, .. })) if holder == "alive"),
            "{ended:?}"
        );
        assert!((6..=8).contains(&waited.as_secs()), "{waited:?}");
        alive.check().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_ends_meanwhile_is_followed_at_once() {
        let (repositories, _) = two().await;
        let brief = short_group(&repositories, "brief").await;
        let ends = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            brief.release().await.unwrap();
        };
        let none = CancellationToken::new();
        let ((ended, waited), ()) = tokio::join!(outwait(&repositories, &none), ends);
        ended.unwrap();
        assert!((3..=4).contains(&waited.as_secs()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_that_wait_one_takes_the_lease_and_a_record_of_long_life_is_given_up_on() {
        let (repositories, _) = two().await;
        drop(short_group(&repositories, "dead").await);
        let none = CancellationToken::new();
        let (one, other) = tokio::join!(outwait(&repositories, &none), outwait(&repositories, &none));
        assert_eq!([one.0.is_ok(), other.0.is_ok()].iter().filter(|took| **took).count(), 1);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let _dead = group(&repositories, "of a minute").await.unwrap();
        let (ended, waited) = outwait(&repositories, &none).await;
        assert!(matches!(ended, Err(Error::Lease(LeaseError::Held { .. }))), "{ended:?}");
        assert!((25..=26).contains(&waited.as_secs()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_cancelled() {
        let (repositories, _) = two().await;
        drop(short_group(&repositories, "dead").await);
        let cancel = CancellationToken::new();
        let stop = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            cancel.cancel();
        };
        let ((ended, waited), ()) = tokio::join!(outwait(&repositories, &cancel), stop);
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
        assert_eq!(waited.as_secs(), 5);
    }

    /// Whether a full store may be worked on without a lease, and how long it took to find out.
    async fn without(repositories: &Repositories) -> (Result<(), Error>, u64) {
        let (begin, options) = (Instant::now(), LeaseOptions::new("full").ttl(Duration::from_secs(20)));
        let none = CancellationToken::new();
        let ended = LeaseGroup::outwait_unwritable(repositories, &stanza(), "backup", &options, &none).await;
        (ended, begin.elapsed().as_secs())
    }

    fn fill(faults: &[Arc<Fault>; 2]) {
        faults.iter().for_each(|fault| fault.always(Operation::Put, Mishap::Error(ErrorKind::Full)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_lack_of_room_everywhere_is_told_as_such() {
        let (repositories, faults) = two().await;
        fill(&faults);
        assert!(group(&repositories, "full").await.unwrap_err().is_full());
        for (full, other) in [(0, 1), (1, 0)] {
            faults[full].calm();
            faults[full].always(Operation::Put, Mishap::Error(ErrorKind::Full));
            faults[other].calm();
            faults[other].always(Operation::Put, Mishap::Error(ErrorKind::Temporary));
            assert!(!group(&repositories, "full").await.unwrap_err().is_full());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_is_free_when_nobody_has_or_had_the_lease() {
        let (repositories, faults) = two().await;
        fill(&faults);
        assert!(matches!(without(&repositories).await, (Ok(()), 0)));
        faults.iter().for_each(|fault| fault.calm());
        short_group(&repositories, "brief").await.release().await.unwrap();
        fill(&faults);
        assert!(matches!(without(&repositories).await, (Ok(()), 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_is_free_after_the_time_of_a_dead_holder() {
        let (repositories, faults) = two().await;
        drop(short_group(&repositories, "dead").await);
        fill(&faults);
        let (ended, waited) = without(&repositories).await;
        ended.unwrap();
        assert!((20..=22).contains(&waited), "{waited}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_is_not_free_beside_a_living_holder() {
        let (repositories, _) = two().await;
        let alive = short_group(&repositories, "alive").await;
        let (ended, waited) = tokio::select! {
            ended = without(&repositories) => ended,
            lost = alive.keep() => panic!("{lost}"),
        };
        assert!(
            matches!(ended, Err(Error::Lease(LeaseError::Held { ref holder, .. })) if holder == "alive"),
            "{ended:?}"
        );
        assert!((6..=8).contains(&waited), "{waited}");
        alive.release().await.unwrap();
        let _minute = group(&repositories, "of a minute").await.unwrap();
        assert!(matches!(without(&repositories).await, (Err(Error::Lease(LeaseError::Held { .. })), 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_whose_record_cannot_be_read_is_not_free() {
        let (repositories, faults) = two().await;
        drop(short_group(&repositories, "dead").await);
        faults[1].always(Operation::Get, Mishap::Error(ErrorKind::Temporary));
        assert!(matches!(without(&repositories).await.0, Err(Error::Store { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_reachable_is_no_lease() {
        let (repositories, faults) = two().await;
        faults.iter().for_each(|fault| fault.always(Operation::Get, Mishap::Error(ErrorKind::Temporary)));
        assert!(matches!(group(&repositories, "first").await, Err(Error::Quorum { .. })));
    }
}
