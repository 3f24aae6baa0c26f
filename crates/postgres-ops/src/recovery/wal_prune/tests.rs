use std::sync::Arc;

use backstay_backup_core::clock::{Clock, SystemClock};
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::store::SharedStore;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::physical::WalRange;
use crate::wal::Timeline;
use crate::wal_archive::WalArchive;

const MIB: u64 = 1 << 20;
const SYSTEM: SystemId = SystemId::new(7);

fn line(number: u32) -> Timeline {
    Timeline::new(number).unwrap()
}

fn base(id: u8, timeline: u32, start: u64, stop: u64) -> BaseBackup {
    let range = WalRange { timeline: line(timeline), start: Lsn::new(start), end: Lsn::new(stop) };
    BaseBackup {
        set: set(id),
        system: SYSTEM,
        timeline: line(timeline),
        start: Lsn::new(start),
        stop: Lsn::new(stop),
        stop_time: Timestamp::UNIX_EPOCH,
        wal: vec![range],
    }
}

fn set(id: u8) -> SetId {
    SetId::parse(format!("20240101T000000Z-{id:010x}")).unwrap()
}

fn survey(held: &[(u32, u64, u64)]) -> WalSurvey {
    let mut survey = WalSurvey::empty(SYSTEM, SegmentSize::new(MIB).unwrap());
    for (timeline, first, last) in held {
        (*first..=*last).for_each(|number| survey.timeline_mut(line(*timeline)).segments.insert(number));
    }
    survey
}

fn sets(good: &[BaseBackup], doubtful: &[BaseBackup]) -> PhysicalSets {
    PhysicalSets { good: good.to_vec(), doubtful: doubtful.to_vec(), unknown: vec![] }
}

fn staying(ids: &[u8]) -> BTreeSet<SetId> {
    ids.iter().map(|id| set(*id)).collect()
}

#[test]
fn the_oldest_set_that_stays_decides_good_or_not() {
    let survey = survey(&[(1, 1, 20)]);
    let (one, two) = (base(1, 1, 3 * MIB + 40, 4 * MIB), base(2, 1, 9 * MIB + 40, 10 * MIB));
    let from =
        |sets: &PhysicalSets, ids: &[u8]| bound(sets, &staying(ids), &survey).map(|it| it.0.bytes() / MIB);
    let both = sets(&[one.clone(), two.clone()], &[]);
    assert_eq!(from(&both, &[1, 2]), Ok(3));
    assert_eq!(from(&both, &[2]), Ok(9), "the first one is removed");
    assert_eq!(from(&sets(std::slice::from_ref(&two), std::slice::from_ref(&one)), &[1, 2]), Ok(3));
    assert!(from(&sets(&[], &[one, two]), &[1, 2]).is_err(), "no good one stays");
    assert!(from(&both, &[]).is_err());
}

#[test]
fn nothing_goes_where_no_set_that_stays_can_be_recovered() {
    let one = base(1, 1, 3 * MIB + 40, 5 * MIB);
    let torn = survey(&[(1, 1, 3), (1, 5, 20)]);
    assert!(bound(&sets(&[one], &[]), &staying(&[1]), &torn).unwrap_err().contains("consistent"));
    let other = BaseBackup { system: SystemId::new(8), ..base(2, 1, 9 * MIB, 10 * MIB) };
    let whole = survey(&[(1, 1, 20)]);
    assert!(bound(&sets(&[other], &[]), &staying(&[2]), &whole).unwrap_err().contains("no base backup"));
}

#[test]
fn positions_count_on_every_timeline_and_histories_stay() {
    let mut plan = ClusterWalPlan::new(&survey(&[(1, 1, 20)]));
    plan.keep_from = Some(Lsn::new(9 * MIB));
    let goes = |name: &str| plan.unneeded(7, name.parse().unwrap()).is_some();
    for gone in [
        "000000010000000000000008",
        "000000020000000000000001",
        "000000010000000000000008.partial",
        "000000010000000000000008.00000028.backup",
    ] {
        assert!(goes(gone), "{gone}");
    }
    for kept in [
        "000000010000000000000009",
        "000000010000000100000000",
        "00000002.history",
        "0000000100000000000FF000",
    ] {
        let parsed = kept.parse::<WalFile>();
        assert!(parsed.is_err() || !goes(kept), "{kept}");
    }
    assert!(plan.unneeded(8, "000000010000000000000008".parse().unwrap()).is_none(), "of another cluster");
    plan.keep_from = None;
    assert!(plan.unneeded(7, "000000010000000000000008".parse().unwrap()).is_none());
}

fn segment(number: u64) -> Bytes {
    let mut bytes = Vec::new();
    bytes.extend(0xD110u16.to_le_bytes());
    bytes.extend([2, 0, 1, 0, 0, 0]);
    bytes.extend((number * MIB).to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(7u64.to_le_bytes());
    bytes.extend((MIB as u32).to_le_bytes());
    bytes.extend(8192u32.to_le_bytes());
    bytes.resize(MIB as usize, 0);
    bytes.into()
}

#[tokio::test]
async fn what_fails_or_is_stopped_is_told_and_nothing_else_goes() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let memory: SharedStore = Arc::new(MemoryStore::new(clock.clone()));
    let fault = Arc::new(Fault::new(memory, 1));
    let repository = Repository::create("a", fault.clone(), &SystemClock).await.unwrap();
    let repositories = Repositories::new(vec![repository.clone()], 1, clock).unwrap();
    let stanza = Stanza::parse("main").unwrap();
    let archive = WalArchive::new(repositories.clone(), stanza.clone(), SYSTEM);
    for number in 1..=9u64 {
        archive
            .push(format!("0000000100000000{number:08X}").parse().unwrap(), segment(number))
            .await
            .unwrap();
    }
    let mut cluster = ClusterWalPlan::new(&survey(&[(1, 1, 9)]));
    cluster.keep_from = Some(Lsn::new(6 * MIB));
    let left = || async {
        let found = archive.survey(&Identities::none()).await.unwrap();
        found.timelines[&line(1)].segments.ranges().collect::<Vec<_>>()
    };
    let remove = |grace: i64, cancel: CancellationToken| {
        let (cluster, stanza, repository, repositories) =
            (cluster.clone(), stanza.clone(), repository.clone(), repositories.clone());
        async move {
            let grace = SignedDuration::from_secs(grace);
            apply::remove_for_test(&stanza, &cluster, grace, &cancel, &repository, &repositories).await
        }
    };
    let young = remove(3600, CancellationToken::new()).await;
    assert_eq!((young.objects, left().await), (0, vec![(1, 9)]), "all of it is young");
    let stopped = CancellationToken::new();
    stopped.cancel();
    let cancelled = remove(0, stopped).await;
    assert_eq!((cancelled.objects, cancelled.stopped.as_deref()), (0, Some("cancelled")));
    fault.always(Operation::Delete, Mishap::Error(ErrorKind::Denied));
    let denied = remove(0, CancellationToken::new()).await;
    assert_eq!((denied.objects, denied.denied.len(), left().await), (0, 5, vec![(1, 9)]));
    fault.calm();
    let done = remove(0, CancellationToken::new()).await;
    assert_eq!((done.objects, left().await), (5, vec![(6, 9)]));
}
