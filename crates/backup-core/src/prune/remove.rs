//! Deletes what was decided on, in an order in which a crash does no harm.

use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};

use super::apply::RepositoryReport;
use super::litter::{self, Litter, LitterKind};
use crate::error::describe;
use crate::id::{SetId, Stanza};
use crate::key::{Key, Prefix};
use crate::proof::Problem;
use crate::repository::{Repository, layout};
use crate::store::{ObjectMeta, StoreError};

/// Objects deleted at the same time.
const DELETES: usize = 8;

/// One repository being pruned.
#[derive(Debug)]
pub(super) struct Remover<'a> {
    pub(super) repository: &'a Repository,
    pub(super) stanza: &'a Stanza,
    pub(super) report: &'a mut RepositoryReport,
}

impl Remover<'_> {
    /// Removes a set; false when its manifest is, or may be, still there.
    pub(super) async fn remove_set(&mut self, set: &SetId) -> bool {
        let manifest = layout::manifest(self.stanza, set);
        let size = match self.repository.store().head(&manifest).await {
            Ok(meta) => meta.size,
            Err(error) if error.is_absent() => 0,
            Err(error) => {
                self.note(&manifest, &error);
                return false;
            }
        };
        if !self.delete(&manifest, size).await {
            return false;
        }
        self.report.removed.push(set.clone());
        if self.delete_below(&layout::set(self.stanza, set), |_| true).await {
            self.remove_records(set).await;
        }
        true
    }

    /// Removes litter that still is litter; `now` is the store's time.
    pub(super) async fn remove_litter(&mut self, found: &Litter, now: Timestamp, grace: SignedDuration) {
        let is_old = |meta: &ObjectMeta| now.duration_since(meta.modified) >= grace;
        if now.duration_since(found.newest) < grace {
            return;
        }
        let done = match &found.what {
            LitterKind::Objects { set } => {
                if !self.is_absent(&layout::manifest(self.stanza, set)).await {
                    return;
                }
                self.delete_below(&layout::set(self.stanza, set), is_old).await
                    && self.remove_records(set).await
            }
            LitterKind::Records { set } => {
                self.is_absent(&layout::manifest(self.stanza, set)).await && self.remove_records(set).await
            }
            LitterKind::Probe { key } | LitterKind::LeaseEntry { key } => self.delete(key, found.bytes).await,
            LitterKind::Upload { .. } => self.abort_upload(&found.what).await,
        };
        if done {
            self.report.litter.push(found.what.clone());
        }
    }

    async fn abort_upload(&mut self, what: &LitterKind) -> bool {
        let Some((key, upload)) = what.upload() else { return false };
        match self.repository.store().abort_upload(key, &upload).await {
            Ok(()) => true,
            Err(error) => {
                self.note(key, &error);
                false
            }
        }
    }

    async fn is_absent(&mut self, key: &Key) -> bool {
        match self.repository.store().head(key).await {
            Ok(_) => false,
            Err(error) if error.is_absent() => true,
            Err(error) => {
                self.note(key, &error);
                false
            }
        }
    }

    async fn remove_records(&mut self, set: &SetId) -> bool {
        let (all_proofs, all_holds) = (layout::all_proofs(self.stanza), layout::all_holds(self.stanza));
        let proofs = layout::proofs(self.stanza, set);
        let holds = layout::holds(self.stanza, set);
        let proofs = self.delete_below(&proofs, |meta| litter::is_record(&all_proofs, &meta.key)).await;
        let holds = self.delete_below(&holds, |meta| litter::is_record(&all_holds, &meta.key)).await;
        proofs && holds
    }

    /// Deletes what fits below a prefix, page by page; true when all of it went.
    async fn delete_below(&mut self, below: &Prefix, fits: impl Fn(&ObjectMeta) -> bool) -> bool {
        let store = self.repository.store();
        let mut deletions = std::pin::pin!(
            store
                .list(below)
                .try_filter(|meta| std::future::ready(fits(meta)))
                .map_ok(async |meta| {
                    let result = store.delete(&meta.key).await;
                    Ok::<_, StoreError>((meta, result))
                })
                .try_buffer_unordered(DELETES)
                .into_stream()
        );
        let mut all = true;
        while let Some(deletion) = deletions.next().await {
            match deletion {
                Ok((meta, Ok(()))) => self.report.count(meta.size),
                Ok((meta, Err(error))) => {
                    all = false;
                    self.report.note(meta.key.as_str(), &error);
                }
                Err(error) => {
                    all = false;
                    self.report.note(below.as_str(), &error);
                }
            }
        }
        all
    }

    async fn delete(&mut self, key: &Key, size: u64) -> bool {
        match self.repository.store().delete(key).await {
            Ok(()) => {
                self.report.count(size);
                true
            }
            Err(error) => {
                self.note(key, &error);
                false
            }
        }
    }

    fn note(&mut self, key: &Key, error: &StoreError) {
        self.report.note(key.as_str(), error);
    }
}

impl RepositoryReport {
    fn count(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }

    fn note(&mut self, key: &str, error: &StoreError) {
        let problem = Problem::new(key, describe(error));
        match error {
            StoreError::Denied { .. } => self.denied.push(problem),
            _ => self.failed.push(problem),
        }
    }
}
