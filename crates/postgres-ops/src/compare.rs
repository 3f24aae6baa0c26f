//! Compares what was recorded with what was restored. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::{DatabaseFacts, DefinitionFacts, LargeObjectTotals, SequenceFacts, TableFacts};

/// The same facts, of a backup or of a database that was restored from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Rows per table.
    pub tables: Vec<TableFacts>,
    /// Positions of sequences.
    pub sequences: Vec<SequenceFacts>,
    /// Large objects.
    pub large_objects: LargeObjectTotals,
    /// Definitions by kind; `None` leaves them out of the comparison.
    pub definitions: Option<BTreeMap<String, DefinitionFacts>>,
    /// Properties of the database; `None` leaves them out.
    pub database: Option<DatabaseFacts>,
}

/// One fact that is not as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// What it is about: `rows of public.orders`.
    pub fact: String,
    /// As recorded.
    pub expected: String,
    /// As found.
    pub found: String,
}

/// Outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// How many facts were compared.
    pub compared: u64,
    /// How many tables among them.
    pub tables: u64,
    /// Rows in these tables.
    pub rows: u64,
    /// Whether rows were compared by content too, not by number alone.
    pub by_content: bool,
    /// What differs.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Whether everything is as recorded.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    pub(crate) fn fact(
        &mut self,
        fact: impl FnOnce() -> String,
        expected: &impl ToString,
        found: &impl ToString,
    ) {
        self.compared += 1;
        let (expected, found) = (expected.to_string(), found.to_string());
        if expected != found {
            self.differences.push(Difference { fact: fact(), expected, found });
        }
    }
}

/// Most differences named in one line.
const MOST_NAMED: usize = 5;

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} facts differ", self.differences.len(), self.compared)?;
        for difference in self.differences.iter().take(MOST_NAMED) {
            write!(f, "; {}: expected {}, found {}", difference.fact, difference.expected, difference.found)?;
        }
        if self.differences.len() > MOST_NAMED { f.write_str("; …") } else { Ok(()) }
    }
}

/// Compares all recorded facts with those of a restored database.
#[must_use]
pub fn compare(recorded: &Evidence, restored: &Evidence) -> Comparison {
    let mut result = Comparison::default();
    tables(&mut result, &recorded.tables, &restored.tables);
    sequences(&mut result, &recorded.sequences, &restored.sequences);
    let (expected, found) = (&recorded.large_objects, &restored.large_objects);
    result.fact(|| "number of large objects".to_owned(), &expected.count, &found.count);
    result.fact(|| "bytes of large objects".to_owned(), &expected.bytes, &found.bytes);
    if let (Some(expected), Some(found)) = (&recorded.definitions, &restored.definitions) {
        definitions(&mut result, expected, found);
    }
    if let (Some(expected), Some(found)) = (&recorded.database, &restored.database) {
        database(&mut result, expected, found);
    }
    result
}

fn tables(result: &mut Comparison, recorded: &[TableFacts], restored: &[TableFacts]) {
    let found: BTreeMap<_, _> = restored.iter().map(|table| ((&table.schema, &table.name), table)).collect();
    for table in recorded {
        let label = || format!("rows of {}.{}", table.schema, table.name);
        let Some(other) = found.get(&(&table.schema, &table.name)) else {
            result.fact(label, &table.rows, &"no such table");
            continue;
        };
        result.tables += 1;
        result.rows += table.rows;
        result.fact(label, &table.rows, &other.rows);
        if let (Some(expected), Some(found)) = (&table.digest, &other.digest) {
            result.by_content = true;
            result.fact(|| format!("content of {}.{}", table.schema, table.name), expected, found);
        }
    }
}

fn sequences(result: &mut Comparison, recorded: &[SequenceFacts], restored: &[SequenceFacts]) {
    let text = |sequence: &SequenceFacts| {
        format!("{}{}", sequence.last_value, if sequence.is_called { "" } else { " (not yet given out)" })
    };
    let found: BTreeMap<_, _> = restored.iter().map(|s| ((&s.schema, &s.name), text(s))).collect();
    for sequence in recorded {
        let other = found.get(&(&sequence.schema, &sequence.name)).map_or("no such sequence", String::as_str);
        let label = || format!("position of {}.{}", sequence.schema, sequence.name);
        result.fact(label, &text(sequence), &other);
    }
}

fn definitions(
    result: &mut Comparison,
    recorded: &BTreeMap<String, DefinitionFacts>,
    restored: &BTreeMap<String, DefinitionFacts>,
) {
    let none = DefinitionFacts { count: 0, digest: String::new() };
    for kind in recorded.keys().chain(restored.keys().filter(|kind| !recorded.contains_key(*kind))) {
        let (expected, found) = (recorded.get(kind).unwrap_or(&none), restored.get(kind).unwrap_or(&none));
        result.fact(|| format!("number of definitions of kind {kind}"), &expected.count, &found.count);
        if expected.count == found.count {
            result.fact(|| format!("definitions of kind {kind}"), &expected.digest, &found.digest);
        }
    }
}

fn database(result: &mut Comparison, expected: &DatabaseFacts, found: &DatabaseFacts) {
    result.fact(|| "encoding".to_owned(), &expected.encoding, &found.encoding);
    result.fact(|| "collation".to_owned(), &expected.collate, &found.collate);
    result.fact(|| "character type".to_owned(), &expected.ctype, &found.ctype);
    result.fact(|| "owner of the database".to_owned(), &expected.owner, &found.owner);
    let limit = || "connection limit of the database".to_owned();
    result.fact(limit, &expected.connection_limit, &found.connection_limit);
    let comment = |facts: &DatabaseFacts| facts.comment.clone().unwrap_or_default();
    result.fact(|| "comment of the database".to_owned(), &comment(expected), &comment(found));
    let settings = |facts: &DatabaseFacts| {
        facts
            .settings
            .iter()
            .map(|s| format!("{}:{}={}", s.role, s.name, s.value))
            .collect::<Vec<_>>()
            .join("; ")
    };
    result.fact(|| "settings of the database".to_owned(), &settings(expected), &settings(found));
    let names = |facts: &DatabaseFacts| facts.extensions.keys().cloned().collect::<Vec<_>>().join(", ");
    result.fact(|| "extensions".to_owned(), &names(expected), &names(found));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, rows: u64, digest: Option<&str>) -> TableFacts {
        TableFacts {
            schema: "s".into(),
            name: name.into(),
            rows,
            bytes: 0,
            digest: digest.map(str::to_owned),
            columns: String::new(),
            partitioned: false,
        }
    }

    #[test]
    fn equal_evidence_has_no_differences() {
        let evidence = Evidence { tables: vec![table("a", 3, Some("x"))], ..Evidence::default() };
        let result = compare(&evidence, &evidence);
        assert!(result.is_equal() && result.by_content);
        assert_eq!((result.tables, result.rows, result.compared), (1, 3, 4));
    }

    #[test]
    fn every_difference_is_named() {
        let recorded =
            Evidence { tables: vec![table("a", 3, Some("x")), table("b", 1, None)], ..Evidence::default() };
        let restored = Evidence { tables: vec![table("a", 3, Some("y"))], ..Evidence::default() };
        let facts: Vec<_> = compare(&recorded, &restored).differences.into_iter().map(|d| d.fact).collect();
        assert_eq!(facts, ["content of s.a", "rows of s.b"]);
    }
}
