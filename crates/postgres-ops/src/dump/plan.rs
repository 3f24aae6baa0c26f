//! Decides how many `pg_dump` streams a backup takes and which tables each of them carries. Pure.
//!
//! One stream is always *main*: all definitions, large objects, sequences, and the rows of every table that no other
//! stream carries. Each further stream holds only the rows of some large tables. All of them share one snapshot,
//! every stream is a complete custom-format archive for stock `pg_restore`, and none touches the disk: that is why
//! this is preferred to `pg_dump`'s directory format, which needs room for the whole dump before anything is stored.

use std::cmp::Reverse;

use crate::ident::dump_table_pattern;
use crate::relation::Relation;
use crate::selection::Selection;

/// Tables below this size stay in the main stream: a stream of their own would cost more than it saves.
const WORTH_A_STREAM: u64 = 16 << 20;
/// Most tables that are named on a command line; argument lists have limits.
const MOST_NAMED: usize = 1000;

/// One `pg_dump`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// `main`, `data-1`, `data-2` …
    pub name: String,
    /// Arguments that choose what it dumps.
    pub arguments: Vec<String>,
    /// Estimated bytes of rows.
    pub bytes: u64,
}

/// Plans the streams of a dump; the first is the main one.
#[must_use]
pub fn plan_streams(tables: &[Relation], selection: &Selection, jobs: usize) -> Vec<StreamPlan> {
    let selected: Vec<&Relation> = tables.iter().filter(|table| selection.takes_rows(table)).collect();
    let total: u64 = selected.iter().map(|table| table.bytes).sum();
    let mut movable: Vec<&Relation> = selected
        .iter()
        .copied()
        .filter(|table| !table.of_extension && table.bytes >= WORTH_A_STREAM)
        .collect();
    movable.sort_by_key(|table| Reverse(table.bytes));
    movable.truncate(MOST_NAMED);
    let small = total - movable.iter().map(|table| table.bytes).sum::<u64>();
    let bins = distribute(&movable, small, jobs.max(1));
    streams(&bins, small, tables, selection)
}

/// Largest first, each to the stream that has the least so far; the first starts with what cannot be moved.
fn distribute<'a>(movable: &[&'a Relation], small: u64, jobs: usize) -> Vec<Vec<&'a Relation>> {
    let mut bins = vec![Vec::new(); jobs];
    let mut loads = vec![0_u64; jobs];
    loads[0] = small;
    for table in movable {
        let lightest = (0..jobs).min_by_key(|&bin| loads[bin]).unwrap_or(0);
        bins[lightest].push(*table);
        loads[lightest] += table.bytes;
    }
    bins
}

fn streams(
    bins: &[Vec<&Relation>],
    small: u64,
    tables: &[Relation],
    selection: &Selection,
) -> Vec<StreamPlan> {
    let size = |bin: &[&Relation]| bin.iter().map(|table| table.bytes).sum::<u64>();
    let others: Vec<&Vec<&Relation>> = bins.iter().skip(1).filter(|bin| !bin.is_empty()).collect();
    let mut main = main_arguments(tables, selection);
    main.extend(others.iter().flat_map(|bin| bin.iter()).map(|table| option("--exclude-table-data", table)));
    let first = bins.first().map_or(0, |bin| size(bin));
    let mut plans = vec![StreamPlan { name: "main".to_owned(), arguments: main, bytes: small + first }];
    plans.extend(others.iter().enumerate().map(|(index, bin)| {
        let mut arguments = vec!["--data-only".to_owned(), "--strict-names".to_owned()];
        arguments.extend(bin.iter().map(|table| option("--table", table)));
        StreamPlan { name: format!("data-{}", index + 1), arguments, bytes: size(bin) }
    }));
    plans
}

fn main_arguments(tables: &[Relation], selection: &Selection) -> Vec<String> {
    let schema = |flag: &str, pattern: &String| format!("{flag}={}", schema_pattern(pattern));
    let mut arguments = Vec::new();
    arguments.extend(selection.include_schemas.iter().map(|name| schema("--schema", name)));
    arguments.extend(selection.exclude_schemas.iter().map(|name| schema("--exclude-schema", name)));
    let included: Vec<&Relation> = Selection::named(&selection.include_tables, tables).collect();
    // A partition cannot be attached to nothing, so the tables that it is a part of come along, without their others.
    let needed = |table: &Relation| {
        let id = (&table.schema, &table.name);
        included.iter().any(|part| part.ancestors.iter().any(|(schema, name)| (schema, name) == id))
    };
    let wanted = |table: &&Relation| included.contains(table) || needed(table);
    arguments.extend(tables.iter().filter(wanted).map(|table| option("--table", table)));
    arguments.extend(
        Selection::named(&selection.exclude_tables, tables).map(|table| option("--exclude-table", table)),
    );
    let without_rows = Selection::named(&selection.exclude_data, tables).filter(|table| table.has_rows());
    arguments.extend(without_rows.map(|table| option("--exclude-table-data", table)));
    arguments
}

fn option(flag: &str, table: &Relation) -> String {
    format!("{flag}={}", dump_table_pattern(&table.schema, &table.name))
}

/// Our `*` and `?` in `pg_dump`'s pattern language, everything else literal.
fn schema_pattern(pattern: &str) -> String {
    let literal = |text: &str| {
        if text.is_empty() { String::new() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
    };
    let mut result = String::new();
    let mut pending = String::new();
    for c in pattern.chars() {
        if matches!(c, '*' | '?') {
            result.push_str(&literal(&pending));
            pending.clear();
            result.push(c);
        } else {
            pending.push(c);
        }
    }
    result + &literal(&pending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relation::RelationKind;

    fn table(name: &str, mib: u64) -> Relation {
        Relation::table("public", name, mib << 20)
    }

    #[test]
    fn every_large_table_is_in_exactly_one_stream() {
        let tables = [table("a", 900), table("b", 800), table("c", 100), table("d", 50), table("tiny", 1)];
        let plans = plan_streams(&tables, &Selection::default(), 3);
        assert_eq!(plans.len(), 3);
        let excluded: Vec<_> =
            plans[0].arguments.iter().filter(|a| a.starts_with("--exclude-table-data")).collect();
        let taken: usize = plans[1..].iter().map(|plan| plan.arguments.len() - 2).sum();
        assert_eq!(excluded.len(), taken);
        let total: u64 = plans.iter().map(|plan| plan.bytes).sum();
        assert_eq!(total, tables.iter().map(|table| table.bytes).sum::<u64>());
    }

    #[test]
    fn small_databases_and_single_jobs_need_one_stream() {
        assert_eq!(plan_streams(&[table("a", 3), table("b", 5)], &Selection::default(), 4).len(), 1);
        assert_eq!(plan_streams(&[table("a", 300), table("b", 500)], &Selection::default(), 1).len(), 1);
        assert!(plan_streams(&[], &Selection::default(), 2)[0].arguments.is_empty());
    }

    #[test]
    fn a_partitioned_table_stands_for_its_partitions() {
        let mut root = table("events", 0);
        root.kind = RelationKind::Partitioned;
        let mut leaf = table("events_2026", 300);
        leaf.ancestors = vec![("public".into(), "events".into())];
        let tables = [leaf, table("other", 300), root];
        let named = |selection: &Selection| plan_streams(&tables, selection, 1)[0].arguments.clone();
        let events = vec!["public.events".to_owned()];
        let only = Selection { include_tables: events.clone(), ..Selection::default() };
        let both = ["events_2026", "events"];
        assert_eq!(named(&only), both.map(|name| format!("--table=\"public\".\"{name}\"")));
        let part = Selection { include_tables: vec!["events_2026".into()], ..Selection::default() };
        assert_eq!(named(&part), named(&only), "it needs what it is a part of");
        let without = Selection { exclude_tables: events.clone(), ..Selection::default() };
        assert_eq!(named(&without), both.map(|name| format!("--exclude-table=\"public\".\"{name}\"")));
        let no_rows = Selection { exclude_data: events, ..Selection::default() };
        assert_eq!(named(&no_rows), ["--exclude-table-data=\"public\".\"events_2026\""]);
        assert_eq!(plan_streams(&tables, &no_rows, 1)[0].bytes, 300 << 20);
    }

    #[test]
    fn tables_left_out_are_in_no_stream() {
        let selection = Selection { exclude_tables: vec!["b*".into()], ..Selection::default() };
        let plans = plan_streams(&[table("a", 300), table("big", 500), table("c", 200)], &selection, 2);
        assert!(plans[1..].iter().all(|plan| plan.arguments.iter().all(|a| !a.contains("big"))));
        assert!(plans[0].arguments.iter().any(|a| a == "--exclude-table=\"public\".\"big\""));
    }
}
