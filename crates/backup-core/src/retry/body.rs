//! A body that goes on after its connection broke.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

use super::tries::Tries;
use crate::store::{GetResult, ObjectMeta, SharedStore, StoreError};

/// Gives an opened object a body that resumes.
pub(super) fn resuming(store: SharedStore, opened: GetResult, tries: Tries) -> GetResult {
    let GetResult { meta, range, body } = opened;
    let reader = Reader { store, meta: meta.clone(), left: range.clone(), body: Some(body), tries };
    let body = stream::unfold(Some(reader), |reader| async {
        match reader?.next().await {
            Ok(Some((chunk, reader))) => Some((Ok(chunk), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    GetResult { meta, range, body: body.boxed() }
}

struct Reader {
    store: SharedStore,
    meta: ObjectMeta,
    /// What has not been delivered yet.
    left: Range<u64>,
    body: Option<BoxStream<'static, Result<Bytes, StoreError>>>,
    tries: Tries,
}

impl Reader {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        while !self.left.is_empty() {
            match self.step().await {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => {
                    self.left.start += chunk.len() as u64;
                    self.tries.progress();
                    return Ok(Some((chunk, self)));
                }
                Err(error) => {
                    self.body = None;
                    self.tries.pause(error).await?;
                }
            }
        }
        Ok(None)
    }

    async fn step(&mut self) -> Result<Bytes, StoreError> {
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let again = self.reopen().await?;
                self.body.insert(again)
            }
        };
        match body.next().await {
            Some(Ok(chunk)) if chunk.len() as u64 > self.left.end - self.left.start => {
                Err(self.failed("the store delivers more than was asked for"))
            }
            Some(chunk) => chunk,
            None => Err(StoreError::Temporary {
                op: "read",
                what: self.meta.key.to_string(),
                retry_after: None,
                source: format!("the body ended at byte {} of {}", self.left.start, self.left.end).into(),
            }),
        }
    }

    // Exclusive, because a shared body could not be held while waiting.
    async fn reopen(&mut self) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let again = self.store.get(&self.meta.key, Some(self.left.clone())).await?;
        if !same(&self.meta, &again.meta) {
            return Err(self.failed("the object was exchanged while it was read"));
        }
        if again.range != self.left {
            return Err(self.failed("the store delivers another range than was asked for"));
        }
        Ok(again.body)
    }

    fn failed(&self, why: &'static str) -> StoreError {
        StoreError::Failed { op: "read", what: self.meta.key.to_string(), source: why.into() }
    }
}

/// Whether both describe one version of an object.
fn same(before: &ObjectMeta, now: &ObjectMeta) -> bool {
    let version = match (&before.etag, &now.etag) {
        (Some(before), Some(now)) => before == now,
        _ => before.modified == now.modified,
    };
    version && before.size == now.size
}
