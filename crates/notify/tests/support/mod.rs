//! What the tests of notifications share.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::clock::ManualClock;
use backstay_backup_core::config::NotifyPolicy;
use backstay_backup_core::secret::Secret;
use backstay_notify::channel::http::{self, Client};
use backstay_notify::channel::slack::SlackWebhook;
use backstay_notify::channel::webhook::Webhook;
use backstay_notify::channel::{Channel, Registry};
use backstay_notify::policy::Policy;
use backstay_notify::{Notifier, Setup};
use jiff::Timestamp;

/// Where virtual time begins.
pub const BEGIN: i64 = 1_800_000_000;

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(BEGIN + seconds).unwrap()
}

pub fn client() -> Client {
    Client::new(None, Duration::from_secs(2)).unwrap()
}

pub fn webhook(url: &str) -> Arc<dyn Channel> {
    let key = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
    Arc::new(Webhook::new(client(), http::address(url, false).unwrap(), Some(&key)).unwrap())
}

pub fn slack_webhook(url: &str) -> Arc<dyn Channel> {
    Arc::new(SlackWebhook::new(client(), http::address(url, false).unwrap(), None))
}

pub fn registry(channels: Vec<(&str, Arc<dyn Channel>)>) -> Registry {
    let mut registry = Registry::default();
    for (name, channel) in channels {
        registry.channels.insert(name.to_owned(), channel);
        // A clock that stands still would never give a turn back.
        registry.per_minute.insert(name.to_owned(), u32::MAX);
    }
    registry
}

pub fn policy(row: &[&str]) -> NotifyPolicy {
    let names: Vec<String> = row.iter().map(|name| (*name).to_owned()).collect();
    let mut policy = NotifyPolicy::default();
    for row in [&mut policy.p0, &mut policy.p1, &mut policy.p2, &mut policy.p3] {
        row.channels = Some(names.clone());
        row.escalation = Some(Vec::new());
        row.update_every = Some(backstay_backup_core::config::TimeSpan::from_secs(0));
    }
    policy
}

/// A notifier whose severities all go to all of these channels, without timers.
pub fn setup(state: &Path, clock: &ManualClock, channels: Vec<(&str, Arc<dyn Channel>)>) -> Setup {
    let names: Vec<&str> = channels.iter().map(|(name, _)| *name).collect();
    let policy = Policy::new(&policy(&names), names.iter().map(|name| (*name).to_owned()));
    let mut setup = Setup::new(state, policy, Arc::new(clock.clone()), "test on host-a");
    setup.registry = registry(channels);
    setup
}

pub fn notifier(state: &Path, clock: &ManualClock, channels: Vec<(&str, Arc<dyn Channel>)>) -> Notifier {
    Notifier::open(setup(state, clock, channels)).unwrap()
}
