//! The list file that `pg_restore -L` reads: which entries to restore, one a line.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write;

use super::{ArchiveText, ArchiveToc, DumpId, TocEntry};

impl ArchiveToc {
    /// A list file of the `wanted` entries, in the order of the table of contents.
    ///
    /// The order matters: `pg_restore` follows the file, and from a pipe it cannot go back to an earlier block. It
    /// reads only the number that begins a line; the rest is for people.
    pub fn restore_list(&self, wanted: &HashSet<DumpId>) -> String {
        let mut list = String::new();
        for entry in self.entries().iter().filter(|entry| wanted.contains(&entry.dump_id)) {
            push_line(&mut list, entry);
        }
        list
    }
}

fn push_line(list: &mut String, entry: &TocEntry) {
    let namespace = entry.namespace.as_ref().map_or(Cow::Borrowed("-"), one_line);
    writeln!(
        list,
        "{}; {} {} {} {} {} {}",
        entry.dump_id,
        entry.table_oid,
        entry.oid,
        one_line(&entry.desc),
        namespace,
        one_line(&entry.tag),
        one_line(&entry.owner),
    )
    .expect("writing to a string succeeds");
}

/// A line break in a name would make `pg_restore` read the rest of the name as a line of its own.
fn one_line(text: &ArchiveText) -> Cow<'_, str> {
    let text = text.to_str_lossy();
    if text.contains(char::is_control) {
        return Cow::Owned(text.replace(char::is_control, " "));
    }
    text
}
