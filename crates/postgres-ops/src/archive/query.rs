//! Questions a backup or a restore asks of a table of contents.

use std::collections::{HashMap, HashSet};

use super::{ArchiveText, ArchiveToc, DumpId, TocEntry};

impl ArchiveToc {
    /// Entries whose data is in the archive, in the order of their blocks.
    pub fn data_entries(&self) -> impl Iterator<Item = &TocEntry> {
        self.entries().iter().filter(|entry| entry.has_data())
    }

    /// Schema and name of the table whose rows or definition the entry holds.
    pub fn table_name(&self, id: DumpId) -> Option<(&ArchiveText, &ArchiveText)> {
        let entry = self.find(id)?;
        let is_table = entry.is_table_data() || entry.desc == "TABLE";
        if is_table { Some((entry.namespace.as_ref()?, &entry.tag)) } else { None }
    }

    /// The definition of a table; foreign tables and views are not tables here.
    pub fn find_table(&self, schema: &str, name: &str) -> Option<&TocEntry> {
        self.find_named("TABLE", schema, name)
    }

    /// The rows of a table.
    pub fn find_table_data(&self, schema: &str, name: &str) -> Option<&TocEntry> {
        self.find_named("TABLE DATA", schema, name)
    }

    /// Entries that name `id` among their dependencies: for a table its data, indexes, constraints, triggers,
    /// views, comments and the like. Looks at every entry.
    pub fn dependents(&self, id: DumpId) -> impl Iterator<Item = &TocEntry> {
        self.entries().iter().filter(move |entry| entry.dependencies.contains(&id))
    }

    /// Everything that leads back to one of `roots`, the roots included.
    pub fn closure(&self, roots: impl IntoIterator<Item = DumpId>) -> HashSet<DumpId> {
        let mut users: HashMap<DumpId, Vec<DumpId>> = HashMap::new();
        for entry in self.entries() {
            for id in &entry.dependencies {
                users.entry(*id).or_default().push(entry.dump_id);
            }
        }
        let mut unvisited: Vec<DumpId> = roots.into_iter().collect();
        let mut reached = HashSet::new();
        while let Some(id) = unvisited.pop() {
            if reached.insert(id) {
                unvisited.extend(users.get(&id).into_iter().flatten());
            }
        }
        reached
    }

    /// Indexes and constraints that a table needs on its own, in the order of restoring them.
    ///
    /// Foreign keys and triggers are left out: they speak of other tables and functions, which a restore of one
    /// table may not have.
    pub fn table_indexes(&self, table: DumpId) -> impl Iterator<Item = &TocEntry> {
        self.dependents(table).filter(|entry| is_index(entry))
    }

    /// The same of several tables. One pass over all entries.
    pub(crate) fn indexes_of(&self, tables: &HashSet<DumpId>) -> impl Iterator<Item = &TocEntry> {
        let of_these = |entry: &&TocEntry| entry.dependencies.iter().any(|id| tables.contains(id));
        self.entries().iter().filter(|entry| is_index(entry)).filter(of_these)
    }

    /// The tables of these names.
    pub(crate) fn tables_named(&self, names: &HashSet<(&ArchiveText, &ArchiveText)>) -> HashSet<DumpId> {
        let tables = self.entries().iter().filter(|entry| entry.desc == "TABLE");
        let named = tables.filter(|entry| {
            entry.namespace.as_ref().is_some_and(|schema| names.contains(&(schema, &entry.tag)))
        });
        named.map(|entry| entry.dump_id).collect()
    }

    /// Name of the encoding that all text of the archive is in, as in `SET client_encoding`.
    pub fn encoding(&self) -> Option<String> {
        let entry = self.entries().iter().find(|entry| entry.desc == "ENCODING")?;
        let (_, quoted) = entry.defn.as_str()?.split_once('\'')?;
        quoted.split_once('\'').map(|(name, _)| name.to_owned())
    }

    fn find_named(&self, desc: &str, schema: &str, name: &str) -> Option<&TocEntry> {
        self.entries().iter().find(|entry| {
            entry.desc == desc
                && entry.tag == name
                && entry.namespace.as_ref().is_some_and(|namespace| namespace == schema)
        })
    }
}

fn is_index(entry: &TocEntry) -> bool {
    ["INDEX", "CONSTRAINT", "CHECK CONSTRAINT"].iter().any(|kind| entry.desc == *kind)
}

impl TocEntry {
    /// The column list of the entry's COPY statement, parentheses included; empty for a table without columns.
    ///
    /// Generated columns are not in it. The text is in the encoding of the archive.
    pub fn copy_columns(&self) -> Option<&[u8]> {
        let statement = self.copy_stmt.as_ref()?.as_bytes();
        let target = statement.strip_prefix(b"COPY ")?;
        let name = qualified_name_length(target)?;
        let end = memchr::memmem::rfind(target, b" FROM stdin;")?;
        target.get(name..end).map(<[u8]>::trim_ascii)
    }
}

/// The table of a COPY statement, qualified and quoted as it stands there.
pub(crate) fn copy_table(statement: &str) -> Option<&str> {
    let target = statement.strip_prefix("COPY ")?;
    target.get(..qualified_name_length(target.as_bytes())?)
}

/// Length of `a.b` at the start of `text`, where either part may be quoted.
fn qualified_name_length(text: &[u8]) -> Option<usize> {
    let mut in_quotes = false;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            // A doubled quote leaves and enters again, which is right.
            b'"' => in_quotes = !in_quotes,
            b' ' if !in_quotes => return Some(at),
            _ => {}
        }
    }
    None
}
