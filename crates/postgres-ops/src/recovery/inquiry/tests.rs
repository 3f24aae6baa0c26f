//! Plans of logs that are really stored, and what the log itself says.

use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::error::Classified as _;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use proptest::prelude::*;

use super::*;
use crate::recovery::{StopPoint, TimelineChoice};
use crate::wal::{Segment, SegmentSize};
use crate::wal_records::sample::{SIZE, SYSTEM, Writer};
use crate::wal_records::{RecordReader, RecordSpan};

const START: u64 = 3 * SIZE;

/// A moment so many microseconds after the new year that the log begins with.
fn moment(after: i64) -> Timestamp {
    Timestamp::from_microsecond(1_704_067_200_000_000 + after).unwrap()
}

async fn archive() -> WalArchive {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let repository = Repository::create("a", store, &SystemClock).await.unwrap();
    let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
    WalArchive::new(repositories, Stanza::parse("main").unwrap(), SYSTEM)
}

/// Archives what is full; what a server has begun is not archived.
async fn store(archive: &WalArchive, timeline: u32, log: &Writer) {
    let full = log.bytes.len() as u64 / SIZE;
    for (number, segment) in log.segments().into_iter().enumerate().take(full as usize) {
        let name = format!("{timeline:08X}00000000{:08X}", log.start / SIZE + number as u64);
        archive.push(name.parse().unwrap(), segment.into()).await.unwrap();
    }
}

fn base(stop: Lsn, after: i64) -> BaseBackup {
    BaseBackup {
        set: SetId::parse("20240101T000000Z-0000000001").unwrap(),
        system: SYSTEM,
        timeline: Timeline::FIRST,
        start: Lsn::new(START + 40),
        stop,
        stop_time: moment(after),
        wal: vec![],
    }
}

async fn plan(
    archive: &WalArchive,
    base: &BaseBackup,
    target: RecoveryTarget,
) -> Result<RecoveryPlan, PlanError> {
    let none = Identities::none();
    let survey = archive.survey(&none).await?;
    let request = RecoveryRequest { target, timeline: TimelineChoice::Latest };
    plan_recovery(archive, &none, &request, std::slice::from_ref(base), &survey).await
}

fn refused(result: Result<RecoveryPlan, PlanError>) -> Refusal {
    match result {
        Err(PlanError::Refused(refusal)) => *refusal,
        other => panic!("{other:?}"),
    }
}

/// A log of several segments: every commit a microsecond after the one before, a restore point, and a switch at its end.
fn long_log() -> (Writer, Vec<RecordSpan>) {
    let mut log = Writer::at(1, START);
    let mut commits = Vec::new();
    for number in 0..300u32 {
        let (start, end) = log.commit(1000 + number, i64::from(number));
        commits.push(RecordSpan { start, end });
        log.filler(number as usize * 379 % 30_000);
        if number == 150 {
            log.restore_point("half way", 150);
        }
    }
    log.switch();
    (log, commits)
}

#[tokio::test]
async fn every_kind_of_target_stops_at_the_record_that_it_means() {
    let archive = archive().await;
    let (log, commits) = long_log();
    store(&archive, 1, &log).await;
    let base = base(commits[10].end, 10);
    let at = |number: usize, inclusive| StopPoint::Record { lsn: commits[number].start, inclusive };
    let xid = |xid: u32, inclusive| RecoveryTarget::Xid { xid: Xid::new(xid), inclusive };
    let time = |after, inclusive| RecoveryTarget::Time { at: moment(after), inclusive };
    let lsn = |at, inclusive| RecoveryTarget::Lsn { at, inclusive };
    for (target, stop, end, reached) in [
        (xid(1200, true), at(200, true), commits[200].end, Some(200)),
        (xid(1200, false), at(200, false), commits[200].start, Some(199)),
        (time(200, true), at(201, false), commits[201].start, Some(200)),
        (time(200, false), at(200, false), commits[200].start, Some(199)),
        (lsn(commits[200].start, true), at(200, true), commits[200].end, Some(200)),
        (lsn(commits[200].start, false), at(200, false), commits[200].start, None),
        (RecoveryTarget::Immediate, StopPoint::Immediate, commits[10].end, Some(10)),
    ] {
        let plan = plan(&archive, &base, target.clone()).await.unwrap();
        assert_eq!((plan.stop, plan.expected_end), (stop, end), "{target:?}");
        if let Some(reached) = reached {
            assert_eq!(plan.reached, Some(moment(reached)), "{target:?}");
            assert_eq!(plan.loss.transactions, Some(299 - reached as u64), "{target:?}");
            assert_eq!((plan.loss.until, plan.loss.millis), (Some(moment(299)), Some(0)), "{target:?}");
        }
    }
    let plan = plan(&archive, &base, RecoveryTarget::Name { name: "half way".to_owned() }).await.unwrap();
    assert!(plan.expected_end > commits[150].end && plan.expected_end <= commits[151].start);
}

#[tokio::test]
async fn latest_ends_with_the_last_whole_record_and_names_every_segment() {
    let archive = archive().await;
    let (mut log, commits) = long_log();
    // The last record begins in the last full segment and ends in one that is not archived.
    log.commit(2000, 1000);
    let whole = log.filler(500);
    log.filler(SIZE as usize);
    store(&archive, 1, &log).await;
    let plan = plan(&archive, &base(commits[10].end, 10), RecoveryTarget::Latest).await.unwrap();
    assert_eq!(plan.stop, StopPoint::Record { lsn: whole.0, inclusive: true });
    assert_eq!((plan.expected_end, plan.reached), (whole.1, Some(moment(1000))));
    assert_eq!(plan.segment_count(), log.bytes.len() as u64 / SIZE);
    assert_eq!((plan.loss.bytes, plan.loss.transactions), (0, Some(0)));
}

#[tokio::test]
async fn what_cannot_be_reached_is_refused_with_the_nearest_point() {
    let archive = archive().await;
    let (log, commits) = long_log();
    store(&archive, 1, &log).await;
    let base = base(commits[10].end, 10);
    let time = |after| RecoveryTarget::Time { at: moment(after), inclusive: true };
    let early = refused(plan(&archive, &base, time(9)).await);
    assert!(matches!(&early, Refusal::BeforeConsistency { earliest, .. } if earliest.lsn == commits[10].end));
    let late = refused(plan(&archive, &base, time(299)).await);
    assert!(matches!(&late, Refusal::AfterEnd { last, .. } if last.at == Some(moment(299))), "{late:?}");
    let beyond = RecoveryTarget::Lsn { at: Lsn::new(START + 9 * SIZE), inclusive: true };
    assert!(matches!(refused(plan(&archive, &base, beyond).await), Refusal::AfterEnd { .. }));
    let nobody = RecoveryTarget::Xid { xid: Xid::new(5), inclusive: true };
    assert!(matches!(refused(plan(&archive, &base, nobody).await), Refusal::NotFound { .. }));
}

#[tokio::test]
async fn what_may_lie_in_a_missing_segment_is_not_called_absent() {
    let archive = archive().await;
    let (log, commits) = long_log();
    let mut holed = log.clone();
    holed.bytes.drain(..2 * SIZE as usize);
    holed.start += 2 * SIZE;
    let mut beginning = log.clone();
    beginning.bytes.truncate(SIZE as usize);
    store(&archive, 1, &beginning).await;
    store(&archive, 1, &holed).await;
    let base = base(commits[0].end, 0);
    let name = RecoveryTarget::Name { name: "before-the-release".to_owned() };
    for target in [RecoveryTarget::Xid { xid: Xid::new(5), inclusive: true }, name] {
        let refusal = refused(plan(&archive, &base, target).await);
        let unread = Segment::containing(Timeline::FIRST, Lsn::new(START + SIZE), archive_size());
        assert!(
            matches!(&refusal, Refusal::NotFound { unread: Some(it), .. } if *it == unread),
            "{refusal:?}"
        );
        assert_eq!(refusal.class(), Class::Data);
        assert!(refusal.to_string().contains(&unread.to_string()), "{refusal}");
    }
}

fn archive_size() -> SegmentSize {
    SegmentSize::new(SIZE).unwrap()
}

#[tokio::test]
async fn a_subtransaction_is_told_from_one_that_never_was() {
    let archive = archive().await;
    let mut log = Writer::at(1, START);
    let (_, stop) = log.commit(999, 0);
    let mut data = crate::wal_records::sample::NEW_YEAR.to_le_bytes().to_vec();
    data.extend([2, 0, 0, 0, 1, 0, 0, 0]);
    data.extend(1001u32.to_le_bytes());
    log.data(1, 0x80, 1000, &data);
    log.switch();
    store(&archive, 1, &log).await;
    let target = RecoveryTarget::Xid { xid: Xid::new(1001), inclusive: true };
    let refusal = refused(plan(&archive, &base(stop, 0), target).await);
    assert!(matches!(refusal, Refusal::NotFound { part_of: Some(xid), .. } if xid == Xid::new(1000)));
}

#[tokio::test]
async fn a_log_that_breaks_off_where_more_is_archived_is_not_at_its_end() {
    let archive = archive().await;
    let (log, commits) = long_log();
    let mut torn = log.clone();
    // In the last segment, behind its first pages.
    let last = (log.bytes.len() / SIZE as usize - 1) * SIZE as usize;
    torn.bytes[last + 30_000..last + 60_000].fill(0);
    store(&archive, 1, &torn).await;
    let base = base(commits[10].end, 10);
    let refusal = refused(plan(&archive, &base, RecoveryTarget::Latest).await);
    assert!(matches!(refusal, Refusal::Damaged { at, .. } if at.bytes() < START + last as u64 + 60_000));
    let nobody = RecoveryTarget::Xid { xid: Xid::new(5), inclusive: true };
    assert!(matches!(refused(plan(&archive, &base, nobody).await), Refusal::Damaged { .. }));
}

#[tokio::test]
async fn recovery_follows_the_child_from_the_segment_of_the_branch_on() {
    let archive = archive().await;
    let mut parent = Writer::at(1, START);
    let (_, stop) = parent.commit(1000, 0);
    parent.filler(SIZE as usize + 5_000);
    let (_, branch) = parent.commit(1001, 1);
    let mut child = parent.clone();
    parent.commit(1002, 2);
    parent.switch();
    child.timeline = 2;
    // The server begins a new timeline on a new page of the copied segment at the earliest.
    child.filler(20_000);
    let (_, end) = child.commit(1003, 3);
    child.switch();
    store(&archive, 1, &parent).await;
    let mut of_child = child.clone();
    of_child.bytes.drain(..SIZE as usize);
    of_child.start += SIZE;
    store(&archive, 2, &of_child).await;
    let history = format!("1\t{branch}\tx\n");
    archive.push("00000002.history".parse().unwrap(), history.into_bytes().into()).await.unwrap();
    let base = base(stop, 0);
    let target = RecoveryTarget::Xid { xid: Xid::new(1003), inclusive: true };
    let found = plan(&archive, &base, target.clone()).await.unwrap();
    assert_eq!((found.expected_end, found.histories.len()), (end, 1));
    let names: Vec<_> = found.segments.iter().map(|run| run.first.to_string()).collect();
    assert_eq!(names, ["000000010000000000000003", "000000020000000000000004"]);
    let lost = RecoveryTarget::Xid { xid: Xid::new(1002), inclusive: true };
    assert!(matches!(refused(plan(&archive, &base, lost.clone()).await), Refusal::NotFound { .. }));
    let none = Identities::none();
    let survey = archive.survey(&none).await.unwrap();
    let first = TimelineChoice::Number(Timeline::FIRST);
    let request = RecoveryRequest { target: lost, timeline: first };
    let plan = plan_recovery(&archive, &none, &request, &[base], &survey).await.unwrap();
    assert_eq!(plan.segments.len(), 1, "the parent's own end is there when it is asked for");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn halving_finds_what_reading_everything_finds(
        steps in prop::collection::vec((0i64..3, 0usize..60_000, 0u8..8), 20..150),
        asked in prop::collection::vec((-1i64..200, any::<bool>()), 8),
    ) {
        let mut log = Writer::at(1, START);
        let (mut now, mut xid) = (0, 1000);
        let (_, stop) = log.commit(999, 0);
        for (wait, length, kind) in steps {
            now += wait;
            log.filler(length);
            match kind {
                0..5 => { log.commit(xid, now); xid += 1; }
                5 => { log.filler(3 * SIZE as usize); }
                _ => {}
            }
        }
        log.switch();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let archive = archive().await;
            store(&archive, 1, &log).await;
            let (none, base) = (Identities::none(), base(stop, 0));
            let survey = archive.survey(&none).await.unwrap();
            let source = Log { archive: &archive, identities: &none, survey: &survey };
            let end = Lsn::new(START + log.bytes.len() as u64 / SIZE * SIZE);
            let range = LogRange { timeline: Timeline::FIRST, from: base.stop, until: end, end };
            let (mut reader, mut all) = (RecordReader::new(), Vec::new());
            for segment in log.segments() {
                reader.read(&segment, &mut |record| all.push(record)).unwrap();
            }
            for (after, inclusive) in asked {
                let found = source.after(&range, moment(after), inclusive).await.unwrap();
                let late = |at: Timestamp| if inclusive { at > moment(after) } else { at >= moment(after) };
                let is_late = |record: &&Record| transaction(record).is_some_and(|end| late(end.at));
                let mut behind = all.iter().filter(|record| record.span.start >= range.from);
                let expected = behind.find(is_late);
                assert_eq!(found.map(|mark| mark.span), expected.map(|record| record.span));
            }
            let tail = source.tail(&range).await.unwrap();
            assert_eq!((tail.last, tail.damage), (reader.last(), None));
        });
    }
}
