//! Which schemas and tables a dump takes.
//!
//! Names may hold `*` and `?`. They are matched here against the tables that exist, and `pg_dump` gets the exact
//! names, so that every stream of a parallel dump agrees on what belongs to it.

use serde::{Deserialize, Serialize};

use crate::relation::Relation;

/// What to take and what to leave out. Empty lists take everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct Selection {
    /// Only these schemas.
    pub include_schemas: Vec<String>,
    /// Not these schemas.
    pub exclude_schemas: Vec<String>,
    /// Only these tables: `schema.table`, or `table` in any schema. Views, materialized views, foreign tables and
    /// sequences can be named too; a partitioned table stands for all its partitions, here and below.
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

    /// Whether the rows of that relation are taken.
    #[must_use]
    pub fn takes_rows(&self, table: &Relation) -> bool {
        let schema_in = |names: &[String]| names.iter().any(|name| matches(name, &table.schema));
        let table_in = |names: &[String]| names.iter().any(|name| names_table(name, table));
        table.has_rows()
            && (self.include_schemas.is_empty() || schema_in(&self.include_schemas))
            && !schema_in(&self.exclude_schemas)
            && (self.include_tables.is_empty() || table_in(&self.include_tables))
            && !table_in(&self.exclude_tables)
            && !table_in(&self.exclude_data)
    }

    /// The first schema or table asked for that does not exist: `table`, and its pattern. A dump that quietly left it
    /// out, or took everything instead, would be found out when it is needed.
    pub(crate) fn missing(&self, schemas: &[String], tables: &[Relation]) -> Option<(&'static str, &str)> {
        let schema = self.include_schemas.iter().find(|name| !is_schema(name, schemas));
        let table = || self.include_tables.iter().find(|name| !is_table(name, tables));
        let schema = schema.map(|name| ("schema", name.as_str()));
        schema.or_else(|| table().map(|name| ("table", name.as_str())))
    }

    /// What is to be left out and is not there, as warnings: a misspelt one is backed up all the same.
    pub(crate) fn idle_exclusions(&self, schemas: &[String], tables: &[Relation]) -> Vec<String> {
        let with_rows: Vec<Relation> = tables.iter().filter(|table| table.has_rows()).cloned().collect();
        let no_schema = self.exclude_schemas.iter().filter(|name| !is_schema(name, schemas));
        let no_table = self.exclude_tables.iter().filter(|name| !is_table(name, tables));
        let no_rows = self.exclude_data.iter().filter(|name| !is_table(name, &with_rows));
        let warning = |flag: &str, what: &str, name: &String| {
            format!(
                "{flag} {name}: no {what} fits, so it leaves out nothing; check the name, upper and lower case too"
            )
        };
        let of_schemas = no_schema.map(|name| warning("--exclude-schema", "schema", name));
        let of_tables = no_table.map(|name| warning("--exclude-table", "table", name));
        let of_rows = no_rows.map(|name| warning("--exclude-table-data", "table", name));
        of_schemas.chain(of_tables).chain(of_rows).collect()
    }

    /// Relations among these that one of the names means.
    pub(crate) fn named<'a>(
        names: &'a [String],
        tables: &'a [Relation],
    ) -> impl Iterator<Item = &'a Relation> {
        tables.iter().filter(|table| names.iter().any(|name| names_table(name, table)))
    }
}

fn is_schema(pattern: &str, schemas: &[String]) -> bool {
    schemas.iter().any(|schema| matches(pattern, schema))
}

fn is_table(pattern: &str, tables: &[Relation]) -> bool {
    tables.iter().any(|table| names_table(pattern, table))
}

/// Whether a pattern means a relation, itself or as a part of a partitioned table.
fn names_table(pattern: &str, table: &Relation) -> bool {
    let mut names = table.names();
    names.any(|(schema, name)| matches(pattern, name) || matches(pattern, &format!("{schema}.{name}")))
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
    use crate::relation::RelationKind;

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
        let table = Relation::table("s", "t", 0);
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
    fn exclusions_that_leave_out_nothing_are_told() {
        let table = Relation::table("s", "t", 0);
        let mut root = Relation::table("s", "root", 0);
        root.kind = RelationKind::Partitioned;
        let selection = Selection {
            exclude_schemas: vec!["s".into(), "S".into()],
            exclude_tables: vec!["s.t".into(), "s.root".into(), "u*".into()],
            exclude_data: vec!["t".into(), "root".into()],
            ..Selection::default()
        };
        let told = selection.idle_exclusions(&["s".to_owned()], &[table, root]);
        let flags: Vec<_> = told.iter().map(|text| text.split(':').next().unwrap()).collect();
        assert_eq!(flags, ["--exclude-schema S", "--exclude-table u*", "--exclude-table-data root"]);
    }

    #[test]
    fn exclusion_beats_inclusion() {
        let table = Relation::table("s", "t", 0);
        let mut selection = Selection { include_schemas: vec!["s".into()], ..Selection::default() };
        assert!(selection.takes_rows(&table));
        selection.exclude_tables = vec!["s.t".into()];
        assert!(!selection.takes_rows(&table));
    }
}
