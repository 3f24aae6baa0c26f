//! What one repository holds of a stanza.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::CopyState;
use crate::error::{Error, describe};
use crate::hold::{self, HoldState};
use crate::id::{SetId, Stanza};
use crate::manifest::{Manifest, ManifestError};
use crate::proof::{self, Proofs};
use crate::repository::{Repository, layout};
use crate::store::ObjectMeta;

/// Manifests read at the same time.
const READS: usize = 8;

/// One repository's sets, proofs and holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) copies: BTreeMap<SetId, CopyScan>,
    pub(crate) proofs: BTreeMap<SetId, Proofs>,
    pub(crate) holds: BTreeMap<SetId, HoldState>,
}

/// One manifest as found.
#[derive(Debug)]
pub(crate) struct CopyScan {
    pub(crate) manifest: Result<Arc<Manifest>, Unreadable>,
    pub(crate) store_time: Timestamp,
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable {
    pub(crate) problem: String,
    pub(crate) state: CopyState,
}

/// Reads everything that the catalog needs of one repository.
///
/// Lists the keys of the stanza's sets page by page and remembers only the manifests: with a million objects that takes
/// a thousand requests and no memory to speak of.
pub(crate) async fn scan(repository: &Repository, stanza: &Stanza) -> Result<Scan, Error> {
    let manifests = list_manifests(repository, stanza).await?;
    let copies = stream::iter(manifests)
        .map(|(set, meta)| async move {
            let copy = read_manifest(repository, stanza, &set, &meta).await?;
            Ok::<_, Error>(copy.map(|copy| (set, copy)))
        })
        .buffer_unordered(READS)
        .try_filter_map(async |copy| Ok(copy))
        .try_collect();
    let (below_proofs, below_holds) = (layout::all_proofs(stanza), layout::all_holds(stanza));
    let (copies, proofs, holds) = tokio::try_join!(
        copies,
        proof::load(repository, stanza, &below_proofs),
        hold::load(repository, stanza, &below_holds),
    )?;
    Ok(Scan { copies, proofs, holds })
}

async fn list_manifests(repository: &Repository, stanza: &Stanza) -> Result<Vec<(SetId, ObjectMeta)>, Error> {
    let sets = layout::sets(stanza);
    let listing = repository.store().list(&sets).map_err(|source| repository.failed("list sets", source));
    listing
        .try_filter_map(async |meta| {
            let found = layout::split(&sets, &meta.key).filter(|(_, name)| name == layout::MANIFEST);
            Ok(found.map(|(set, _)| (set, meta)))
        })
        .try_collect()
        .await
}

/// `None` when the manifest vanished since it was listed.
async fn read_manifest(
    repository: &Repository,
    stanza: &Stanza,
    set: &SetId,
    meta: &ObjectMeta,
) -> Result<Option<CopyScan>, Error> {
    let read = match repository.manifest(stanza, set).await {
        // Perhaps only on its way here: what is damaged in the store is so again.
        Err(Error::Manifest { source: ManifestError::Damaged { .. }, .. }) => {
            repository.manifest(stanza, set).await
        }
        read => read,
    };
    let manifest = match read {
        Ok(manifest) => Ok(Arc::new(manifest)),
        Err(Error::Store { source, .. }) if source.is_absent() => {
            match repository.why_absent(&meta.key).await? {
                None => return Ok(None),
                Some(problem) => Err(Unreadable { problem, state: CopyState::Unread }),
            }
        }
        Err(error @ Error::Store { .. }) if is_temporary(&error) => return Err(error),
        Err(error) => {
            let state = match &error {
                Error::Store { .. } => CopyState::Unread,
                Error::Manifest { source: ManifestError::TooNew { .. }, .. } => CopyState::Newer,
                _ => CopyState::Unreadable,
            };
            Err(Unreadable { problem: describe(&error), state })
        }
    };
    Ok(Some(CopyScan { manifest, store_time: meta.modified }))
}

fn is_temporary(error: &Error) -> bool {
    matches!(error, Error::Store { source, .. } if source.is_temporary())
}
