//! Turns what the streams said into the facts of the set. Pure.

use std::collections::BTreeMap;

use crate::archive::{ArchiveFacts, ArchiveToc};
use crate::evidence;
use crate::facts::{LargeObjectTotals, LogicalFacts, StoredArchive, StoredBlock, TableFacts};

/// One finished stream.
#[derive(Debug)]
pub(crate) struct FinishedStream {
    /// Name of the stream.
    pub name: String,
    /// What it contained.
    pub facts: ArchiveFacts,
    /// Names of its objects in order.
    pub objects: Vec<String>,
}

/// Fills in everything that the streams tell; the first stream is the main one.
pub(crate) fn absorb(facts: &mut LogicalFacts, streams: &[FinishedStream]) {
    for stream in streams {
        facts.tables.extend(tables(&stream.facts));
        let objects = stream.facts.objects;
        let totals = &mut facts.large_objects;
        *totals =
            LargeObjectTotals { count: totals.count + objects.count, bytes: totals.bytes + objects.bytes };
        facts.archives.push(stored_archive(stream));
    }
    facts.tables.sort();
    if let Some(main) = streams.first() {
        facts.sequences = evidence::sequences(&main.facts.toc);
        facts.definitions = evidence::definitions(&main.facts.toc);
    }
}

fn tables(archive: &ArchiveFacts) -> impl Iterator<Item = TableFacts> + '_ {
    archive.blocks.iter().filter_map(|block| {
        let rows = block.rows?;
        let (schema, name) = archive.toc.table_name(block.dump_id)?;
        let columns = archive.toc.find(block.dump_id)?.copy_columns().unwrap_or_default();
        Some(TableFacts {
            schema: schema.to_str_lossy().into_owned(),
            name: name.to_str_lossy().into_owned(),
            rows: rows.rows,
            bytes: rows.bytes,
            digest: rows.digest.map(|digest| digest.to_string()),
            columns: String::from_utf8_lossy(columns).into_owned(),
        })
    })
}

fn stored_archive(stream: &FinishedStream) -> StoredArchive {
    let block = |block: &crate::archive::BlockFacts| StoredBlock {
        id: block.dump_id.get(),
        start: block.start,
        end: block.end,
    };
    StoredArchive {
        name: stream.name.clone(),
        objects: stream.objects.clone(),
        toc_length: stream.facts.toc.length(),
        blocks: stream.facts.blocks.iter().map(block).collect(),
    }
}

/// Names and column lists in the archives that are not ASCII, when the dump is not in UTF-8: the server must translate them.
pub(crate) fn foreign_names(toc: &ArchiveToc) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = toc
        .entries()
        .iter()
        .flat_map(|entry| {
            let columns = entry.copy_columns().unwrap_or_default();
            entry.namespace.iter().chain([&entry.tag]).map(|text| text.as_bytes()).chain([columns])
        })
        .map(<[u8]>::to_vec)
        .filter(|name| !name.is_ascii())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Replaces the lossy form of names by what the server says they are.
pub(crate) fn rename(facts: &mut LogicalFacts, names: &BTreeMap<String, String>) {
    let fix = |name: &mut String| {
        if let Some(right) = names.get(name) {
            right.clone_into(name);
        }
    };
    for table in &mut facts.tables {
        fix(&mut table.schema);
        fix(&mut table.name);
        fix(&mut table.columns);
    }
    for sequence in &mut facts.sequences {
        fix(&mut sequence.schema);
        fix(&mut sequence.name);
    }
}
