//! The uploads of one object, one for every repository, fed with the same parts.

use bytes::Bytes;
use futures::future::join_all;

use super::members::Members;
use crate::error::Error;
use crate::key::{Key, Prefix};
use crate::store::{Attributes, ObjectMeta, SharedStore, StoreError};
use crate::upload::{UploadOptions, Uploader, part_size_for};

/// What the error of an upload names.
const OP: &str = "store object";

/// Uploads of one object.
pub(super) struct Lanes<'a> {
    members: &'a Members,
    lanes: Vec<Lane>,
    sizes: PartSizes,
}

struct Lane {
    member: usize,
    uploader: Uploader,
}

/// Sizes of the parts, such that every store can take them as they are.
struct PartSizes {
    base: u64,
    max_parts: u32,
    next: u32,
}

impl<'a> Lanes<'a> {
    pub(super) fn new(
        members: &'a Members,
        key: &Key,
        attributes: &Attributes,
        options: UploadOptions,
    ) -> Self {
        let mut sizes = PartSizes { base: options.part_size, max_parts: u32::MAX, next: 1 };
        let mut lanes = Vec::new();
        for member in members.healthy() {
            let store = members.repository(member).store();
            let can = store.capabilities();
            sizes.base = sizes.base.max(can.min_part);
            sizes.max_parts = sizes.max_parts.min(can.max_parts);
            let uploader = Uploader::new(store.clone(), key.clone(), attributes.clone(), options);
            lanes.push(Lane { member, uploader });
        }
        Self { members, lanes, sizes }
    }

    /// Size of the next part.
    pub(super) fn next_part(&mut self) -> usize {
        let sizes = &mut self.sizes;
        let size = part_size_for(sizes.next, sizes.base, sizes.max_parts);
        sizes.next = sizes.next.saturating_add(1);
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    /// Gives a part to every upload; returns when each has taken it, so the slowest sets the pace.
    pub(super) async fn write(&mut self, part: &Bytes) -> Result<(), Error> {
        self.leave_failed().await;
        let writes = self.lanes.iter_mut().map(|lane| lane.uploader.write(part.clone()));
        let results = join_all(writes).await;
        let mut outcome = Ok(());
        let mut kept = Vec::new();
        for (lane, result) in std::mem::take(&mut self.lanes).into_iter().zip(results) {
            match result {
                Ok(()) => kept.push(lane),
                // A failed upload has aborted itself.
                Err(error) => outcome = outcome.and(self.failed(lane.member, error)),
            }
        }
        self.lanes = kept;
        outcome
    }

    /// Completes every upload with the rest, and checks the length that the stores report.
    pub(super) async fn finish(mut self, rest: Bytes, len: u64) -> Result<(), Error> {
        self.leave_failed().await;
        let finishes = std::mem::take(&mut self.lanes)
            .into_iter()
            .map(async |lane| (lane.member, check_len(lane.uploader.finish_with(rest.clone()).await, len)));
        let mut outcome = Ok(());
        for (member, result) in join_all(finishes).await {
            if let Err(error) = result {
                outcome = outcome.and(self.failed(member, error));
            }
        }
        outcome
    }

    /// Aborts what is left.
    pub(super) async fn abort(self) {
        join_all(self.lanes.into_iter().map(|lane| lane.uploader.abort())).await;
    }

    /// Stops feeding repositories that failed with another object of the set, as long as enough are left.
    async fn leave_failed(&mut self) {
        let healthy = self.members.healthy();
        if healthy.len() < self.members.quorum() {
            return;
        }
        let (kept, left) =
            std::mem::take(&mut self.lanes).into_iter().partition(|lane| healthy.contains(&lane.member));
        self.lanes = kept;
        join_all(Vec::into_iter(left).map(|lane: Lane| lane.uploader.abort())).await;
    }

    fn failed(&self, member: usize, error: StoreError) -> Result<(), Error> {
        let error = self.members.repository(member).failed(OP, error);
        self.members.drop_out(member, error)
    }
}

fn check_len(result: Result<ObjectMeta, StoreError>, len: u64) -> Result<(), StoreError> {
    let meta = result?;
    if meta.size == len {
        return Ok(());
    }
    let why = format!("it has {} bytes instead of {len}", meta.size);
    Err(StoreError::Failed { op: OP, what: meta.key.to_string(), source: why.into() })
}

/// Aborts every pending upload below a prefix.
pub(super) async fn abort_uploads(store: &SharedStore, prefix: &Prefix) -> Result<(), StoreError> {
    for pending in store.list_uploads(prefix).await? {
        store.abort_upload(&pending.key, &pending.upload).await?;
    }
    Ok(())
}
