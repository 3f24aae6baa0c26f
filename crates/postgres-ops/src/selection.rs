//! Which schemas and tables a dump takes.
//!
//! Names may hold `*` and `?`. They are matched here against the tables that exist, and `pg_dump` gets the exact
//! names, so that every stream of a parallel dump agrees on what belongs to it.

use serde::{Deserialize, Serialize};

use crate::inspect::TableSize;

/// What to take and what to leave out. Empty lists take everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct Selection {
    /// Only these schemas.
    pub include_schemas: Vec<String>,
    /// Not these schemas.
    pub exclude_schemas: Vec<String>,
    /// Only these tables: `schema.table`, or `table` in any schema.
    pub include_tables: Vec<String>,
    /// Not these tables.
    pub exclude_tables: Vec<String>,
    /// Definitions but no rows of these tables.
    pub exclude_data: Vec<String>,
}

impl Selection {
    /// Whether the whole database is taken.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the rows of that table are taken.
    #[must_use]
    pub fn takes_rows(&self, table: &TableSize) -> bool {
        let schema_in = |names: &[String]| names.iter().any(|name| matches(name, &table.schema));
        let table_in = |names: &[String]| names.iter().any(|name| names_table(name, table));
        (self.include_schemas.is_empty() || schema_in(&self.include_schemas))
            && !schema_in(&self.exclude_schemas)
            && (self.include_tables.is_empty() || table_in(&self.include_tables))
            && !table_in(&self.exclude_tables)
            && !table_in(&self.exclude_data)
    }

    /// The first schema or table asked for that does not exist: `table`, and its pattern. A dump that quietly left it
    /// out, or took everything instead, would be found out when it is needed.
    pub(crate) fn missing(&self, schemas: &[String], tables: &[TableSize]) -> Option<(&'static str, &str)> {
        let no_schema = |name: &&String| !schemas.iter().any(|schema| matches(name, schema));
        let no_table = |name: &&String| !tables.iter().any(|table| names_table(name, table));
        let schema = self.include_schemas.iter().find(no_schema).map(|name| ("schema", name.as_str()));
        schema.or_else(|| self.include_tables.iter().find(no_table).map(|name| ("table", name.as_str())))
    }

    /// Tables among these that one of the names means.
    pub(crate) fn named<'a>(names: &[String], tables: &'a [TableSize]) -> Vec<&'a TableSize> {
        tables.iter().filter(|table| names.iter().any(|name| names_table(name, table))).collect()
    }
}

fn names_table(pattern: &str, table: &TableSize) -> bool {
    matches(pattern, &table.name) || matches(pattern, &format!("{}.{}", table.schema, table.name))
}

/// Whether `text` fits a pattern of literal characters, `*` and `?`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // Let the last star take one more character and try again.
                Some((at, taken)) => {
                    p = at + 1;
                    t = taken + 1;
                    star = Some((at, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_a_shell() {
        for (pattern, text, fits) in [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("ord*", "orders", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("?", "", false),
            ("a?c", "abc", true),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_name_that_nothing_fits_is_found() {
        let table = TableSize { schema: "s".into(), name: "t".into(), bytes: 0, of_extension: false };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let missing = |include_schemas: Vec<String>, include_tables: Vec<String>| {
            let selection = Selection { include_schemas, include_tables, ..Selection::default() };
            let found = selection.missing(&["s".to_owned()], std::slice::from_ref(&table));
            found.map(|(what, name)| format!("{what} {name}"))
        };
        assert_eq!(missing(names(&["s"]), names(&["s.t", "t*"])), None);
        assert_eq!(missing(names(&[]), names(&["t", "s.T"])).unwrap(), "table s.T");
        assert_eq!(missing(names(&["s?"]), names(&["u"])).unwrap(), "schema s?");
    }

    #[test]
    fn exclusion_beats_inclusion() {
        let table = TableSize { schema: "s".into(), name: "t".into(), bytes: 0, of_extension: false };
        let mut selection = Selection { include_schemas: vec!["s".into()], ..Selection::default() };
        assert!(selection.takes_rows(&table));
        selection.exclude_tables = vec!["s.t".into()];
        assert!(!selection.takes_rows(&table));
    }
}
