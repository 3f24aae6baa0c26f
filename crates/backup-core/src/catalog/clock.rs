//! Whether the clock of whoever wrote a set can be believed: its times against the arrival by the store's clock.

use jiff::{SignedDuration, Timestamp};

use crate::manifest::Manifest;
use crate::replicas::Repositories;
use crate::repository::layout;
use crate::set_writer::SetReceipt;

/// A set that claims to be this much younger than its arrival had a writer with a wrong clock.
const AHEAD: SignedDuration = SignedDuration::from_mins(10);
/// One that was on its way for so long had one too, or was copied here by other means.
const BEHIND: SignedDuration = SignedDuration::from_hours(24);

/// What the arrival of a manifest says of its writer's clock. Pure.
pub(super) fn problem(manifest: &Manifest, arrival: Timestamp) -> Option<String> {
    let (point, finished) = (manifest.recovery_point, manifest.finished);
    if point.duration_since(arrival) > AHEAD {
        let wrong = "the writer's clock was wrong";
        return Some(format!("its recovery point {point} is later than its arrival {arrival}: {wrong}"));
    }
    if finished.duration_since(arrival) > AHEAD {
        let wrong = "the writer's clock was ahead";
        return Some(format!("it was finished at {finished}, later than its arrival {arrival}: {wrong}"));
    }
    if arrival.duration_since(finished) > BEHIND {
        let wrong = "the writer's clock was behind, or the set was copied";
        return Some(format!("it was finished at {finished}, long before its arrival {arrival}: {wrong}"));
    }
    None
}

/// Compares the clock of this host with those of the stores that have just taken a set; says which differ. A store
/// that does not answer is passed over: the set is there, and its next reader will see.
pub async fn clock_problems(repositories: &Repositories, receipt: &SetReceipt) -> Vec<String> {
    let manifest = &receipt.manifest;
    let key = layout::manifest(&manifest.stanza, &manifest.set);
    let mut problems = Vec::new();
    for member in
        repositories.members().iter().filter(|member| receipt.stored_in.contains(&member.name().to_owned()))
    {
        let Ok(meta) = member.store().head(&key).await else { continue };
        let found = problem(manifest, meta.modified);
        problems.extend(found.map(|problem| format!("{}: {problem}", member.name())));
    }
    problems
}
