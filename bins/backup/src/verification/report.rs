//! What a run of `verify-backups` says.

use std::fmt;
use std::time::Duration;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::verify::{Depth, Outcome, VerifiedCopy, VerifyReport};
use backstay_cli::human::{Bytes, Elapsed, Remedy};
use backstay_cli::{Exit, Failure, Opened};
use backstay_postgres_ops::cluster_restore::ClusterTestReport;
use backstay_postgres_ops::recovery::SetWal;
use backstay_postgres_ops::{CheckResult, RestoreTestReport};
use backstay_redis_ops::restore::RestoreTestReport as RedisTestReport;
use serde::Serialize;

/// Everything a run found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Verification {
    stanza: Stanza,
    pub(super) sets: Vec<VerifyReport>,
    /// Of physical sets.
    pub(super) wal: Vec<SetWal>,
    pub(super) restore_tests: Vec<Tested>,
    unreachable: Vec<Unreachable>,
    unrecorded: Vec<Unrecorded>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Unreachable {
    repository: String,
    problem: String,
}

/// A result that could not be kept beside its set.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Unrecorded {
    set: SetId,
    problem: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    exit_code: u8,
    #[serde(skip)]
    exit: Exit,
}

/// One restore test.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Tested {
    set: SetId,
    database: String,
    passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<RestoreTestReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Box<ClusterTestReport>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Box<RedisTestReport>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    exit_code: u8,
    #[serde(skip)]
    exit: Exit,
}

impl Tested {
    pub(super) fn cluster(manifest: &Manifest, report: ClusterTestReport) -> Self {
        let passed = report.passed();
        let exit = if passed { Exit::Done } else { Exit::Data };
        Self { passed, cluster: Some(Box::new(report)), ..Self::ended(manifest, exit) }
    }

    pub(super) fn redis(manifest: &Manifest, report: RedisTestReport) -> Self {
        let passed = report.passed();
        let exit = if passed { Exit::Done } else { Exit::Data };
        Self { passed, redis: Some(Box::new(report)), ..Self::ended(manifest, exit) }
    }

    pub(super) fn done(manifest: &Manifest, report: RestoreTestReport) -> Self {
        let passed = report.passed();
        let exit = if passed { Exit::Done } else { Exit::Data };
        Self { passed, report: Some(report), ..Self::ended(manifest, exit) }
    }

    pub(super) fn files(manifest: &Manifest, differences: &[String]) -> Self {
        let passed = differences.is_empty();
        let exit = if passed { Exit::Done } else { Exit::Data };
        let problem = (!passed).then(|| differences.join("; "));
        Self { passed, problem, ..Self::ended(manifest, exit) }
    }

    pub(super) fn failed(manifest: &Manifest, failure: &Failure) -> Self {
        let (problem, hint) = (Some(failure.message()), failure.hint().map(str::to_owned));
        Self { problem, hint, ..Self::ended(manifest, failure.exit()) }
    }

    fn ended(manifest: &Manifest, exit: Exit) -> Self {
        Self {
            set: manifest.set.clone(),
            database: manifest.source.database.clone(),
            passed: false,
            report: None,
            cluster: None,
            redis: None,
            problem: None,
            hint: None,
            exit_code: exit.code(),
            exit,
        }
    }
}

const NO_PERMISSION: &str = "give the permission, or verify without keeping the result: --no-proof";

impl Verification {
    pub(super) fn new(opened: &Opened, catalog: &Catalog) -> Self {
        let closed =
            opened.unavailable.iter().map(|left_out| (left_out.name.clone(), left_out.failure.message()));
        let unreachable = closed
            .chain(catalog.unreachable.iter().cloned())
            .map(|(repository, problem)| Unreachable { repository, problem });
        Self {
            stanza: catalog.stanza.clone(),
            sets: Vec::new(),
            wal: Vec::new(),
            restore_tests: Vec::new(),
            unreachable: unreachable.collect(),
            unrecorded: Vec::new(),
        }
    }

    pub(super) fn note_proof(&mut self, set: &SetId, stored: Result<(), Failure>) {
        if let Err(failure) = stored {
            let (problem, exit) = (failure.message(), failure.exit());
            let hint = if exit == Exit::Usage { Some(NO_PERMISSION) } else { failure.hint() };
            let hint = hint.map(str::to_owned);
            let exit_code = exit.code();
            self.unrecorded.push(Unrecorded { set: set.clone(), problem, hint, exit_code, exit });
        }
    }

    /// Damage before anything else; then what could not be done.
    pub(super) fn exit(&self) -> Exit {
        let damaged = self.sets.iter().any(|set| !set.is_clean())
            || self.restore_tests.iter().any(|test| test.exit == Exit::Data);
        if damaged {
            return Exit::Data;
        }
        if let Some(worst) =
            self.restore_tests.iter().map(|test| test.exit).max().filter(|exit| *exit != Exit::Done)
        {
            return worst;
        }
        if self.sets.iter().flat_map(|set| &set.copies).any(|copy| copy.locked || copy.newer) {
            return Exit::Usage;
        }
        if !self.unreachable.is_empty() || self.sets.iter().any(|set| !set.is_complete()) {
            return Exit::Temporary;
        }
        let nothing = self.sets.is_empty() && self.restore_tests.is_empty();
        let otherwise = if nothing { Exit::Absent } else { Exit::Done };
        self.unrecorded.iter().map(|unrecorded| unrecorded.exit).max().unwrap_or(otherwise)
    }

    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copies = || self.sets.iter().flat_map(|set| &set.copies);
        let count = |outcome| copies().filter(|copy| copy.outcome == outcome).count();
        let bytes = copies().map(|copy| copy.checked.bytes).sum();
        write!(
            f,
            "{} copies passed, {} failed, {} could not be checked, {} skipped; {} read",
            count(Outcome::Passed),
            count(Outcome::Failed),
            count(Outcome::Unchecked),
            count(Outcome::Skipped),
            Bytes(bytes)
        )
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for set in &self.sets {
            let depth = if set.depth == Depth::Full { "full" } else { "quick" };
            for copy in &set.copies {
                writeln!(f, "{} {:<9} {depth} {}", set.set, outcome(copy.outcome), copy.repository)?;
                problems(f, copy)?;
            }
            for wal in self.wal.iter().filter(|wal| wal.set == set.set) {
                write_wal(f, wal)?;
            }
        }
        for test in &self.restore_tests {
            writeln!(f, "{test}")?;
        }
        for Unreachable { repository, problem } in &self.unreachable {
            writeln!(f, "! repository {repository} could not be read: {problem}")?;
        }
        for Unrecorded { set, problem, hint, .. } in &self.unrecorded {
            writeln!(f, "! the result for {set} could not be kept: {problem}{}", Remedy(hint.as_deref()))?;
        }
        match (self.sets.is_empty(), self.restore_tests.is_empty()) {
            (true, true) => write!(f, "no such set in stanza {}", self.stanza),
            (true, false) => {
                let passed = self.restore_tests.iter().filter(|test| test.passed).count();
                write!(f, "{passed} of {} restore tests passed", self.restore_tests.len())
            }
            _ => self.verdict(f),
        }
    }
}

fn write_wal(f: &mut fmt::Formatter<'_>, wal: &SetWal) -> fmt::Result {
    let state = if wal.is_whole() { "are archived" } else { "are needed, and not all can be used" };
    writeln!(f, "  {} segments of WAL {state}", wal.segments)?;
    match wal.gap_after {
        Some(missing) => writeln!(f, "  recovery with it ends before {missing}, which is missing"),
        None => Ok(()),
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "skipped",
        _ => "unchecked",
    }
}

fn problems(f: &mut fmt::Formatter<'_>, copy: &VerifiedCopy) -> fmt::Result {
    for problem in &copy.problems {
        writeln!(f, "! {}: {}", problem.object, problem.problem)?;
    }
    for problem in &copy.damaged_records {
        writeln!(f, "! record {}: {}", problem.object, problem.problem)?;
    }
    for problem in &copy.unchecked {
        writeln!(f, "? {}: {}", problem.object, problem.problem)?;
    }
    if copy.strays > 0 {
        writeln!(f, "  {} objects that belong to no part of the set", copy.strays)?;
    }
    Ok(())
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.passed, self.exit) {
            (true, _) => "restored",
            (false, Exit::Data) => "FAILED",
            _ => "not tested",
        };
        write!(f, "{} {verdict} (database {})", self.set, self.database)?;
        if let Some(problem) = &self.problem {
            write!(f, "\n! {problem}{}", Remedy(self.hint.as_deref()))?;
        }
        if let Some(report) = &self.cluster {
            return write_cluster(f, report);
        }
        if let Some(report) = &self.redis {
            return write_redis(f, report);
        }
        let Some(report) = &self.report else { return Ok(()) };
        let comparison = &report.receipt.comparison;
        let rto = Elapsed(Duration::try_from_secs_f64(report.receipt.rto_seconds).unwrap_or_default());
        let content = if comparison.by_content { ", by content" } else { "" };
        write!(
            f,
            "\n  {} facts of {} tables with {} rows compared{content}; recovery time {rto}",
            comparison.compared, comparison.tables, comparison.rows
        )?;
        for difference in &comparison.differences {
            write!(
                f,
                "\n! {}: expected {}, found {}",
                difference.fact, difference.expected, difference.found
            )?;
        }
        write_checks(f, &report.checks)
    }
}

fn write_cluster(f: &mut fmt::Formatter<'_>, report: &ClusterTestReport) -> fmt::Result {
    let receipt = &report.receipt;
    let rto = Elapsed(Duration::try_from_secs_f64(receipt.rto_seconds).unwrap_or_default());
    write!(
        f,
        "\n  a whole cluster of {} in files, recovered to {}",
        Bytes(receipt.written_bytes),
        receipt.planned
    )?;
    write!(f, "; recovery time {rto}")?;
    if let Some(difference) = receipt.difference() {
        write!(f, "\n! {difference}")?;
    }
    write_checks(f, &report.checks)
}

fn write_redis(f: &mut fmt::Formatter<'_>, report: &RedisTestReport) -> fmt::Result {
    let rto = Elapsed(Duration::try_from_secs_f64(report.rto_seconds).unwrap_or_default());
    let facts: u64 = report.snapshots.iter().map(|tested| tested.comparison.compared).sum();
    write!(
        f,
        "\n  {} keys in {}, {facts} facts compared; recovery time {rto}",
        report.keys(),
        report.server
    )?;
    for tested in &report.snapshots {
        for difference in &tested.comparison.differences {
            write!(f, "\n! {}: {difference}", tested.object)?;
        }
        for unknown in &tested.comparison.unknown {
            write!(f, "\n? {}: {unknown}", tested.object)?;
        }
    }
    Ok(())
}

fn write_checks(f: &mut fmt::Formatter<'_>, checks: &[CheckResult]) -> fmt::Result {
    for check in checks {
        let mark = if check.passed { " " } else { "!" };
        write!(f, "\n{mark} check {}: {}", check.name, check.found)?;
    }
    Ok(())
}
