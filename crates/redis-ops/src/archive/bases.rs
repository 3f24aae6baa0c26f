//! Which sets a recovery can begin with: snapshots of a Redis that tell where in the stream they were taken.

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::id::SetId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::line::Base;
use super::name::Position;
use crate::{Offset, ReplicationId};

/// What the facts of such a set say of one snapshot, among other things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct BaseFacts {
    /// The object with the snapshot.
    pub object: String,
    /// The history that it is of.
    pub replication_id: ReplicationId,
    /// Where in it.
    pub offset: Offset,
}

/// The bases of a stanza, of all streams.
#[must_use]
pub fn bases(catalog: &Catalog) -> Vec<Base> {
    let mut bases = Vec::new();
    for set in &catalog.sets {
        let Some(manifest) = set.manifest.as_deref().filter(|it| it.kind.0.starts_with("redis-")) else {
            continue;
        };
        let mut found = Vec::new();
        collect(&manifest.facts, 0, &mut found);
        for facts in found.into_iter().filter(|facts| manifest.object(&facts.object).is_some()) {
            bases.push(facts.base(&set.id, manifest.recovery_point, set.is_good()));
        }
    }
    bases
}

impl BaseFacts {
    fn base(self, set: &SetId, taken: Timestamp, good: bool) -> Base {
        let position = Position::new(self.replication_id, self.offset);
        Base::new(set.clone(), &self.object, position, taken, good)
    }
}

/// Looks for snapshots wherever the facts name an object with a position.
fn collect(facts: &serde_json::Value, depth: usize, found: &mut Vec<BaseFacts>) {
    if depth > 4 {
        return;
    }
    match facts {
        serde_json::Value::Object(fields) if fields.contains_key("replication-id") => {
            found.extend(BaseFacts::deserialize(facts));
        }
        serde_json::Value::Object(fields) => {
            fields.values().for_each(|value| collect(value, depth + 1, found));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, depth + 1, found)),
        _ => {}
    }
}
