//! Retention against random histories, attackers and clocks.

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;

use super::*;
use crate::config::{RetentionConfig, TimeSpan};

const DAY: i64 = 86_400;

fn span(hours: u64) -> TimeSpan {
    TimeSpan::from_secs(hours * 3600)
}

fn start() -> Timestamp {
    // 2026-01-01T02:00:00Z
    Timestamp::constant(1_767_232_800, 0)
}

fn after(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

fn id(number: usize) -> SetId {
    SetId::parse(format!("20260101T000000Z-{number:010x}")).unwrap()
}

fn good(number: usize, seconds: i64) -> Candidate {
    Candidate {
        set: id(number),
        group: "g0".to_owned(),
        store_time: after(seconds),
        health: Health::Good,
        parent: Parent::None,
        hold: Hold::None,
    }
}

fn kept(candidates: &[Candidate], rules: &Rules) -> BTreeSet<SetId> {
    decide(candidates, rules).into_iter().filter(|d| !d.is_removal()).map(|d| d.set).collect()
}

fn kept_numbers(candidates: &[Candidate], rules: &Rules) -> Vec<usize> {
    let kept = kept(candidates, rules);
    (0..candidates.len()).filter(|number| kept.contains(&candidates[*number].set)).collect()
}

fn daily_history(days: usize) -> Vec<Candidate> {
    (0..days).map(|day| good(day, day as i64 * DAY)).collect()
}

#[test]
fn every_key_of_the_configuration_is_a_rule() {
    let mut config = RetentionConfig::default();
    assert_eq!(Rules::from(&config), Rules::default());
    let count = std::num::NonZeroU32::new;
    (config.keep_last, config.keep_hourly, config.keep_daily) = (count(1), count(2), count(3));
    (config.keep_weekly, config.keep_monthly, config.keep_yearly) = (count(4), count(5), count(6));
    (config.keep_within, config.min_age) = (Some(span(7)), Some(span(8)));
    (config.keep_incomplete, config.max_silence) = (Some(span(9)), Some(span(10)));
    let rules = Rules::default().last(1).hourly(2).daily(3).weekly(4).monthly(5).yearly(6);
    let rules = rules.within(span(7)).min_age(span(8)).keep_incomplete(span(9)).max_silence(span(10));
    assert_eq!(Rules::from(&config), rules);
}

#[test]
fn without_rules_nothing_is_removed() {
    let mut history = daily_history(3000);
    history[5].health = Health::Incomplete;
    assert_eq!(kept(&history, &Rules::default()).len(), 3000);
}

#[test]
fn last_counts_settled_good_sets_and_keeps_the_young_besides() {
    let history = daily_history(30);
    // The newest is young; 28 to 22 are the seven newest that have settled.
    assert_eq!(kept_numbers(&history, &Rules::default().last(7)), (22..30).collect::<Vec<_>>());
    let at_once = Rules::default().last(7).min_age(span(0));
    assert_eq!(kept_numbers(&history, &at_once), (23..30).collect::<Vec<_>>());
}

#[test]
fn within_is_counted_back_from_the_newest_settled_set() {
    let history = daily_history(60);
    let rules = Rules::default().within(span(24 * 30)).min_age(span(0));
    assert_eq!(kept_numbers(&history, &rules), (29..60).collect::<Vec<_>>());
}

#[test]
fn grandfather_father_son_keeps_the_first_of_each() {
    let history = daily_history(365);
    let rules = Rules::default().daily(7).weekly(4).monthly(12).yearly(1).min_age(span(0));
    let kept: Vec<String> = decide(&history, &rules)
        .into_iter()
        .filter(|decision| !decision.is_removal())
        .map(|decision| decision.store_time.to_string()[..10].to_owned())
        .collect();
    let months = (1..=12).map(|month| format!("2026-{month:02}-01"));
    let weeks = ["2026-12-07", "2026-12-14", "2026-12-21", "2026-12-28"].map(str::to_owned);
    let days = (25..=31).map(|day| format!("2026-12-{day:02}"));
    let expected: BTreeSet<String> = months.chain(weeks).chain(days).collect();
    assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn databases_do_not_count_against_each_other() {
    let mut history = daily_history(40);
    history[0].group = "rare".to_owned();
    let rules = Rules::default().last(3).min_age(span(0));
    assert_eq!(kept_numbers(&history, &rules), vec![0, 37, 38, 39]);
}

#[test]
fn a_pause_does_not_age_the_history() {
    let mut history = daily_history(30);
    history.extend([good(30, 400 * DAY), good(31, 401 * DAY), good(32, 402 * DAY)]);
    let rules = Rules::default().within(span(24 * 40));
    assert_eq!(kept(&history, &rules).len(), 33);
}

#[test]
fn incomplete_sets_stay_for_a_look_and_then_go() {
    let mut history = daily_history(20);
    history[5].health = Health::Incomplete;
    history[15].health = Health::Incomplete;
    let rules = Rules::default().last(30);
    let removed: Vec<_> = decide(&history, &rules).into_iter().filter(Decision::is_removal).collect();
    assert_eq!(removed.len(), 1);
    assert_eq!(removed[0].set, id(5));
}

#[test]
fn a_claimed_failure_costs_a_set_nothing() {
    let honest = daily_history(30);
    let rules = Rules::default().last(5).daily(7).weekly(3);
    let before = kept(&honest, &rules);
    let mut attacked = honest;
    attacked.iter_mut().step_by(2).for_each(|candidate| candidate.health = Health::Doubtful);
    assert!(kept(&attacked, &rules).is_superset(&before));
}

#[test]
fn a_release_must_settle_before_it_counts() {
    let mut history = daily_history(30);
    let newest = history[29].store_time;
    let rules = Rules::default().last(3);
    history[2].hold = Hold::Released(newest - SignedDuration::from_hours(2));
    assert!(kept(&history, &rules).contains(&id(2)));
    history[2].hold = Hold::Released(newest - SignedDuration::from_hours(30));
    assert!(!kept(&history, &rules).contains(&id(2)));
}

#[test]
fn a_parent_outlives_its_last_kept_child() {
    let mut history = daily_history(30);
    history[28].parent = Parent::Set(id(10));
    history[10].parent = Parent::Set(id(3));
    let decisions = decide(&history, &Rules::default().last(2));
    let reason = |number: usize| decisions[number].keep.clone();
    assert_eq!(reason(10), [Reason::NeededBy { set: id(28) }]);
    assert_eq!(reason(3), [Reason::NeededBy { set: id(10) }]);
    assert!(reason(4).is_empty());
}

#[test]
fn an_unreadable_set_keeps_what_it_may_need_where_sets_have_parents() {
    let mut history = daily_history(10);
    history[4].health = Health::Unreadable;
    history[4].parent = Parent::Unknown;
    let rules = Rules::default().last(2).min_age(span(0));
    assert_eq!(kept_numbers(&history, &rules), [4, 8, 9]);
    history[9].parent = Parent::Set(id(8));
    assert_eq!(kept_numbers(&history, &rules), [0, 1, 2, 3, 4, 8, 9]);
}

/// A candidate made from random bits: one number each, because that is what generating costs.
fn candidate_from(bits: u64, number: usize, all: usize, seconds: &mut i64) -> Candidate {
    let take = |shift: u32, below: u64| (bits >> shift & 0xFF) % below;
    // Gaps from minutes to weeks, all below the default silence.
    let longest = [3600, 2 * DAY, 20 * DAY][take(0, 3) as usize];
    *seconds += (bits >> 40) as i64 % longest;
    let health = match take(8, 9) {
        0 => Health::Doubtful,
        1 => Health::Incomplete,
        2 => Health::Unreadable,
        _ => Health::Good,
    };
    // Any set, later ones and itself included: manifests may say what they like.
    let parent = match take(16, 4) {
        0 => Parent::Set(id(take(20, all as u64) as usize)),
        1 if health == Health::Unreadable => Parent::Unknown,
        _ => Parent::None,
    };
    let hold = match take(28, 20) {
        0 => Hold::Held,
        1 => Hold::Released(after(*seconds)),
        _ => Hold::None,
    };
    let group = format!("g{}", take(32, 3));
    Candidate { set: id(number), group, store_time: after(*seconds), health, parent, hold }
}

prop_compose! {
    fn any_history()(parts in proptest::collection::vec(any::<u64>(), 1..30)) -> Vec<Candidate> {
        let mut seconds = 0;
        let make = |(number, bits): (usize, &u64)| candidate_from(*bits, number, parts.len(), &mut seconds);
        parts.iter().enumerate().map(make).collect()
    }
}

prop_compose! {
    fn any_rules()(bits in any::<u64>()) -> Rules {
        // Each count is 0 more often than not.
        let count = |shift: u32| ((bits >> shift & 0xF) as u32).saturating_sub(9);
        let rules = Rules::default().last(count(0)).hourly(count(4)).daily(count(8));
        let rules = rules.weekly(count(12)).monthly(count(16)).yearly(count(20));
        let min_age = if bits >> 24 & 1 == 0 { 0 } else { bits >> 25 & 0x7F };
        let within = (bits >> 32 & 1 == 0).then(|| span(24 * (1 + (bits >> 33 & 0x7F))));
        Rules { within, ..rules.min_age(span(min_age)) }
    }
}

fn newest_good<'a>(history: &'a [Candidate], group: &str) -> Option<&'a Candidate> {
    let good = history.iter().filter(|c| c.group == group && c.health == Health::Good);
    good.max_by_key(|candidate| (candidate.store_time, &candidate.set))
}

fn config(cases: u32) -> ProptestConfig {
    // The default generator takes longer than everything under test together when it is not optimised.
    let rng_algorithm = RngAlgorithm::XorShift;
    ProptestConfig { cases, failure_persistence: None, rng_algorithm, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(10_000))]

    #[test]
    fn parents_last_good_sets_and_holds_survive(history in any_history(), rules in any_rules()) {
        let kept = kept(&history, &rules);
        for candidate in &history {
            if kept.contains(&candidate.set)
                && let Some(parent) = candidate.parent.set()
            {
                prop_assert!(kept.contains(parent), "{parent} is needed by {}", candidate.set);
            }
            if candidate.hold == Hold::Held || candidate.health == Health::Unreadable {
                prop_assert!(kept.contains(&candidate.set));
            }
            if let Some(newest) = newest_good(&history, &candidate.group) {
                prop_assert!(kept.contains(&newest.set));
            }
        }
    }

    #[test]
    fn a_flood_of_new_sets_changes_nothing(
        history in any_history(),
        rules in any_rules(),
        flood in proptest::collection::vec(any::<u64>(), 1..30),
    ) {
        // Without a minimum age nothing is promised.
        let rules = Rules { min_age: rules.min_age.max(TimeSpan::from_secs(60)), ..rules };
        let newest = history.iter().map(|c| c.store_time).max().unwrap();
        let before = kept(&history, &rules);
        let mut flooded = history.clone();
        flooded.extend(flood.iter().enumerate().map(|(number, bits)| {
            let made = candidate_from(*bits, 1000 + number, 1, &mut 0);
            Candidate { store_time: newest, parent: Parent::None, hold: Hold::None, ..made }
        }));
        let mut after = kept(&flooded, &rules);
        after.retain(|set| *set < id(1000));
        prop_assert_eq!(after, before);
    }

    #[test]
    fn a_clock_that_jumps_ahead_removes_nothing_more(
        history in any_history(),
        rules in any_rules(),
        jump_at in 0usize..40,
        days in 66i64..4000,
    ) {
        // The calendar rules count units that exist, so only the rules that look at ages are put to the test.
        let last = rules.last.max(1);
        let rules = Rules { last, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, ..rules };
        let mut jumped = history.clone();
        for candidate in jumped.iter_mut().skip(jump_at) {
            candidate.store_time += SignedDuration::from_hours(24 * days);
            if let Hold::Released(at) = &mut candidate.hold {
                *at += SignedDuration::from_hours(24 * days);
            }
        }
        prop_assert!(kept(&jumped, &rules).is_superset(&kept(&history, &rules)));
    }
}

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn rules_keep_what_they_promise(history in any_history(), rules in any_rules()) {
        let kept = kept(&history, &rules);
        let newest_time = history.iter().map(|c| c.store_time).max().unwrap();
        for group in ["g0", "g1", "g2"] {
            let mut settled: Vec<_> = history
                .iter()
                .filter(|c| c.group == group && c.health == Health::Good)
                .filter(|c| newest_time.duration_since(c.store_time) >= length(rules.min_age))
                .collect();
            settled.sort_by_key(|c| std::cmp::Reverse((c.store_time, c.set.clone())));
            for set in settled.iter().take(rules.last as usize) {
                prop_assert!(kept.contains(&set.set));
            }
            let day_of = |c: &Candidate| c.store_time.as_second() / DAY;
            let days: BTreeSet<_> = settled.iter().map(|c| day_of(c)).collect();
            for day in days.into_iter().rev().take(rules.daily as usize) {
                prop_assert!(settled.iter().any(|c| day_of(c) == day && kept.contains(&c.set)), "{day}");
            }
            if let (Some(within), Some(newest)) = (rules.within, settled.first()) {
                for set in &settled {
                    let distance = newest.store_time.duration_since(set.store_time);
                    prop_assert!(distance > length(within) || kept.contains(&set.set));
                }
            }
        }
    }

    #[test]
    fn bad_sets_of_any_age_evict_no_good_one(
        history in any_history(),
        rules in any_rules(),
        flood in proptest::collection::vec((0usize..40, 0u8..3, any::<bool>()), 1..40),
    ) {
        let good_only = |sets: &[Candidate]| -> BTreeSet<SetId> {
            let kept = kept(sets, &rules);
            let good = sets.iter().filter(|c| c.health == Health::Good && c.set < id(1000));
            good.filter(|c| kept.contains(&c.set)).map(|c| c.set.clone()).collect()
        };
        // A doubtful set may lose its place to another doubtful one, and with it the hold on its parent.
        let mut history = history;
        let doubted = |c: &&mut Candidate| matches!(c.health, Health::Doubtful | Health::Incomplete);
        history.iter_mut().filter(doubted).for_each(|candidate| candidate.parent = Parent::None);
        let mut flooded = history.clone();
        flooded.extend(flood.iter().enumerate().map(|(number, (beside, group, incomplete))| Candidate {
            set: id(1000 + number),
            group: format!("g{group}"),
            store_time: history[beside % history.len()].store_time,
            health: if *incomplete { Health::Incomplete } else { Health::Doubtful },
            parent: Parent::None,
            hold: Hold::None,
        }));
        prop_assert_eq!(good_only(&flooded), good_only(&history));
    }

    #[test]
    fn a_second_prune_finds_nothing_to_remove(history in any_history(), rules in any_rules()) {
        let kept = kept(&history, &rules);
        let survivors: Vec<_> = history.into_iter().filter(|c| kept.contains(&c.set)).collect();
        prop_assert!(decide(&survivors, &rules).iter().all(|decision| !decision.is_removal()));
    }
}
