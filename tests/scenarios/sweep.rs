//! One fault at a time, of each kind, at each call of an operation.
//!
//! A call is named by its operation, its key (what is new in every run is a `*`) and its number, because calls overlap
//! and come in another order each time. Swept are the calls that every undisturbed run makes. A run that happens not to
//! make the call is repeated, and counted if it never does; a run counts only when its fault was injected.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_backup_core::Class;
use backstay_backup_core::fault::{Call, ErrorKind, Fault, Mishap, Operation, Spot};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::scene::soak;

/// Undisturbed runs that a call must be part of.
pub(crate) const UNDISTURBED: usize = 3;
const SEED: u64 = 20_261_122;
/// Calls that a storm of 503 hits.
const STORM: u64 = 5;
/// Runs of a case whose call does not come.
const TRIES: usize = 5;

const MISHAPS: [Mishap; 15] = [
    Mishap::Error(ErrorKind::Absent),
    Mishap::Error(ErrorKind::AlreadyExists),
    Mishap::Error(ErrorKind::Conflict),
    Mishap::Error(ErrorKind::Denied),
    Mishap::Error(ErrorKind::Full),
    Mishap::Error(ErrorKind::Missing),
    Mishap::Error(ErrorKind::Temporary),
    Mishap::Error(ErrorKind::Throttled(Duration::from_millis(30))),
    Mishap::Error(ErrorKind::Checksum),
    Mishap::Error(ErrorKind::Failed),
    Mishap::LostReply,
    Mishap::Flip,
    Mishap::Cut { after: 3, loud: true },
    Mishap::Cut { after: 3, loud: false },
    Mishap::Slow(Duration::from_millis(100)),
];

/// A fault that begins at a call.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) spot: Spot,
    pub(crate) mishap: Mishap,
    calls: u64,
}

impl Trouble {
    /// Each mishap that means anything at each of these calls, and a storm beginning there; shuffled.
    fn each(spots: &[Spot]) -> Vec<Self> {
        let throttled = Mishap::Error(ErrorKind::Throttled(Duration::from_millis(10)));
        let mut all = Vec::new();
        for spot in spots {
            let meant = MISHAPS.into_iter().filter(|mishap| matters(*mishap, spot.operation));
            let kinds = meant.map(|mishap| (mishap, 1)).chain([(throttled, STORM)]);
            all.extend(kinds.map(|(mishap, calls)| Self { spot: spot.clone(), mishap, calls }));
        }
        all.shuffle(&mut StdRng::seed_from_u64(SEED));
        all
    }

    pub(crate) fn plan(&self, fault: &Fault) {
        fault.at(self.spot.clone(), self.calls, self.mishap);
    }
}

/// Whether this kind of fault means anything to this kind of call. Flips on the way in have a test of their own; a
/// listing that merely ends is a lie that nobody can find out.
fn matters(mishap: Mishap, operation: Operation) -> bool {
    match mishap {
        Mishap::Flip | Mishap::Cut { loud: false, .. } => operation == Operation::Get,
        Mishap::Cut { loud: true, .. } => matches!(operation, Operation::Get | Operation::List),
        _ => true,
    }
}

/// How a run may end that meets this fault once and cannot get around it.
pub(crate) fn allowed(mishap: Mishap) -> &'static [Class] {
    let kind = match mishap {
        Mishap::Error(kind) => kind,
        Mishap::Flip | Mishap::Cut { .. } => return &[Class::Data],
        _ => return &[],
    };
    match kind {
        // They pass, and are repeated.
        ErrorKind::Temporary | ErrorKind::Throttled(_) => &[],
        ErrorKind::Checksum => &[Class::Data],
        ErrorKind::Full | ErrorKind::Failed => &[Class::Temporary],
        // Somebody has to change the permission or bring the disk back: running again does not help.
        ErrorKind::Denied | ErrorKind::Missing => &[Class::Usage],
        // Stores that contradict themselves.
        ErrorKind::AlreadyExists | ErrorKind::Conflict => &[Class::Conflict, Class::Temporary],
        ErrorKind::Absent => &[Class::Temporary, Class::Data],
        _ => unreachable!("a new kind of error"),
    }
}

/// Whether a run that reads may end with an error of this class: what passes must not end it, and what cannot be read
/// may be called damaged, or not to be had at the moment.
pub(crate) fn refused_reading(trouble: &Trouble, class: Class, why: &str) -> Result<End, String> {
    let allowed = allowed(trouble.mishap);
    let fits = allowed.contains(&class) || matches!(class, Class::Data | Class::Temporary);
    if fits && !allowed.is_empty() && why.len() > 20 {
        Ok(End::Refused(class))
    } else {
        Err(format!("{class:?}: {why}"))
    }
}

/// The calls that all of these runs make.
pub(crate) fn spots(runs: &[Vec<Call>]) -> Vec<Spot> {
    let counted = runs.iter().map(|calls| {
        let mut counts: BTreeMap<(Operation, String), u64> = BTreeMap::new();
        calls.iter().for_each(|call| *counts.entry((call.operation, blur(&call.what))).or_default() += 1);
        counts
    });
    let common = counted.reduce(|mut common, counts| {
        common.retain(|call, _| counts.contains_key(call));
        common.iter_mut().for_each(|(call, count)| *count = (*count).min(counts[call]));
        common
    });
    let numbered = common.unwrap_or_default().into_iter().flat_map(|((operation, like), count)| {
        (1..=count).map(move |number| Spot { operation, like: like.clone(), number })
    });
    numbered.collect()
}

/// A key without what is new in every run: set ids and times.
fn blur(what: &str) -> String {
    let is_new = |segment: &str| segment.bytes().filter(u8::is_ascii_digit).count() >= 8;
    let segments: Vec<_> =
        what.split('/').map(|segment| if is_new(segment) { "*" } else { segment }).collect();
    segments.join("/")
}

/// How a run ended that was allowed to end so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// As without faults.
    Same,
    /// With a report that names what is wrong or was left out.
    Told,
    /// With one error.
    Refused(Class),
}

/// A run and what it should not have done.
pub(crate) struct Ran {
    pub(crate) fault: Arc<Fault>,
    pub(crate) end: Result<End, String>,
}

/// All cases of one operation in one kind of store.
pub(crate) struct Sweep {
    what: String,
    spots: Vec<Spot>,
    cases: Vec<Trouble>,
    runs: usize,
    injected: u64,
    ends: HashMap<End, usize>,
    never_met: Vec<Trouble>,
    wrong: Vec<String>,
    begin: Instant,
}

impl Sweep {
    /// Every case, or in `make test` so many of them, for an operation of which these are undisturbed runs.
    pub(crate) fn new(what: String, undisturbed: &[Vec<Call>], sample: usize) -> Self {
        let spots = spots(undisturbed);
        let mut cases = Trouble::each(&spots);
        if !soak() {
            cases.truncate(sample);
        }
        Self {
            what,
            spots,
            cases,
            runs: 0,
            injected: 0,
            ends: HashMap::new(),
            never_met: Vec::new(),
            wrong: Vec::new(),
            begin: Instant::now(),
        }
    }

    /// Whether each of these operations is among the calls.
    pub(crate) fn expect_calls(&self, operations: &[Operation]) {
        for operation in operations {
            assert!(
                self.spots.iter().any(|spot| spot.operation == *operation),
                "{operation:?}: {:?}",
                self.spots
            );
        }
    }

    /// Runs every case; `run` gets a number of its own each time.
    pub(crate) async fn run(mut self, run: impl AsyncFn(usize, &Trouble) -> Ran) {
        for case in std::mem::take(&mut self.cases) {
            let mut met = 0;
            for _ in 0..TRIES {
                self.runs += 1;
                let Ran { fault, end } = run(self.runs, &case).await;
                met = fault.injected();
                self.judge(&case, met, end);
                if met > 0 {
                    break;
                }
            }
            self.injected += met;
            if met == 0 {
                self.never_met.push(case.clone());
            }
            self.cases.push(case);
        }
        self.conclude();
    }

    fn judge(&mut self, case: &Trouble, met: u64, end: Result<End, String>) {
        match end {
            Ok(end) if met > 0 => *self.ends.entry(end).or_default() += 1,
            Ok(End::Same) => {}
            Ok(end) => self.wrong.push(format!("{case:?}: not met, and yet {end:?}")),
            Err(why) => self.wrong.push(format!("{case:?}: {why}")),
        }
    }

    /// Says what was swept, for whoever asks for the output, and refuses a sweep that proves nothing.
    fn conclude(self) {
        let Self { what, spots, cases, runs, injected, ends, never_met, wrong, begin } = self;
        let (kinds, all, seconds) = (MISHAPS.len() + 1, cases.len(), begin.elapsed().as_secs_f64());
        let count = |end| ends.get(&end).copied().unwrap_or_default();
        let exits = [(Class::Temporary, 5), (Class::Data, 3), (Class::Usage, 2), (Class::Conflict, 4)];
        let exits = exits.map(|(class, code)| format!("{} exit {code}", count(End::Refused(class))));
        eprintln!(
            "{what}: {kinds} kinds of fault at {} calls: {all} cases, {runs} runs, {injected} faults injected, {} \
             never met; {} as without faults, {} told in the report, {}; {} wrong; {seconds:.0} s",
            spots.len(),
            never_met.len(),
            count(End::Same),
            count(End::Told),
            exits.join(", "),
            wrong.len()
        );
        assert!(wrong.is_empty(), "{what}: {} wrong: {wrong:#?}", wrong.len());
        assert!(never_met.len() * 100 <= all, "{what}: never met: {never_met:#?}");
        assert!(injected >= (all - never_met.len()) as u64, "{what}: {injected} of {all}");
        // Otherwise nothing is ever repeated, or nothing is ever noticed.
        let same = count(End::Same);
        assert!(same > all / 5 && same < all, "{what}: {same} of {all} as without faults");
    }
}
