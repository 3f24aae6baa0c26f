//! A whole restore: which set and which log, the files, the server, the receipt.

use std::fmt;
use std::time::Instant;

use backstay_backup_core::catalog::{Catalog, SetSummary};
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::error::describe;
use backstay_backup_core::id::SetId;
use backstay_backup_core::manifest::{Manifest, SetKind};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::new_tablespaces;
use super::plan::{FilesPlan, cluster_facts, plan_files};
use super::receipt::{ClusterReceipt, Outcome};
use super::server::{ClusterServer, StartOptions, Until, recovery_end};
use super::settings::{RecoverySettings, TargetAction};
use super::{ClusterRestoreError, ClusterRestoreOptions};
use crate::dump::Phase;
use crate::recovery::{
    BaseBackup, RecoveryPlan, RecoveryRequest, RecoveryTarget, TimelineChoice, plan_recovery,
};
use crate::wal::SystemId;
use crate::wal_archive::{WalArchive, WalSurvey};

/// What is wanted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterRequest {
    /// Where recovery shall end, and along which timeline.
    pub recovery: RecoveryRequest,
    /// Only this set; otherwise the newest good one that reaches the target.
    pub set: Option<SetId>,
    /// The cluster, where a stanza has had several; otherwise that of its newest set.
    pub system: Option<SystemId>,
}

impl ClusterRequest {
    /// The newest good set that reaches this.
    #[must_use]
    pub fn new(target: RecoveryTarget, timeline: TimelineChoice) -> Self {
        Self { recovery: RecoveryRequest { target, timeline }, set: None, system: None }
    }

    /// Only this set.
    #[must_use]
    pub fn set(mut self, set: SetId) -> Self {
        self.set = Some(set);
        self
    }
}

/// What restoring a cluster would do. Nothing was touched.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ClusterPlan {
    /// Base backup, log, end.
    pub recovery: RecoveryPlan,
    /// The files.
    pub files: FilesPlan,
    /// Newer sets that were passed over, and why.
    pub passed_over: Vec<String>,
    /// Expected time until the cluster is there, in seconds, from the newest measured restore of this stanza; `None`
    /// where none was measured.
    pub expected_seconds: Option<f64>,
    #[serde(skip)]
    sources: Sources,
}

/// What the plan was made from, to judge the outcome by.
struct Sources {
    archive: WalArchive,
    survey: WalSurvey,
    bases: Vec<BaseBackup>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("bases", &self.bases.len()).finish_non_exhaustive()
    }
}

/// What becomes of the files once they are there.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Ending {
    /// Nothing: the operator starts the server.
    #[default]
    Prepare,
    /// The server is started, and its recovery waited for.
    Start(StartOptions),
}

/// Chooses set and log for a target, proves that all of it is there, and looks at where it would go. Reads only.
///
/// # Errors
/// [`ClusterRestoreError::Recovery`] for a target that cannot be reached, with the nearest that can; whatever
/// [`plan_files`] fails with.
///
/// # Cancel safety
/// May be dropped at any time.
pub async fn plan_cluster_restore(
    repositories: &Repositories,
    catalog: &Catalog,
    identities: &Identities,
    request: &ClusterRequest,
    options: &ClusterRestoreOptions,
) -> Result<ClusterPlan, ClusterRestoreError> {
    let sets = good_sets(catalog, request)?;
    let system = request.system.or_else(|| sets.first().map(|set| set.base.system));
    let system = system.ok_or_else(|| ClusterRestoreError::NoSet { stanza: catalog.stanza.clone() })?;
    let archive = WalArchive::new(repositories.clone(), catalog.stanza.clone(), system);
    let survey = archive.survey(identities).await?;
    let bases: Vec<_> = sets.iter().map(|set| set.base.clone()).collect();
    let recovery = Box::pin(plan_recovery(&archive, identities, &request.recovery, &bases, &survey)).await?;
    let chosen = sets.iter().find(|set| set.base.set == recovery.set);
    let chosen = chosen.expect("a plan takes one of the sets given to it");
    let files = plan_files(repositories, chosen.manifest, identities, options).await?;
    let expected_seconds = expected_seconds(catalog, &files);
    let passed_over = passed_over(catalog, chosen.summary);
    let sources = Sources { archive, survey, bases };
    Ok(ClusterPlan { recovery, files, passed_over, expected_seconds, sources })
}

struct GoodSet<'a> {
    summary: &'a SetSummary,
    manifest: &'a Manifest,
    base: BaseBackup,
}

/// Good sets, newest first; or the one that was asked for, good or not.
fn good_sets<'a>(
    catalog: &'a Catalog,
    request: &ClusterRequest,
) -> Result<Vec<GoodSet<'a>>, ClusterRestoreError> {
    let mut good = Vec::new();
    for summary in &catalog.sets {
        let Some(manifest) = summary.manifest.as_deref().filter(|manifest| is_physical(manifest)) else {
            continue;
        };
        let wanted = match &request.set {
            Some(set) => *set == summary.id,
            None => summary.is_good(),
        };
        if wanted {
            let base = BaseBackup::new(summary.id.clone(), &cluster_facts(manifest)?);
            good.push(GoodSet { summary, manifest, base });
        }
    }
    Ok(good)
}

fn is_physical(manifest: &Manifest) -> bool {
    manifest.kind == SetKind::new(SetKind::POSTGRES_PHYSICAL)
}

/// Newer sets that are no good: whoever expects one of them should know.
fn passed_over(catalog: &Catalog, chosen: &SetSummary) -> Vec<String> {
    let newer = catalog.sets.iter().take_while(|set| set.id != chosen.id).filter(|set| !set.is_good());
    let may_be = newer.filter(|set| set.manifest.as_deref().is_none_or(is_physical));
    may_be.map(|set| format!("set {} is not good: {}", set.id, set.problems().join("; "))).collect()
}

/// Scales the newest measured restore by the bytes to be restored.
fn expected_seconds(catalog: &Catalog, files: &FilesPlan) -> Option<f64> {
    let physical = catalog.sets.iter().filter(|set| set.manifest.as_deref().is_some_and(is_physical));
    let measured =
        physical.flat_map(|set| set.copies.iter().map(move |copy| (set, copy))).filter_map(|(set, copy)| {
            let proof = copy.proofs.newest_of(&[backstay_backup_core::proof::ProofKind::RestoreTest])?;
            let restore = proof.proof.restore.as_ref().filter(|_| proof.proof.passed)?;
            let bytes = cluster_facts(set.manifest.as_deref()?).ok()?.bytes;
            (bytes > 0).then(|| (proof.store_time, restore.rto_millis as f64 / 1000.0 / bytes as f64))
        });
    let newest = measured.max_by_key(|(time, _)| *time)?;
    Some(newest.1 * files.bytes as f64)
}

impl ClusterPlan {
    /// Settings of the planned recovery by this `restore_command`; promotion at its end, archiving off.
    #[must_use]
    pub fn settings(&self, restore_command: &str) -> RecoverySettings {
        RecoverySettings::new(restore_command, self.recovery.stop, self.recovery.timeline)
    }

    /// Restores the files, and starts the server if that is wanted.
    ///
    /// # Errors
    /// Any [`ClusterRestoreError`]. A server whose recovery ended elsewhere than planned is no error but a receipt whose
    /// outcome is [`Outcome::Different`].
    ///
    /// # Cancel safety
    /// The files as [`FilesPlan::apply`]. A cancelled call stops the server it started; a dropped one may leave it.
    pub async fn apply(
        &self,
        repositories: &Repositories,
        identities: &Identities,
        settings: &RecoverySettings,
        ending: &Ending,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<ClusterReceipt, ClusterRestoreError> {
        let begun = Instant::now();
        let (archive, facts) = (&self.sources.archive, &self.files.prepared.facts);
        let log = new_tablespaces::check(archive, identities, &self.recovery, facts);
        let files =
            self.files.apply_beside(repositories, identities, settings, log, progress, cancel).await?;
        let target = self.files.target.clone();
        let mut receipt = ClusterReceipt::prepared(&self.recovery, target, &files);
        receipt.notes.extend(self.passed_over.iter().cloned());
        if let Ending::Start(start) = ending {
            progress.begin("replaying WAL");
            self.start(start, settings, &mut receipt, identities, cancel).await?;
        }
        receipt.rto_seconds = begun.elapsed().as_secs_f64();
        receipt.finished = repositories.clock().now();
        Ok(receipt)
    }

    async fn start(
        &self,
        start: &StartOptions,
        settings: &RecoverySettings,
        receipt: &mut ClusterReceipt,
        identities: &Identities,
        cancel: &CancellationToken,
    ) -> Result<(), ClusterRestoreError> {
        let mut begun = Instant::now();
        let mut phase = |name: &str| {
            let seconds = std::mem::replace(&mut begun, Instant::now()).elapsed().as_secs_f64();
            Phase { name: name.to_owned(), seconds }
        };
        let until = match settings.action {
            _ if settings.standby => Until::Standby,
            TargetAction::Promote => Until::Promoted,
            TargetAction::Pause => Until::Paused,
        };
        let prepared = &self.files.prepared;
        let major = prepared.facts.server_version_num / 10_000;
        let target = &self.files.target;
        let server = ClusterServer::start(target, major, prepared.owner, (start, until), cancel).await?;
        receipt.phases.push(phase("consistent"));
        server.wait(until, cancel).await?;
        receipt.phases.push(phase("recovery"));
        match until {
            Until::Standby => receipt.outcome = Outcome::Following,
            Until::Paused => receipt.outcome = Outcome::Waiting,
            Until::Promoted => {
                receipt.judge(recovery_end(&self.files.target, self.recovery.timeline)?);
                count_missing(&self.sources, receipt, identities).await;
            }
        }
        Ok(())
    }
}

/// What is archived behind the end that a recovery reached, for the receipt.
async fn count_missing(sources: &Sources, receipt: &mut ClusterReceipt, identities: &Identities) {
    let Some(end) = receipt.reached.as_ref().filter(|_| receipt.outcome == Outcome::Different) else {
        return;
    };
    let request = RecoveryRequest {
        target: RecoveryTarget::Lsn { at: end.lsn, inclusive: false },
        timeline: TimelineChoice::Number(receipt.timeline),
    };
    let Sources { archive, survey, bases } = sources;
    match Box::pin(plan_recovery(archive, identities, &request, bases, survey)).await {
        Ok(plan) => (receipt.missing, receipt.reached_time) = (plan.loss, plan.reached),
        Err(error) => {
            receipt.notes.push(format!("what is missing could not be counted: {}", describe(&error)));
        }
    }
}

/// Completes the receipt of a restore whose server was started by somebody else and has ended its recovery.
///
/// # Errors
/// [`ClusterRestoreError::Server`] when it does not say where its recovery ended; whatever the repository fails with.
pub async fn check_receipt(
    mut receipt: ClusterReceipt,
    repositories: &Repositories,
    catalog: &Catalog,
    identities: &Identities,
) -> Result<ClusterReceipt, ClusterRestoreError> {
    receipt.judge(recovery_end(&receipt.target, receipt.timeline)?);
    if receipt.outcome == Outcome::Different {
        let archive = WalArchive::new(repositories.clone(), catalog.stanza.clone(), receipt.system);
        let survey = archive.survey(identities).await?;
        let request = ClusterRequest::new(RecoveryTarget::Latest, TimelineChoice::Latest);
        let bases = good_sets(catalog, &request)?.into_iter().map(|set| set.base).collect();
        count_missing(&Sources { archive, survey, bases }, &mut receipt, identities).await;
    }
    receipt.finished = repositories.clock().now();
    Ok(receipt)
}
