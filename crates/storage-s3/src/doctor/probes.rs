//! What was written is there.

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::finding::Answer;
use super::run::{Answered, Run};

/// Bytes of the first object: more than a packet, with every byte value.
const SAMPLE: usize = 8 * 1024;

impl Run {
    /// Needs no verdict on failure: everything else depends on it.
    pub(super) async fn round_trip(&self) -> Answered {
        const BROKEN: &str = "do not use this store";
        let key = self.key("round-trip");
        let body: Bytes = (0..SAMPLE).map(|at| (at % 251) as u8).collect();
        self.create(&key, &body).await?;
        if self.read(&key).await? != body {
            return Ok(Answer::unsafe_because("other bytes come back than were written", BROKEN));
        }
        let part = self.store.get(&key, Some(100..200)).await?;
        let part: Vec<Bytes> = part.body.try_collect().await?;
        if part.concat() != body[100..200] {
            return Ok(Answer::unsafe_because("a byte range comes back with other bytes", BROKEN));
        }
        if self.store.head(&key).await?.size != body.len() as u64 {
            return Ok(Answer::unsafe_because("the store reports another length than was written", BROKEN));
        }
        Ok(Answer::safe("what was written comes back, whole and in part"))
    }

    pub(super) async fn list_after_write(&self) -> Answered {
        let folder = self.folder("list");
        let keys: Vec<_> =
            ["a", "b-1", "b/c", "z"].iter().map(|name| self.key(&format!("list/{name}"))).collect();
        let body = Bytes::from_static(b"listed");
        for key in &keys {
            self.create(key, &body).await?;
        }
        let listed: Vec<_> = self.store.list(&folder).try_collect().await?;
        let missing = keys.iter().filter(|key| !listed.iter().any(|meta| meta.key == **key)).count();
        if missing > 0 {
            return Ok(Answer::unsafe_because(
                format!(
                    "{missing} of {} objects just written are not in the listing: prune and catalog work on old \
                         news",
                    keys.len()
                ),
                "use a store with consistent listings; until then never prune and write at the same time",
            ));
        }
        if listed.iter().any(|meta| meta.size != body.len() as u64) {
            return Ok(Answer::unsafe_because("the listing shows wrong sizes", "do not use this store"));
        }
        if !listed.is_sorted_by(|a, b| a.key < b.key) {
            return Ok(Answer::unsafe_because(
                "the listing is not in the order of the keys",
                "use a general purpose bucket; directory buckets do not sort",
            ));
        }
        Ok(Answer::safe("a listing shows at once and in order what was written"))
    }
}
