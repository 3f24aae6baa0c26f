//! `verify-backups --restore-test`: the only proof that counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_backup_core::catalog::{Catalog, Filter, SetSummary};
use backstay_backup_core::manifest::{Manifest, SetKind};
use backstay_backup_core::process::CommandRunner;
use backstay_backup_core::proof::{Check, Phase, Problem, Proof, ProofKind, RestoreTest};
use backstay_cli::{Context, Failure, Opened, restorable};
use backstay_file_ops::code::{KIND as CODE, StoredSet, test_restore as test_code};
use backstay_file_ops::config_set::KIND as CONFIG;
use backstay_file_ops::restore::test_restore as test_files;
use backstay_postgres_ops::cluster_restore::{
    ClusterRestoreError, ClusterTest, ClusterTestReport, test_cluster_restore,
};
use backstay_postgres_ops::{
    CheckResult, Error, LogicalFacts, RestoreTestReport, SqlCheck, ThrowawayOptions, split_statements,
    test_restore,
};

use backstay_redis_ops::restore::{
    RestoreError, RestoreTestOptions as RedisTestOptions, RestoreTestReport as RedisTestReport,
    ServerProgram, test_restore as test_redis,
};

use super::Args;
use super::report::{Tested, Verification};

pub(super) async fn run(
    context: &Context,
    args: &Args,
    opened: &Opened,
    catalog: &Catalog,
) -> Result<Verification, Failure> {
    let checks = checks(&args.check)?;
    let identities = context.identities().await?;
    let mut report = Verification::new(opened, catalog);
    for set in chosen(args, catalog)? {
        let manifest = restorable(set)?;
        if is_redis(manifest) {
            let tested = redis(context, args, opened, catalog, set, &mut report).await?;
            report.restore_tests.push(tested);
            continue;
        }
        if is_physical(manifest) {
            let tested = cluster(context, args, opened, catalog, set, &checks, &mut report).await?;
            report.restore_tests.push(tested);
            continue;
        }
        if manifest.kind.0 == CONFIG {
            let tested = configuration(context, args, opened, set, &mut report).await?;
            report.restore_tests.push(tested);
            continue;
        }
        if manifest.kind.0 == CODE {
            let tested = code(context, args, opened, catalog, set, &mut report).await?;
            report.restore_tests.push(tested);
            continue;
        }
        let throwaway = throwaway(context, args, manifest)?;
        let outcome = test_restore(
            &opened.repositories,
            manifest,
            &identities,
            &checks,
            &throwaway,
            &context.progress,
            &context.cancel,
        )
        .await;
        if context.cancel.is_cancelled() {
            return Err(Failure::cancelled());
        }
        let (proof, tested) = conclude(context, manifest, outcome);
        keep(args, opened, set, proof, &mut report).await;
        report.restore_tests.push(tested);
    }
    Ok(report)
}

/// Keeps a proof beside every copy of its set.
async fn keep(
    args: &Args,
    opened: &Opened,
    set: &SetSummary,
    proof: Option<Proof>,
    report: &mut Verification,
) {
    let Some(proof) = proof.filter(|_| !args.no_proof) else { return };
    for copy in &set.copies {
        let Some(repository) = opened.repositories.member(&copy.repository) else { continue };
        let stored = proof.store(repository).await;
        report.note_proof(&set.id, stored.map(|_| ()).map_err(Failure::from));
    }
}

fn is_physical(manifest: &Manifest) -> bool {
    manifest.kind == SetKind::new(SetKind::POSTGRES_PHYSICAL)
}

fn is_redis(manifest: &Manifest) -> bool {
    manifest.kind == SetKind::new(SetKind::REDIS_SNAPSHOT)
}

/// Loads the snapshots of a Redis in a throwaway server.
async fn redis(
    context: &Context,
    args: &Args,
    opened: &Opened,
    catalog: &Catalog,
    set: &SetSummary,
    report: &mut Verification,
) -> Result<Tested, Failure> {
    let manifest = restorable(set)?;
    let identities = context.identities().await?;
    let search = context.environment().get("PATH").map(String::as_str);
    let program = match ServerProgram::find(args.server_program.as_deref(), search).await {
        Ok(program) => program,
        // Another set may be testable on this machine.
        Err(error) => return Ok(Tested::failed(manifest, &Failure::from(error))),
    };
    let options = RedisTestOptions::new(program, scratch(context, args)?);
    let testing = test_redis(
        &opened.repositories,
        catalog,
        &set.id,
        &identities,
        &options,
        &context.progress,
        &context.cancel,
    );
    let outcome = Box::pin(testing).await;
    if context.cancel.is_cancelled() {
        return Err(Failure::cancelled());
    }
    let (proof, tested) = conclude_redis(context, manifest, outcome);
    keep(args, opened, set, proof, report).await;
    Ok(tested)
}

/// As [`conclude`].
fn conclude_redis(
    context: &Context,
    manifest: &Manifest,
    outcome: Result<RedisTestReport, RestoreError>,
) -> (Option<Proof>, Tested) {
    match outcome {
        Ok(report) => {
            let proof = proof(context, manifest, report.passed()).restore(report.proof());
            (Some(proof), Tested::redis(manifest, report))
        }
        Err(error) => {
            let failure = Failure::from(error);
            let bad = failure.class() == backstay_backup_core::Class::Data;
            let damaged =
                || proof(context, manifest, false).problems(vec![Problem::new("*", failure.message())]);
            (bad.then(damaged), Tested::failed(manifest, &failure))
        }
    }
}

/// Restores the files of a cluster, starts it, and recovers it until it is consistent.
async fn cluster(
    context: &Context,
    args: &Args,
    opened: &Opened,
    catalog: &Catalog,
    set: &SetSummary,
    checks: &[SqlCheck],
    report: &mut Verification,
) -> Result<Tested, Failure> {
    let manifest = restorable(set)?;
    let command = match &args.restore_command {
        Some(command) => command.clone(),
        None => context.restore_command(false, args.identity.identity_file.as_deref())?,
    };
    let mut test = ClusterTest::new(scratch(context, args)?, &command, context.postgres_tools());
    test.start.environment = context.restore_environment();
    test.checks = checks.to_vec();
    let identities = context.identities().await?;
    let testing = test_cluster_restore(
        &opened.repositories,
        catalog,
        &set.id,
        &identities,
        &test,
        &context.progress,
        &context.cancel,
    );
    let outcome = Box::pin(testing).await;
    if context.cancel.is_cancelled() {
        return Err(Failure::cancelled());
    }
    let (proof, tested) = conclude_cluster(context, manifest, outcome);
    keep(args, opened, set, proof, report).await;
    Ok(tested)
}

/// Unpacks the files of a set into a folder that is removed again.
async fn configuration(
    context: &Context,
    args: &Args,
    opened: &Opened,
    set: &SetSummary,
    report: &mut Verification,
) -> Result<Tested, Failure> {
    let manifest = restorable(set)?;
    let folder = scratch(context, args)?.join(format!("backstay-test-{}-{}", set.id, std::process::id()));
    let identities = context.identities().await?;
    let begin = std::time::Instant::now();
    let testing =
        test_files(&opened.repositories, manifest, &identities, &folder, &context.progress, &context.cancel);
    let outcome = Box::pin(testing).await.map_err(Failure::from);
    let (proof, tested) = conclude_files(context, manifest, &folder, begin, outcome)?;
    keep(args, opened, set, proof, report).await;
    Ok(tested)
}

/// Restores a repository, with everything that it builds on, into a folder that is removed again.
async fn code(
    context: &Context,
    args: &Args,
    opened: &Opened,
    catalog: &Catalog,
    set: &SetSummary,
    report: &mut Verification,
) -> Result<Tested, Failure> {
    let manifest = restorable(set)?;
    let folder = scratch(context, args)?.join(format!("backstay-test-{}-{}", set.id, std::process::id()));
    let identities = context.identities().await?;
    let runner: Arc<dyn CommandRunner> = Arc::new(context.runner());
    let begin = std::time::Instant::now();
    let stored = StoredSet {
        repositories: &opened.repositories,
        catalog,
        set,
        identities: &identities,
        runner: &runner,
        progress: &context.progress,
        cancel: &context.cancel,
    };
    let outcome = Box::pin(test_code(&stored, &folder)).await.map_err(Failure::from);
    let (proof, tested) = conclude_files(context, manifest, &folder, begin, outcome)?;
    keep(args, opened, set, proof, report).await;
    Ok(tested)
}

/// As [`conclude`], for what was restored into a folder of the test.
fn conclude_files(
    context: &Context,
    manifest: &Manifest,
    folder: &Path,
    begin: std::time::Instant,
    outcome: Result<(u64, Vec<String>), Failure>,
) -> Result<(Option<Proof>, Tested), Failure> {
    let removed = std::fs::remove_dir_all(folder);
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "the folder of the test stays");
    }
    if context.cancel.is_cancelled() {
        return Err(Failure::cancelled());
    }
    match outcome {
        Ok((compared, differences)) => {
            let mut test = RestoreTest::default();
            test.rto_millis = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            test.facts_compared = compared;
            test.differences.clone_from(&differences);
            let proof = proof(context, manifest, differences.is_empty()).restore(test);
            Ok((Some(proof), Tested::files(manifest, &differences)))
        }
        Err(failure) => {
            let is_damage = failure.class() == backstay_backup_core::Class::Data;
            let damaged =
                || proof(context, manifest, false).problems(vec![Problem::new("*", failure.message())]);
            Ok((is_damage.then(damaged), Tested::failed(manifest, &failure)))
        }
    }
}

/// As [`conclude`]. WAL that cannot be had says nothing about the set itself.
fn conclude_cluster(
    context: &Context,
    manifest: &Manifest,
    outcome: Result<ClusterTestReport, ClusterRestoreError>,
) -> (Option<Proof>, Tested) {
    match outcome {
        Ok(report) => {
            let mut test = report.receipt.proof();
            test.checks = report.checks.iter().map(check).collect();
            (Some(proof(context, manifest, report.passed()).restore(test)), Tested::cluster(manifest, report))
        }
        Err(error) => {
            let is_damage =
                matches!(error, ClusterRestoreError::Content { .. } | ClusterRestoreError::Index { .. });
            let failure = Failure::from(error);
            let damaged =
                || proof(context, manifest, false).problems(vec![Problem::new("*", failure.message())]);
            (is_damage.then(damaged), Tested::failed(manifest, &failure))
        }
    }
}

fn proof(context: &Context, manifest: &Manifest, passed: bool) -> Proof {
    let (stanza, set) = (manifest.stanza.clone(), manifest.set.clone());
    Proof::new(ProofKind::RestoreTest, stanza, set, crate::TOOL, context.clock.now(), passed)
}

fn check(check: &CheckResult) -> Check {
    Check { check: check.name.clone(), passed: check.passed, answer: check.found.clone() }
}

/// The set that was asked for, or the newest good one of each database, of the cluster, of Redis, of configuration and code.
fn chosen<'a>(args: &Args, catalog: &'a Catalog) -> Result<Vec<&'a SetSummary>, Failure> {
    if let Some(id) = &args.set {
        return Ok(vec![catalog.by_id(id)?]);
    }
    let logical = || Filter::default().kind(SetKind::new(SetKind::POSTGRES_LOGICAL));
    if let Some(database) = &args.database {
        return Ok(vec![catalog.newest_good(&logical().database(database))?]);
    }
    let filter = logical();
    let databases: BTreeSet<_> = catalog
        .select(&filter)
        .filter_map(|set| Some(set.manifest.as_ref()?.source.database.clone()))
        .collect();
    let physical = Filter::default().kind(SetKind::new(SetKind::POSTGRES_PHYSICAL));
    let cluster = catalog.select(&physical).next().map(|_| catalog.newest_good(&physical));
    let redis = Filter::default().kind(SetKind::new(SetKind::REDIS_SNAPSHOT));
    let redis = catalog.select(&redis).next().map(|_| catalog.newest_good(&redis));
    let files = [CONFIG, CODE].map(|kind| Filter::default().kind(SetKind::new(kind)));
    let names: BTreeSet<_> = files
        .iter()
        .flat_map(|filter| catalog.select(filter))
        .filter_map(|set| set.manifest.as_ref())
        .map(|manifest| (manifest.kind.clone(), manifest.source.database.clone()))
        .collect();
    if databases.is_empty() && cluster.is_none() && redis.is_none() && names.is_empty() {
        return Ok(vec![catalog.newest_good(&filter)?]);
    }
    let named = names
        .iter()
        .map(|(kind, name)| catalog.newest_good(&Filter::default().kind(kind.clone()).database(name)));
    let newest = databases.iter().map(|database| catalog.newest_good(&logical().database(database)));
    Ok(newest.chain(cluster).chain(redis).chain(named).collect::<Result<_, _>>()?)
}

fn throwaway(context: &Context, args: &Args, manifest: &Manifest) -> Result<ThrowawayOptions, Failure> {
    let facts: LogicalFacts = serde_json::from_value(manifest.facts.clone()).map_err(|_| {
        Failure::usage(format!("set {} is of a kind that this program cannot test", manifest.set))
    })?;
    let mut options = ThrowawayOptions::new(facts.server_version_num / 10_000, scratch(context, args)?);
    options.tools = context.postgres_tools();
    Ok(options)
}

fn scratch(context: &Context, args: &Args) -> Result<PathBuf, Failure> {
    let temporary = context.environment().get("TMPDIR").map_or("/tmp", String::as_str);
    let scratch = args.scratch.clone().unwrap_or_else(|| PathBuf::from(temporary));
    // The server's programs run in another folder, and perhaps under another account.
    std::path::absolute(&scratch)
        .map_err(|error| Failure::usage(format!("cannot use folder {}: {error}", scratch.display())))
}

fn checks(files: &[PathBuf]) -> Result<Vec<SqlCheck>, Failure> {
    let mut checks = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
        for (number, sql) in split_statements(&text).into_iter().enumerate() {
            checks.push(SqlCheck { name: format!("{} #{}", name(file), number + 1), sql: sql.to_string() });
        }
    }
    Ok(checks)
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The proof to keep, and what to say. A test that could not be done proves nothing.
fn conclude(
    context: &Context,
    manifest: &Manifest,
    outcome: Result<RestoreTestReport, Error>,
) -> (Option<Proof>, Tested) {
    let proof = |passed| proof(context, manifest, passed);
    match outcome {
        Ok(report) => {
            let passed = report.passed();
            (Some(proof(passed).restore(record(&report))), Tested::done(manifest, report))
        }
        Err(error) => {
            let failure = Failure::from(error);
            let bad = failure.class() == backstay_backup_core::Class::Data;
            let proof = bad.then(|| proof(false).problems(vec![Problem::new("*", failure.message())]));
            (proof, Tested::failed(manifest, &failure))
        }
    }
}

fn record(report: &RestoreTestReport) -> RestoreTest {
    let millis = |seconds: f64| (seconds * 1000.0).round() as u64;
    let receipt = &report.receipt;
    let mut test = RestoreTest::default();
    test.rto_millis = millis(receipt.rto_seconds);
    test.facts_compared = receipt.comparison.compared;
    test.phases = receipt
        .phases
        .iter()
        .map(|phase| Phase { name: phase.name.clone(), millis: millis(phase.seconds) })
        .collect();
    test.differences = receipt
        .comparison
        .differences
        .iter()
        .map(|difference| {
            format!("{}: expected {}, found {}", difference.fact, difference.expected, difference.found)
        })
        .collect();
    test.checks = report.checks.iter().map(check).collect();
    test
}
