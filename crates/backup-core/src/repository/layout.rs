//! Where everything lies inside a repository; the only place that spells out key names.
//!
//! ```text
//! backstay.json                                description of the repository
//! <stanza>/sets/<set>/manifest.json            commit point of a set
//! <stanza>/sets/<set>/<object>                 data of the set
//! <stanza>/proofs/<set>/<time>-<kind>.json     receipts of checks and restore tests, append-only
//! <stanza>/holds/<set>/<time>.json             holds put on and taken off, append-only
//! <stanza>/leases/<name>.json                  leases, by compare-and-swap only
//! <stanza>/clusters/<number>.json              which cluster the stanza protects, append-only: the last one counts
//! <stanza>/incidents/<incident>/<number>-…    what happened to an incident, append-only
//! <stanza>/wal/<system>/<timeline>/<log>/<file>  WAL segments and what lies beside them, sealed, one object each
//! <stanza>/wal/<system>/history/<timeline>     timeline histories, sealed
//! <stanza>/stream/<stream>/…                   archived replication streams of Redis, sealed; `redis-ops` names what is below
//! ```

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::id::{SetId, Stanza};
use crate::key::{Key, KeyError, Prefix};

/// File name of a manifest below its set.
pub const MANIFEST: &str = "manifest.json";

/// UTC time with microseconds, fixed width, so that names sort by time.
const TIME: &str = "%Y%m%dT%H%M%S.%6fZ";

/// Key of the repository's description.
#[must_use]
pub fn description() -> Key {
    key("backstay.json".to_owned())
}

/// Everything of a stanza.
#[must_use]
pub fn stanza(stanza: &Stanza) -> Prefix {
    folder(stanza.as_str())
}

/// All sets of a stanza.
#[must_use]
pub fn sets(stanza: &Stanza) -> Prefix {
    folder(&format!("{stanza}/sets"))
}

/// Everything of one set.
#[must_use]
pub fn set(stanza: &Stanza, set: &SetId) -> Prefix {
    folder(&format!("{stanza}/sets/{set}"))
}

/// Manifest of a set.
#[must_use]
pub fn manifest(stanza: &Stanza, set: &SetId) -> Key {
    key(format!("{stanza}/sets/{set}/{MANIFEST}"))
}

/// Data object of a set.
///
/// # Errors
/// A name that is no valid key, or the manifest's own.
pub fn object(stanza: &Stanza, set: &SetId, name: &str) -> Result<Key, KeyError> {
    if name == MANIFEST {
        return Err(KeyError { text: name.to_owned(), reason: "it is the name of the manifest" });
    }
    Key::parse(name)?;
    self::set(stanza, set).key(name)
}

/// All proofs of a set.
#[must_use]
pub fn proofs(stanza: &Stanza, set: &SetId) -> Prefix {
    folder(&format!("{stanza}/proofs/{set}"))
}

/// All proofs of a stanza.
#[must_use]
pub fn all_proofs(stanza: &Stanza) -> Prefix {
    folder(&format!("{stanza}/proofs"))
}

/// One proof.
///
/// # Errors
/// A kind that is no valid part of a key.
pub fn proof(stanza: &Stanza, set: &SetId, at: Timestamp, kind: &str) -> Result<Key, KeyError> {
    proofs(stanza, set).key(&format!("{}-{kind}.json", time(at)))
}

/// All hold events of a set.
#[must_use]
pub fn holds(stanza: &Stanza, set: &SetId) -> Prefix {
    folder(&format!("{stanza}/holds/{set}"))
}

/// All hold events of a stanza.
#[must_use]
pub fn all_holds(stanza: &Stanza) -> Prefix {
    folder(&format!("{stanza}/holds"))
}

/// One hold event.
#[must_use]
pub fn hold(stanza: &Stanza, set: &SetId, at: Timestamp) -> Key {
    key(format!("{stanza}/holds/{set}/{}.json", time(at)))
}

/// All leases of a stanza.
#[must_use]
pub fn leases(stanza: &Stanza) -> Prefix {
    folder(&format!("{stanza}/leases"))
}

/// One lease.
///
/// # Errors
/// A name that is no valid part of a key.
pub fn lease(stanza: &Stanza, name: &str) -> Result<Key, KeyError> {
    leases(stanza).key(&format!("{name}.json"))
}

/// All incidents of a stanza.
#[must_use]
pub fn incidents(stanza: &Stanza) -> Prefix {
    folder(&format!("{stanza}/incidents"))
}

/// All WAL of a stanza, by cluster.
#[must_use]
pub fn all_wal(stanza: &Stanza) -> Prefix {
    folder(&format!("{stanza}/wal"))
}

/// All registrations of clusters.
#[must_use]
pub fn clusters(stanza: &Stanza) -> Prefix {
    folder(&format!("{stanza}/clusters"))
}

/// One registration of a cluster, counted from 1.
#[must_use]
pub fn cluster(stanza: &Stanza, number: u32) -> Key {
    key(format!("{stanza}/clusters/{number:05}.json"))
}

/// The number of a registration by its file name.
#[must_use]
pub fn cluster_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".json")?;
    let number = digits.parse().ok()?;
    (digits == format!("{number:05}") && number > 0).then_some(number)
}

/// All WAL of one cluster.
#[must_use]
pub fn wal(stanza: &Stanza, system: u64) -> Prefix {
    folder(&format!("{stanza}/wal/{system}"))
}

/// The log of one timeline.
#[must_use]
pub fn wal_timeline(stanza: &Stanza, system: u64, timeline: u32) -> Prefix {
    folder(&format!("{stanza}/wal/{system}/{timeline:08X}"))
}

/// All timeline histories of one cluster.
#[must_use]
pub fn wal_histories(stanza: &Stanza, system: u64) -> Prefix {
    folder(&format!("{stanza}/wal/{system}/history"))
}

/// The history of a timeline.
#[must_use]
pub fn wal_history(stanza: &Stanza, system: u64, timeline: u32) -> Key {
    key(format!("{stanza}/wal/{system}/history/{timeline:08X}"))
}

/// A file of the log of one timeline, in a folder of those whose positions have the same upper half.
///
/// # Errors
/// A name that is no valid part of a key.
pub fn wal_file(stanza: &Stanza, system: u64, timeline: u32, log: u32, file: &str) -> Result<Key, KeyError> {
    wal(stanza, system).key(&format!("{timeline:08X}/{log:08X}/{file}"))
}

/// All archived replication streams of a stanza, by stream.
#[must_use]
pub fn streams(stanza: &Stanza) -> Prefix {
    folder(&format!("{stanza}/stream"))
}

/// The set that a key below [`sets`], [`all_proofs`] or [`all_holds`] belongs to, and its name below the set.
#[must_use]
pub fn split(below: &Prefix, key: &Key) -> Option<(SetId, String)> {
    let rest = key.as_str().strip_prefix(below.as_str())?;
    let (set, name) = rest.split_once('/')?;
    Some((SetId::parse(set).ok()?, name.to_owned()))
}

/// A time as it stands in key names.
#[must_use]
pub fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime(TIME).to_string()
}

/// The time at the beginning of a file name made with [`time`].
#[must_use]
pub fn parse_time(name: &str) -> Option<Timestamp> {
    let end = name.find('Z')?;
    let time = DateTime::strptime("%Y%m%dT%H%M%S.%6f", &name[..end]).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

fn key(text: String) -> Key {
    Key::parse(text).expect("stanzas, set ids and times are made of key characters")
}

fn folder(text: &str) -> Prefix {
    Prefix::parse(text).expect("stanzas and set ids are made of key characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (Stanza, SetId) {
        (Stanza::parse("main").unwrap(), SetId::parse("20261122T221354Z-3f9a2c01d7").unwrap())
    }

    #[test]
    fn keys_lie_where_the_format_says() {
        let (stanza, set) = ids();
        let at: Timestamp = "2026-11-22T22:13:54.000123Z".parse().unwrap();
        let below = "20261122T221354Z-3f9a2c01d7";
        assert_eq!(manifest(&stanza, &set).as_str(), format!("main/sets/{below}/manifest.json"));
        assert_eq!(
            object(&stanza, &set, "db/a.dump.zst").unwrap().as_str(),
            format!("main/sets/{below}/db/a.dump.zst")
        );
        assert_eq!(
            proof(&stanza, &set, at, "verify").unwrap().as_str(),
            format!("main/proofs/{below}/20261122T221354.000123Z-verify.json")
        );
        assert_eq!(
            hold(&stanza, &set, at).as_str(),
            format!("main/holds/{below}/20261122T221354.000123Z.json")
        );
        assert_eq!(lease(&stanza, "backup").unwrap().as_str(), "main/leases/backup.json");
        assert_eq!(parse_time("20261122T221354.000123Z-verify.json"), Some(at));
    }

    #[test]
    fn wal_lies_by_cluster_timeline_and_log() {
        let (stanza, _) = ids();
        let file = wal_file(&stanza, 73, 2, 10, "000000020000000A000000FE").unwrap();
        assert_eq!(file.as_str(), "main/wal/73/00000002/0000000A/000000020000000A000000FE");
        let history = wal_history(&stanza, 73, 2);
        assert_eq!(history.as_str(), "main/wal/73/history/00000002");
        assert!(wal(&stanza, 73).contains(&file) && wal_histories(&stanza, 73).contains(&history));
        assert!(wal_file(&stanza, 73, 2, 10, "../x").is_err());
        let registered = cluster(&stanza, 12);
        assert_eq!(registered.as_str(), "main/clusters/00012.json");
        assert_eq!(cluster_number(registered.file_name()), Some(12));
        for other in ["12.json", "00000.json", "00012", "+0012.json", "000012.json"] {
            assert_eq!(cluster_number(other), None, "{other}");
        }
    }

    #[test]
    fn objects_cannot_pose_as_the_manifest_or_leave_the_set() {
        let (stanza, set) = ids();
        for name in ["manifest.json", "", "../x", "/x", "a//b", "x y"] {
            assert!(object(&stanza, &set, name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_key_is_split_into_set_and_name() {
        let (stanza, set) = ids();
        let found = split(&sets(&stanza), &manifest(&stanza, &set));
        assert_eq!(found, Some((set, MANIFEST.to_owned())));
        assert_eq!(split(&sets(&stanza), &Key::parse("main/sets/foreign/x").unwrap()), None);
        assert_eq!(split(&sets(&stanza), &Key::parse("other/sets/foreign/x").unwrap()), None);
    }
}
