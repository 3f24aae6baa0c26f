//! What one channel does next: pure, over everything that waits for it.
//!
//! Notices of one thread go in the order they were written; threads do not wait for each other, and the worst severity
//! goes first, what is new before what repeats. A channel that asked to be left alone is left alone by all threads. What is late is merged: a run of
//! updates becomes one message, and a reminder that something newer has overtaken is dropped.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::record::Attempted;
use super::schedule::Rules;
use crate::notice::Kind;
use crate::severity::Severity;

/// Updates that become one message at most; beyond it a message would hardly be read, or fit.
const MOST_MERGED: usize = 200;

/// One parcel as a channel sees it.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its number.
    pub seq: u64,
    /// Its thread.
    pub thread: String,
    /// What it is about.
    pub kind: Kind,
    /// How bad.
    pub severity: Severity,
    /// When it was written.
    pub created: Timestamp,
    /// How far it is.
    pub state: Attempted,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send a parcel, and the words of the later ones of `group` with it.
    Send {
        /// The parcel.
        seq: u64,
        /// The later ones.
        group: Vec<u64>,
    },
    /// Drop a parcel that something newer has overtaken.
    Drop {
        /// The parcel.
        seq: u64,
    },
    /// Nothing before that.
    Wait {
        /// When to look again.
        until: Timestamp,
    },
    /// Nothing at all.
    Idle,
}

/// Whether it is late.
#[must_use]
pub fn is_late(created: Timestamp, now: Timestamp, rules: &Rules) -> bool {
    now.duration_since(created) >= rules.late_after
}

/// The next thing to do for everything that is pending in this lane, in order of `seq`.
#[must_use]
pub fn next(items: &[Item], now: Timestamp, rules: &Rules) -> Next {
    let told: BTreeSet<u64> = items.iter().flat_map(|item| item.state.group.iter().copied()).collect();
    let open: Vec<&Item> =
        items.iter().filter(|item| !item.state.phase.is_settled() && !told.contains(&item.seq)).collect();
    let pause = items.iter().filter(|item| item.state.is_limited && !item.state.phase.is_settled());
    let pause = pause.map(|item| item.state.due()).max().filter(|until| *until > now);
    let mut threads: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in open {
        threads.entry(item.thread.as_str()).or_default().push(item);
    }
    // What is dropped needs no channel.
    for waiting in threads.values() {
        if let [first, .., last] = waiting.as_slice()
            && first.kind.is_passing()
            && first.state.unknown == 0
            && last.seq > first.seq
            // The channel's own wish to be left alone is kept with it.
            && !(first.state.is_limited && first.state.due() > now)
            && is_late(first.created, now, rules)
        {
            return Next::Drop { seq: first.seq };
        }
    }
    let heads = threads.values().filter_map(|waiting| waiting.first().map(|head| (*head, waiting)));
    let due = |head: &Item| pause.unwrap_or(now).max(head.state.due());
    let ready = heads.clone().filter(|(head, _)| due(head) <= now);
    // What is new goes before what was said already: hundreds of reminders must not hold up the next incident.
    let order = |head: &Item| (head.severity, head.kind.is_passing(), head.seq);
    if let Some((head, waiting)) = ready.min_by_key(|(head, _)| order(head)) {
        return Next::Send { seq: head.seq, group: group(head, waiting, now, rules) };
    }
    match heads.map(|(head, _)| due(head)).min() {
        Some(until) => Next::Wait { until },
        None => Next::Idle,
    }
}

/// The later parcels that go with a head. A group that may have arrived stays what it was.
fn group(head: &Item, waiting: &[&Item], now: Timestamp, rules: &Rules) -> Vec<u64> {
    if head.state.unknown > 0 {
        return head.state.group.clone();
    }
    if !head.kind.is_mergeable() || !is_late(head.created, now, rules) {
        return Vec::new();
    }
    let rest = waiting.iter().skip(1).take_while(|item| item.kind.is_mergeable() || item.kind.is_passing());
    rest.take(MOST_MERGED).filter(|item| item.state.unknown == 0).map(|item| item.seq).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outbox::record::Phase;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn item(seq: u64, thread: &str, kind: Kind, severity: Severity, created: i64) -> Item {
        let state = Attempted::fresh(at(created));
        Item { seq, thread: thread.to_owned(), kind, severity, created: at(created), state }
    }

    #[test]
    fn late_updates_become_one_and_order_is_kept() {
        let rules = Rules::default();
        let mut items = vec![
            item(1, "a", Kind::Opened, Severity::P1, 0),
            item(2, "a", Kind::Update, Severity::P1, 60),
            item(3, "a", Kind::Update, Severity::P1, 120),
            item(4, "a", Kind::Reminder, Severity::P1, 130),
            item(5, "a", Kind::Resolved, Severity::P1, 180),
        ];
        assert_eq!(next(&items, at(190), &rules), Next::Send { seq: 1, group: vec![] });
        items[0].state.phase = Phase::Accepted;
        assert_eq!(
            next(&items, at(190), &rules),
            Next::Send { seq: 2, group: vec![] },
            "nothing is late yet"
        );
        assert_eq!(next(&items, at(2000), &rules), Next::Send { seq: 2, group: vec![3, 4] });
        items[1].state.phase = Phase::Accepted;
        items[1].state.group = vec![3, 4];
        assert_eq!(next(&items, at(2000), &rules), Next::Send { seq: 5, group: vec![] });
        items[4].state.phase = Phase::Accepted;
        assert_eq!(next(&items, at(2000), &rules), Next::Idle);
    }

    #[test]
    fn a_group_that_may_have_arrived_is_not_changed() {
        let mut items: Vec<_> = (1..5).map(|seq| item(seq, "a", Kind::Update, Severity::P1, 0)).collect();
        items[0].state.unknown = 1;
        items[0].state.group = vec![2];
        let sent = next(&items, at(5000), &Rules::default());
        assert_eq!(sent, Next::Send { seq: 1, group: vec![2] });
    }

    #[test]
    fn the_worst_goes_first_and_a_limit_stops_all() {
        let rules = Rules::default();
        let mut items =
            vec![item(1, "a", Kind::Opened, Severity::P3, 0), item(2, "b", Kind::Opened, Severity::P0, 10)];
        assert_eq!(next(&items, at(20), &rules), Next::Send { seq: 2, group: vec![] });
        items[0].state.is_limited = true;
        items[0].state.not_before = at(300);
        assert_eq!(next(&items, at(20), &rules), Next::Wait { until: at(300) });
        assert_eq!(next(&items, at(300), &rules), Next::Send { seq: 2, group: vec![] });
        items[0].state.is_limited = false;
        assert_eq!(
            next(&items, at(20), &rules),
            Next::Send { seq: 2, group: vec![] },
            "only that thread waits"
        );
    }

    #[test]
    fn a_new_incident_goes_before_the_reminders_of_all_others() {
        let mut items: Vec<Item> = (1..300)
            .map(|seq| {
                let kind = if seq % 2 == 0 { Kind::Reminder } else { Kind::Escalation };
                item(seq, &format!("old {seq}"), kind, Severity::P0, 0)
            })
            .collect();
        items.push(item(300, "new", Kind::Opened, Severity::P0, 5));
        assert_eq!(next(&items, at(10), &Rules::default()), Next::Send { seq: 300, group: vec![] });
        items.push(item(301, "mild", Kind::Opened, Severity::P1, 5));
        items[299].state.phase = Phase::Accepted;
        assert_eq!(next(&items, at(10), &Rules::default()), Next::Send { seq: 1, group: vec![] });
    }

    #[test]
    fn overtaken_reminders_are_dropped_only_when_late() {
        let rules = Rules::default();
        let items =
            vec![item(1, "a", Kind::Reminder, Severity::P0, 0), item(2, "a", Kind::Update, Severity::P0, 10)];
        assert_eq!(next(&items, at(20), &rules), Next::Send { seq: 1, group: vec![] });
        assert_eq!(next(&items, at(5000), &rules), Next::Drop { seq: 1 });
        assert_eq!(next(&items[..1], at(5000), &rules), Next::Send { seq: 1, group: vec![] });
    }

    #[test]
    fn an_overtaken_reminder_that_carries_the_wish_of_its_channel_keeps_it() {
        let mut items =
            vec![item(1, "a", Kind::Reminder, Severity::P0, 0), item(2, "a", Kind::Update, Severity::P0, 10)];
        items[0].state.is_limited = true;
        items[0].state.not_before = at(9000);
        assert_eq!(next(&items, at(5000), &Rules::default()), Next::Wait { until: at(9000) });
        assert_eq!(next(&items, at(9000), &Rules::default()), Next::Drop { seq: 1 });
    }

    proptest! {
        #[test]
        fn everything_is_told_once_in_order(kinds in proptest::collection::vec((0_usize..12, 0_usize..3), 1..40), age in 0_i64..2000) {
            let rules = Rules::default();
            let threads = ["a", "b", "c"];
            let mut items: Vec<_> = kinds
                .iter()
                .zip(1..)
                .map(|((kind, thread), seq)| item(seq, threads[*thread], Kind::ALL[*kind], Severity::P2, 0))
                .collect();
            let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            loop {
                match next(&items, at(age), &rules) {
                    Next::Send { seq, group } => {
                        let index = usize::try_from(seq).unwrap() - 1;
                        let thread = told.entry(items[index].thread.clone()).or_default();
                        thread.push(seq);
                        thread.extend(&group);
                        items[index].state.phase = Phase::Accepted;
                        items[index].state.group = group;
                    }
                    Next::Drop { seq } => items[usize::try_from(seq).unwrap() - 1].state.phase = Phase::Superseded,
                    Next::Idle => break,
                    Next::Wait { .. } => prop_assert!(false, "nothing has a reason to wait"),
                }
            }
            let all: Vec<u64> = told.values().flatten().copied().collect();
            let unique: BTreeSet<u64> = all.iter().copied().collect();
            prop_assert_eq!(all.len(), unique.len());
            for order in told.values() {
                prop_assert!(order.is_sorted(), "{:?}", order);
            }
            for item in &items {
                prop_assert!(unique.contains(&item.seq) || item.state.phase == Phase::Superseded);
            }
        }
    }
}
