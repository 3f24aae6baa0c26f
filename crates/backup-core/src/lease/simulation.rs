//! Many contenders, slow and lying stores: never two holders at once, never one token twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::tests::{PacedClock, memory, repository};
use super::*;
use crate::fault::{ErrorKind, Fault, Mishap};

#[derive(Debug, Default)]
struct Ledger {
    tokens: BTreeSet<u64>,
    /// Holder's number and the moment until which it believes to be safe.
    safe: Vec<(usize, Instant)>,
    acquired: usize,
    lost: usize,
}

impl Ledger {
    fn acquired(&mut self, contender: usize, token: u64, until: Instant) {
        let newest = self.tokens.last().copied().unwrap_or(0);
        assert!(token > newest, "token {token} after {newest}");
        self.tokens.insert(token);
        self.acquired += 1;
        self.renewed(contender, until);
    }

    fn renewed(&mut self, contender: usize, until: Instant) {
        let now = Instant::now();
        self.safe.retain(|(other, _)| *other != contender);
        let rival = self.safe.iter().find(|(_, safe)| *safe > now);
        assert!(rival.is_none(), "contender {contender} holds beside {rival:?} at {now:?}");
        self.safe.push((contender, until));
    }

    fn ended(&mut self, contender: usize) {
        self.safe.retain(|(other, _)| *other != contender);
    }
}

/// One process: takes the lease, holds it for a while with pauses of any length, crashes or releases.
async fn contender(number: usize, repository: Repository, ledger: Arc<Mutex<Ledger>>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed * 1000 + number as u64);
    let stanza = Stanza::parse("main").unwrap();
    let options = LeaseOptions::new(&format!("c{number}")).ttl(Duration::from_secs(10));
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..8000))).await;
        let Ok(lease) = Lease::acquire(&repository, &stanza, "task", &options).await else { continue };
        let until = Instant::now() + lease.remaining().await;
        ledger.lock().unwrap().acquired(number, lease.token(), until);
        let mut mine = true;
        for _ in 0..random.random_range(0..6) {
            // Sometimes longer than the lease lives: a process that was stopped or swapped out.
            let pause = if random.random_bool(0.2) { 14_000 } else { 4_000 };
            tokio::time::sleep(Duration::from_millis(random.random_range(0..pause))).await;
            let result = if random.random_bool(0.5) { lease.renew().await } else { lease.check().await };
            match result {
                Ok(()) => {
                    let until = Instant::now() + lease.remaining().await;
                    ledger.lock().unwrap().renewed(number, until);
                }
                Err(Error::Lease(LeaseError::Lost { .. })) => {
                    ledger.lock().unwrap().lost += 1;
                    mine = false;
                    break;
                }
                Err(_) => {}
            }
        }
        ledger.lock().unwrap().ended(number);
        if mine && random.random_bool(0.7) {
            // Success or failure: what counts is that nobody else is disturbed.
            lease.release().await.ok();
        }
    }
}

async fn simulate(seed: u64, compare_and_swap: bool) -> (usize, usize) {
    let clock = PacedClock::new(seed.is_multiple_of(2));
    let fault = Arc::new(Fault::new(memory(clock, true, compare_and_swap), seed));
    let repository = repository(fault.clone()).await;
    let slow = |millis| Mishap::Slow(Duration::from_millis(millis));
    fault.chaos(
        0.4,
        vec![
            Mishap::LostReply,
            Mishap::Error(ErrorKind::Temporary),
            slow(3),
            slow(700),
            slow(1900),
            slow(6500),
        ],
    );
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let contenders = (0..5).map(|number| contender(number, repository.clone(), ledger.clone(), seed));
    futures::future::join_all(contenders).await;
    let ledger = ledger.lock().unwrap();
    (ledger.acquired, ledger.lost)
}

#[tokio::test(start_paused = true)]
async fn there_is_never_more_than_one_holder() {
    for compare_and_swap in [true, false] {
        let (mut acquired, mut lost) = (0, 0);
        for seed in 0..200 {
            let (more_acquired, more_lost) = simulate(seed, compare_and_swap).await;
            acquired += more_acquired;
            lost += more_lost;
        }
        assert!(acquired > 800, "the simulation hardly ever succeeded: {acquired}");
        assert!(lost > 50, "nobody ever lost a lease: {lost}");
    }
}
