//! What a restored server must have, compared with what it has.
//!
//! An empty server is the classic end of a Redis restore, and it reports no error. So nothing is called done before the
//! server itself was asked: its append-only files must be those that were written, to the byte, and its keys must be there
//! except those that may have expired meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::live::{KeyCount, LiveFacts};
use super::place::Shape;
use crate::rdb::{Contents, RdbFacts};

/// What a restored server must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Expected {
    /// Its data directory.
    pub directory: PathBuf,
    /// What it loads.
    pub shape: Shape,
    /// Keys by database at the target, those that had expired and were not removed yet included; `None` when nobody
    /// counted them: a stream was put behind the snapshot, and no server has replayed it yet.
    pub databases: Option<BTreeMap<u32, KeyCount>>,
    /// Function libraries; `None` as above.
    pub functions: Option<Vec<String>>,
    /// Bytes of the snapshot.
    pub base_bytes: u64,
    /// Bytes of the stream behind it.
    pub stream_bytes: u64,
}

/// Expected and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct Comparison {
    /// Facts that were compared.
    pub compared: u64,
    /// What differs, in words.
    pub differences: Vec<String>,
    /// Keys that were there at the target and have expired since.
    pub expired: u64,
    /// What could not be compared, in words.
    pub unknown: Vec<String>,
}

/// Keys of a snapshot, unless it holds something that nobody could count.
pub(super) fn counts(facts: &RdbFacts) -> Option<BTreeMap<u32, KeyCount>> {
    let count = |(number, facts): (&u32, &crate::rdb::DatabaseFacts)| {
        (*number, KeyCount { keys: facts.keys, expires: facts.expires })
    };
    let databases = facts.databases.iter().filter(|(_, facts)| facts.keys > 0).map(count);
    (facts.contents == Contents::Counted).then(|| databases.collect())
}

impl Expected {
    /// Compares. `exact` says that nothing can have expired or been written since: a throwaway server that expires nothing.
    #[must_use]
    pub fn compare(&self, live: &LiveFacts, exact: bool) -> Comparison {
        let mut comparison = Comparison::default();
        if !exact {
            self.compare_files(live, &mut comparison);
        }
        match &self.databases {
            Some(databases) => compare_keys(databases, live, exact, &mut comparison),
            None => comparison
                .unknown
                .push("keys by database: the stream was replayed by this server only".to_owned()),
        }
        match (&self.functions, &live.functions) {
            (Some(expected), Some(found)) => {
                comparison.fact(expected == found, || {
                    format!("function libraries: expected {}, found {}", list(expected), list(found))
                });
            }
            (Some(expected), None) if !expected.is_empty() => {
                comparison.unknown.push("function libraries: the server does not tell".to_owned());
            }
            _ => {}
        }
        comparison
    }

    /// Whether it loaded just the files that were restored.
    fn compare_files(&self, live: &LiveFacts, comparison: &mut Comparison) {
        if let Some(directory) = live.settings.get("dir") {
            comparison.fact(is_same(&self.directory, Path::new(directory)), || {
                format!(
                    "data directory: restored {}, the server works in {directory}",
                    self.directory.display()
                )
            });
        } else {
            comparison.unknown.push("data directory: the server does not tell".to_owned());
        }
        let wants_append_only = self.shape != Shape::Snapshot;
        comparison.fact(live.append_only == wants_append_only, || {
            let (is, wanted) = (yes_no(live.append_only), yes_no(wants_append_only));
            format!("appendonly: restored for {wanted}, the server runs with {is}: it loaded something else")
        });
        if !wants_append_only || !live.append_only {
            return;
        }
        if live.append_rewrites > 0 {
            comparison.unknown.push("append-only files: the server has rewritten them already".to_owned());
            return;
        }
        let whole = self.base_bytes + self.stream_bytes;
        let base = if self.shape == Shape::SingleFile { whole } else { self.base_bytes };
        if let Some(found) = live.append_base_bytes {
            comparison.fact(found == base, || {
                format!("base of the append-only files: expected {base} bytes, found {found}")
            });
        }
        if let Some(found) = live.append_bytes {
            // Clients may have written meanwhile.
            comparison.fact(found >= whole, || {
                format!("append-only files: expected {whole} bytes, loaded {found}")
            });
        }
    }
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    fn fact(&mut self, is_right: bool, difference: impl FnOnce() -> String) {
        self.compared += 1;
        if !is_right {
            self.differences.push(difference());
        }
    }
}

fn compare_keys(
    expected: &BTreeMap<u32, KeyCount>,
    live: &LiveFacts,
    exact: bool,
    comparison: &mut Comparison,
) {
    let numbers = expected.keys().chain(live.databases.keys().filter(|it| !expected.contains_key(it)));
    for number in numbers {
        let wanted = expected.get(number).copied().unwrap_or_default();
        let found = live.databases.get(number).copied().unwrap_or_default();
        let least = if exact { wanted.keys } else { wanted.keys.saturating_sub(wanted.expires) };
        // Clients may have added keys to a server that is open to them.
        let is_right = found.keys >= least && (!exact || found.keys == wanted.keys);
        comparison.fact(is_right, || {
            let which = if least == wanted.keys { String::new() } else { format!(" (at least {least})") };
            format!("database {number}: expected {} keys{which}, found {}", wanted.keys, found.keys)
        });
        if exact {
            comparison.fact(found.expires == wanted.expires, || {
                format!(
                    "database {number}: expected {} keys that expire, found {}",
                    wanted.expires, found.expires
                )
            });
        }
        comparison.expired += wanted.keys.saturating_sub(found.keys);
    }
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Whether two paths lead to the same directory.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(keys: u64, expires: u64) -> Expected {
        Expected {
            directory: PathBuf::from("/nowhere"),
            shape: Shape::MultiPart,
            databases: Some(BTreeMap::from([(0, KeyCount { keys, expires })])),
            functions: Some(vec!["lib".to_owned()]),
            base_bytes: 100,
            stream_bytes: 50,
        }
    }

    fn live(keys: u64, expires: u64) -> LiveFacts {
        LiveFacts {
            databases: BTreeMap::from([(0, KeyCount { keys, expires })]),
            functions: Some(vec!["lib".to_owned()]),
            append_only: true,
            append_base_bytes: Some(100),
            append_bytes: Some(150),
            settings: BTreeMap::from([("dir".to_owned(), "/nowhere".to_owned())]),
            ..LiveFacts::default()
        }
    }

    #[test]
    fn what_may_have_expired_is_no_difference() {
        let comparison = expected(10, 4).compare(&live(7, 1), false);
        assert!(comparison.is_equal(), "{comparison:?}");
        assert_eq!((comparison.expired, comparison.compared), (3, 6));
        assert!(!expected(10, 4).compare(&live(5, 0), false).is_equal());
        assert!(
            !expected(10, 4).compare(&live(9, 4), true).is_equal(),
            "nothing expires in a throwaway server"
        );
        assert!(expected(10, 4).compare(&live(10, 4), true).is_equal());
    }

    #[test]
    fn an_empty_server_is_never_taken_for_a_restored_one() {
        let mut empty = live(0, 0);
        empty.databases.clear();
        empty.append_base_bytes = Some(88);
        empty.append_bytes = Some(88);
        let mut unknown = expected(10, 0);
        unknown.databases = None;
        for expected in [expected(10, 0), unknown] {
            assert!(!expected.compare(&empty, false).is_equal());
            let without = LiveFacts { append_only: false, ..live(10, 0) };
            assert!(!expected.compare(&without, false).is_equal());
            let torn = LiveFacts { append_bytes: Some(149), ..live(10, 0) };
            assert!(!expected.compare(&torn, false).is_equal());
            let elsewhere = BTreeMap::from([("dir".to_owned(), "/elsewhere".to_owned())]);
            assert!(!expected.compare(&LiveFacts { settings: elsewhere, ..live(10, 0) }, false).is_equal());
        }
    }

    #[test]
    fn missing_functions_are_a_difference() {
        let without = LiveFacts { functions: Some(Vec::new()), ..live(10, 0) };
        let comparison = expected(10, 0).compare(&without, false);
        assert_eq!(comparison.differences, ["function libraries: expected lib, found none"]);
    }
}
