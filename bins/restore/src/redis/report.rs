//! What `restore-redis` prints.

use std::fmt;
use std::path::PathBuf;

use backstay_cli::human::Bytes;
use backstay_redis_ops::restore::{Missing, Outcome, RestorePlan, RestoreReceipt, Shape, TtlPolicy};
use serde::Serialize;

/// What `--dry-run` prints.
#[derive(Debug, Serialize)]
pub(super) struct Plan<'a> {
    #[serde(flatten)]
    pub(super) plan: &'a RestorePlan,
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.plan;
        writeln!(f, "would restore to {}", plan.target)?;
        if let Some(found) = &plan.found {
            writeln!(
                f,
                "  found at offset {}: {}, received between {} and {}",
                found.offset, found.text, found.after, found.until
            )?;
        }
        writeln!(
            f,
            "  ends at offset {} of {}, the state of {}",
            plan.end.offset, plan.end.replication_id, plan.time
        )?;
        writeln!(f, "  {}", Left(&plan.missing, "will not be there"))?;
        writeln!(f, "  snapshot {} of {}: {}", plan.set, plan.taken, Bytes(plan.snapshot_bytes))?;
        writeln!(f, "  stream behind it: {} in {} segments", Bytes(plan.stream_bytes), plan.segments)?;
        writeln!(f, "  {}", expiries(plan.ttl))?;
        let place = &plan.place;
        writeln!(f, "  into {} as {} ({})", place.directory.display(), shape(plan.shape), plan.server)?;
        if plan.replays {
            writeln!(f, "  a throwaway server replays the stream and dumps a snapshot")?;
        } else if plan.rehearse {
            writeln!(f, "  a throwaway server loads it all before the old data is touched")?;
        }
        for present in &place.present {
            let role = if present.active { "the data it has now" } else { "data it does not load now" };
            writeln!(f, "  keeps {} ({role}, {}) in before-restore-…", present.name, Bytes(present.bytes))?;
        }
        for note in &plan.notes {
            writeln!(f, "! {note}")?;
        }
        write!(f, "  needs {} there; {} are free", Bytes(plan.needed_bytes), Bytes(place.free_bytes))
    }
}

fn expiries(ttl: TtlPolicy) -> &'static str {
    match ttl {
        TtlPolicy::Shift => "expiry times move by the time that went by",
        TtlPolicy::Strip => "nothing will expire",
        _ => "expiry times stay as they were",
    }
}

fn shape(shape: Shape) -> &'static str {
    match shape {
        Shape::MultiPart => "append-only files that begin with the snapshot",
        Shape::SingleFile => "an append-only file that begins with the snapshot",
        _ => "a snapshot",
    }
}

/// What a restore says at its end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Receipt<'a> {
    #[serde(flatten)]
    pub(super) receipt: &'a RestoreReceipt,
    pub(super) kept: PathBuf,
    pub(super) unkept: Vec<String>,
}

impl fmt::Display for Receipt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receipt = self.receipt;
        write_outcome(f, receipt)?;
        writeln!(f, "  {}", Left(&receipt.missing, "is archived behind that and not here"))?;
        writeln!(
            f,
            "  snapshot {}, {}; stream behind it {}, {} commands",
            receipt.set,
            Bytes(receipt.expected.base_bytes),
            Bytes(receipt.expected.stream_bytes),
            receipt.commands
        )?;
        if receipt.ttl == TtlPolicy::Shift {
            writeln!(f, "  expiry times moved by {:.0} s", receipt.ttl_shift_seconds)?;
        }
        if let Some(old) = &receipt.old {
            writeln!(f, "  old data: {}", old.display())?;
        }
        for note in receipt.notes.iter().chain(&self.unkept) {
            writeln!(f, "! {note}")?;
        }
        write!(f, "  RTO {:.1} s:", receipt.rto_seconds)?;
        for phase in &receipt.phases {
            write!(f, " {} {:.1}", phase.name, phase.seconds)?;
        }
        writeln!(f)?;
        write!(f, "  receipt: {}", self.kept.display())
    }
}

fn write_outcome(f: &mut fmt::Formatter<'_>, receipt: &RestoreReceipt) -> fmt::Result {
    let directory = receipt.expected.directory.display();
    let reached = format!("offset {}, the state of {}", receipt.reached.offset, receipt.planned_time);
    let comparison = &receipt.comparison;
    match receipt.outcome {
        Outcome::Loaded => {
            let keys = receipt.found.as_ref().map_or(0, backstay_redis_ops::restore::LiveFacts::keys);
            writeln!(
                f,
                "restored to {reached}; the server has {keys} keys, {} facts compared",
                comparison.compared
            )?;
            for (number, count) in receipt.found.iter().flat_map(|found| &found.databases) {
                writeln!(f, "  database {number}: {} keys, {} of them expire", count.keys, count.expires)?;
            }
            if comparison.expired > 0 {
                writeln!(f, "  {} keys have expired since", comparison.expired)?;
            }
        }
        Outcome::Different => {
            writeln!(f, "the server does NOT have what was restored to {reached}:")?;
            for difference in &comparison.differences {
                writeln!(f, "  {difference}")?;
            }
        }
        _ => {
            writeln!(f, "{directory} is ready to be started, restored to {reached}")?;
            writeln!(
                f,
                "  start the server, then compare: restore-redis --check-receipt --data-directory {directory} --redis-url …"
            )?;
        }
    }
    comparison.unknown.iter().try_for_each(|unknown| writeln!(f, "  not compared: {unknown}"))
}

/// What is behind a point.
struct Left<'a>(&'a Missing, &'a str);

impl fmt::Display for Left<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(missing, verb) = self;
        if missing.bytes == 0 && !missing.more_behind_gap {
            return f.write_str("nothing that is archived is left out");
        }
        write!(f, "{} of stream", Bytes(missing.bytes))?;
        if let Some(until) = missing.until {
            write!(f, ", received until {until},")?;
        }
        write!(f, " {verb}")?;
        if missing.more_behind_gap {
            f.write_str("; there is more behind a gap or in another history")?;
        }
        Ok(())
    }
}
