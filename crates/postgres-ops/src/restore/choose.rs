//! Which entries of a dump a restore of some tables or schemas takes. Pure.

use std::collections::HashSet;

use crate::archive::{ArchiveToc, DumpId, TocEntry};
use crate::relation::Relation;
use crate::selection::{Selection, matches};

/// Belongs to a table and goes where it goes. Foreign keys are not here: they speak of other tables.
const COMPANIONS: [&str; 17] = [
    "TABLE DATA",
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "STATISTICS",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "COMMENT",
    "ACL",
    "SECURITY LABEL",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "TABLE ATTACH",
];

/// Entries that define something of their own; a companion of two of them needs both.
const OBJECTS: [&str; 6] = ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE", "FUNCTION"];

/// Chooses the entries for the wanted tables and schemas; empty when nothing matches.
///
/// `with_needs` also takes what the chosen entries depend on (schemas, types, extensions, functions), which an
/// empty database needs and a filled one has.
#[must_use]
pub(crate) fn choose(
    toc: &ArchiveToc,
    tables: &[String],
    schemas: &[String],
    with_needs: bool,
) -> HashSet<DumpId> {
    let mut chosen: HashSet<DumpId> = toc
        .entries()
        .iter()
        .filter(|entry| is_wanted(entry, tables, schemas))
        .map(|entry| entry.dump_id)
        .collect();
    if chosen.is_empty() {
        return chosen;
    }
    add_companions(toc, &mut chosen);
    if with_needs {
        add_needs(toc, &mut chosen);
    }
    chosen.extend(toc.entries().iter().filter(|entry| is_preamble(entry)).map(|entry| entry.dump_id));
    chosen
}

/// Foreign keys to tables that were left out of the dump: nothing but their own table is left to depend on.
pub(crate) fn keys_to_nowhere(toc: &ArchiveToc) -> Vec<&TocEntry> {
    let entries = toc.entries().iter();
    entries.filter(|entry| entry.desc == "FK CONSTRAINT" && entry.dependencies.len() < 2).collect()
}

/// Sets client encoding and the like; every restore needs it.
pub(crate) fn is_preamble(entry: &TocEntry) -> bool {
    ["ENCODING", "STDSTRINGS", "SEARCHPATH"].iter().any(|desc| entry.desc == *desc)
}

fn is_wanted(entry: &TocEntry, tables: &[String], schemas: &[String]) -> bool {
    let Some(namespace) = &entry.namespace else {
        let named = |schema: &String| matches(schema, &entry.tag.to_str_lossy());
        return entry.desc == "SCHEMA" && schemas.iter().any(named);
    };
    let namespace = namespace.to_str_lossy().into_owned();
    if schemas.iter().any(|schema| matches(schema, &namespace)) {
        return true;
    }
    let table = Relation::table(&namespace, &entry.tag.to_str_lossy(), 0);
    entry.desc == "TABLE" && Selection::named(tables, std::slice::from_ref(&table)).next().is_some()
}

/// Adds what belongs to the chosen tables: first the sequences they own, then everything that depends only on them.
fn add_companions(toc: &ArchiveToc, chosen: &mut HashSet<DumpId>) {
    let owned: Vec<DumpId> = toc
        .entries()
        .iter()
        .filter(|entry| entry.desc == "SEQUENCE OWNED BY")
        .filter(|entry| entry.dependencies.iter().any(|id| chosen.contains(id)))
        .flat_map(|entry| entry.dependencies.clone())
        .filter(|id| toc.find(*id).is_some_and(|entry| entry.desc == "SEQUENCE"))
        .collect();
    chosen.extend(owned);
    loop {
        let more: Vec<DumpId> = toc
            .entries()
            .iter()
            .filter(|entry| !chosen.contains(&entry.dump_id) && is_companion(toc, entry, chosen))
            .map(|entry| entry.dump_id)
            .collect();
        if more.is_empty() {
            return;
        }
        chosen.extend(more);
    }
}

fn is_companion(toc: &ArchiveToc, entry: &TocEntry, chosen: &HashSet<DumpId>) -> bool {
    let desc = entry.desc.to_str_lossy();
    let owners = entry
        .dependencies
        .iter()
        .filter(|id| toc.find(**id).is_some_and(|owner| OBJECTS.iter().any(|object| owner.desc == *object)));
    COMPANIONS.contains(&&*desc)
        && entry.dependencies.iter().any(|id| chosen.contains(id))
        && owners.into_iter().all(|id| chosen.contains(id))
}

fn add_needs(toc: &ArchiveToc, chosen: &mut HashSet<DumpId>) {
    let mut open: Vec<DumpId> = chosen.iter().copied().collect();
    while let Some(id) = open.pop() {
        let Some(entry) = toc.find(id) else { continue };
        let schema = entry.namespace.as_ref().and_then(|name| {
            toc.entries()
                .iter()
                .find(|entry| entry.desc == "SCHEMA" && entry.tag == *name)
                .map(|entry| entry.dump_id)
        });
        for need in entry.dependencies.iter().copied().chain(schema) {
            if chosen.insert(need) {
                open.push(need);
            }
        }
    }
}
