//! Turns what the streams said into the facts of the set. Pure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::str::FromStr;

use crate::archive::{ArchiveFacts, ArchiveToc, BlockFacts, ContentDigest};
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

fn tables(archive: &ArchiveFacts) -> Vec<TableFacts> {
    let mut roots: BTreeMap<(String, String), TableFacts> = BTreeMap::new();
    let mut tables = Vec::new();
    for table in archive.blocks.iter().filter_map(|block| table(archive, block)) {
        if !table.partitioned {
            tables.push(table);
            continue;
        }
        match roots.entry((table.schema.clone(), table.name.clone())) {
            Entry::Vacant(place) => {
                place.insert(table);
            }
            Entry::Occupied(mut place) => add(place.get_mut(), &table),
        }
    }
    tables.extend(roots.into_values());
    tables
}

fn add(sum: &mut TableFacts, more: &TableFacts) {
    sum.rows += more.rows;
    sum.bytes += more.bytes;
    sum.digest = match (&sum.digest, &more.digest) {
        (Some(a), Some(b)) => {
            ContentDigest::from_str(a).and_then(|a| Ok(a.plus(ContentDigest::from_str(b)?).to_string())).ok()
        }
        _ => None,
    };
}

fn table(archive: &ArchiveFacts, block: &BlockFacts) -> Option<TableFacts> {
    let rows = block.rows?;
    let entry = archive.toc.find(block.dump_id)?;
    let own = (entry.namespace.as_ref()?.to_str_lossy().into_owned(), entry.tag.to_str_lossy().into_owned());
    let target = entry.copy_stmt.as_ref().and_then(|statement| copy_target(&statement.to_str_lossy()));
    let partitioned = target.as_ref().is_some_and(|target| *target != own);
    let (schema, name) = target.unwrap_or(own);
    Some(TableFacts {
        schema,
        name,
        rows: rows.rows,
        bytes: rows.bytes,
        digest: rows.digest.map(|digest| digest.to_string()),
        columns: String::from_utf8_lossy(entry.copy_columns().unwrap_or_default()).into_owned(),
        partitioned,
    })
}

/// The table that `COPY schema.table …` names.
fn copy_target(statement: &str) -> Option<(String, String)> {
    let rest = statement.strip_prefix("COPY ")?;
    let (schema, rest) = identifier(rest)?;
    let (name, _) = identifier(rest.strip_prefix('.')?)?;
    Some((schema, name))
}

/// An SQL identifier at the start of a text, unquoted, and what follows it.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', ' ', '('])?;
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Some((name, &quoted[at + 1..]));
        }
    }
    None
}

fn stored_archive(stream: &FinishedStream) -> StoredArchive {
    let block =
        |block: &BlockFacts| StoredBlock { id: block.dump_id.get(), start: block.start, end: block.end };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_copy_is_read_with_all_its_quotes() {
        let target = |text| copy_target(text).unwrap();
        assert_eq!(target("COPY main.t (a, b) FROM stdin;\n"), ("main".into(), "t".into()));
        assert_eq!(target("COPY \"s.x\".\"t\"\" y\" FROM stdin;"), ("s.x".into(), "t\" y".into()));
        assert!(copy_target("COPY \"open").is_none());
    }
}
