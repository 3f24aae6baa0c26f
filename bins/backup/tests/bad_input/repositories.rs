//! Places that are no repository, not one of this version, closed, or full.

use super::support::Bench;
use super::support::table::{Row, Wrong, check};
use super::{ALL, Backups, LIST, PRUNE, READERS, STORAGE, VERIFY, row};

const LOCAL: &str = "backup-database --repository ./local";
const PLACE: &str = "name an empty or missing directory; the first backup makes it a repository";
const PERMISSIONS: &str =
    "hint: check the credentials and permissions; `check-storage` tries every operation";
const ROOM: &str = "free some space; `prune-backups --dry-run` shows what retention would remove";

/// A run of a program that only looks at what is there.
fn reads(program: &str, repository: &str) -> String {
    let rule = if program == PRUNE { " --keep-last 1" } else { "" };
    format!("{program} --repository ./{repository}{rule}")
}

fn other_things(bench: &mut Bench, _: &Backups) {
    bench.other_things();
}

fn a_file(bench: &mut Bench, _: &Backups) {
    bench.write("taken", "somebody's file");
}

fn newer(bench: &mut Bench, _: &Backups) {
    bench.make_newer("local");
}

fn set_newer(bench: &mut Bench, _: &Backups) {
    bench.make_set_newer("local");
}

fn unwritable(bench: &mut Bench, _: &Backups) {
    bench.make_unwritable("local");
}

fn unreadable(bench: &mut Bench, _: &Backups) {
    bench.make_unreadable("local");
}

fn full(bench: &mut Bench, _: &Backups) {
    bench.fill_disk_of("local");
}

pub(super) fn rows() -> Vec<Row<Backups>> {
    [no_repositories(), newer_ones(), closed_ones(), full_ones()].into_iter().flatten().collect()
}

fn no_repositories() -> Vec<Row<Backups>> {
    let kind = Wrong::NoRepository;
    let mut rows = vec![
        row(kind, "a file is in the place of the repository", "backup-database --repository ./taken")
            .given(a_file)
            .ends(2, format!("error: ./taken is not a directory\nhint: {PLACE}")),
        row(kind, "a file is in the place to be probed", "check-storage --repository ./taken")
            .given(a_file)
            .ends(2, format!("./taken: cannot be probed: ./taken is not a directory\n  → {PLACE}")),
        row(kind, "backing up into a folder with other things", "backup-database --repository ./other")
            .given(other_things)
            .ends(
                2,
                format!("error: directory ./other has other things in it and is no repository\nhint: {PLACE}"),
            ),
        row(kind, "probing a folder with other things", "check-storage --repository ./other")
            .given(other_things)
            .ends(
                2,
                format!(
                    "./other: cannot be probed: directory ./other has other things in it and is no repository\n  \
                     → {PLACE}"
                ),
            ),
    ];
    for program in READERS {
        rows.push(row(kind, "a folder with other things", reads(program, "other")).given(other_things).ends(
            2,
            "error: HERE/other is not a Backstay repository\n\
             hint: check the place; the first backup makes an empty or missing directory a repository",
        ));
        rows.push(row(kind, "a missing folder", reads(program, "missing")).ends(
            2,
            "error: the store at ./missing does not exist: No such file or directory (os error 2)\n\
             hint: check the place, or create the bucket or directory",
        ));
        rows.push(
            row(kind, "a file in place of the repository", reads(program, "taken"))
                .given(a_file)
                .ends(2, format!("error: ./taken is not a directory\nhint: {PLACE}")),
        );
    }
    rows
}

fn newer_ones() -> Vec<Row<Backups>> {
    let kind = Wrong::NewerRepository;
    let version = "use the version of Backstay that wrote it, or a newer one";
    let of_set = "the manifest of set SET in repository ./local cannot be used: it has format 2, this program reads up to 1";
    let mut rows = vec![
        row(kind, "listing a set of a newer version", reads(LIST, "local"))
            .given(set_newer)
            .ends(1, format!("…SET … BAD … ./local (newer format)\n! SET: ./local: {of_set}")),
        row(kind, "verifying a set of a newer version", reads(VERIFY, "local"))
            .given(set_newer)
            .ends(2, format!("SET unchecked quick ./local\n? …: {of_set}\n…")),
        row(kind, "pruning beside a set of a newer version", reads(PRUNE, "local")).given(set_newer).ends(
            2,
            "./local: 0 sets removed, 0 objects, 0 B\n\
             ! nothing was touched: set SET was written by a newer version of this program",
        ),
    ];
    for run in [LOCAL.to_owned()].into_iter().chain(READERS.map(|program| reads(program, "local"))) {
        rows.push(row(kind, "a newer repository", run).given(newer).ends(
            2,
            format!(
                "error: the description of repository HERE/local cannot be used: \
                 it has format 2, this program reads up to 1\nhint: {version}"
            ),
        ));
    }
    rows
}

fn closed_ones() -> Vec<Row<Backups>> {
    let kind = Wrong::Unwritable;
    let denied = "Permission denied (os error 13)";
    let mut rows = vec![
        row(kind, "the folder of a new repository cannot be written", "backup-database --repository ./closed/new")
            .given(|bench, _| bench.make_unwritable("closed"))
            .ends(2, format!("…error: …not allowed to …closed/new…: {denied}\n{PERMISSIONS}")),
        row(kind, "the repository cannot be written", LOCAL)
            .given(unwritable)
            .ends(2, format!("…error: …repository ./local: …not allowed to store …: {denied}\n{PERMISSIONS}")),
        row(kind, "pruning what cannot be written", reads(PRUNE, "local"))
            .given(unwritable)
            .ends(2, format!("…error: …repository ./local: …not allowed to store …: {denied}\n{PERMISSIONS}")),
        row(kind, "holding a set where nothing can be written", "prune-backups --repository ./local --hold 2 --reason audit")
            .given(unwritable)
            .ends(2, format!("…error: …repository ./local: …not allowed to store …: {denied}\n{PERMISSIONS}")),
        row(kind, "listing what can only be read", reads(LIST, "local"))
            .given(unwritable)
            .ends(0, "…SET … good …"),
        row(kind, "the result of a verification cannot be kept", reads(VERIFY, "local")).given(unwritable).ends(
            2,
            format!(
                "SET passed    quick ./local\n! the result for SET could not be kept: …not allowed to store …: {denied}\n  \
                 → give the permission, or verify without keeping the result: --no-proof\n…"
            ),
        ),
        row(kind, "verifying what can only be read", "verify-backups --repository ./local --no-proof")
            .given(unwritable)
            .ends(0, "SET passed    quick ./local\n…"),
        row(kind, "probing what cannot be written", reads(STORAGE, "local")).given(unwritable).ends(
            1,
            format!(
                "./local (HERE/local): unsafe\n  unsafe          round-trip            \
                 a small object could not be written and read: not allowed to store probe/…: {denied}\n…\
                 → make the store reachable and writable for this credential; …"
            ),
        ),
    ];
    for program in READERS {
        rows.push(
            row(kind, "a repository that cannot be read", reads(program, "local"))
                .given(unreadable)
                .ends(2, format!("error: …not allowed to …: {denied}\n{PERMISSIONS}")),
        );
    }
    rows
}

fn full_ones() -> Vec<Row<Backups>> {
    let kind = Wrong::FullDisk;
    let space = "No space left on device (os error 28)";
    vec![
        row(kind, "the disk is too small", "backup-database --repository ./full --no-globals")
            .given(|bench, _| {
                bench.make_full("full");
                std::fs::copy(bench.path("local/backstay.json"), bench.path("full/backstay.json")).unwrap();
                bench.write("full/.lock", "");
            })
            .ends(5, format!("error: repository ./full: …: no space left to store main/sets/…\nhint: {ROOM}")),
        row(kind, "the disk is full", LOCAL)
            .given(full)
            .ends(5, format!("…error: …repository ./local: …no space left to store main/…: {space}\nhint: {ROOM}")),
        row(kind, "listing on a full disk", reads(LIST, "local")).given(full).ends(0, "…SET … good …"),
        row(kind, "the result of a verification does not fit on the disk", reads(VERIFY, "local")).given(full).ends(
            5,
            format!(
                "SET passed    quick ./local\n! the result for SET could not be kept: …no space left to store …: {space}\n  \
                 → {ROOM}\n…"
            ),
        ),
        row(kind, "a restore test in a folder that is full", "verify-backups --repository ./local --restore-test --scratch ./full")
            .given(|bench, _| {
                bench.make_full("full");
                let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
                std::fs::set_permissions(bench.path("full"), open).unwrap();
            })
            .ends(5, "SET not tested (database shop)\n! cannot run the test server: …No space left on device…"),
        row(kind, "making room on a full disk", reads(PRUNE, "local"))
            .given(full)
            .ends(
                0,
                format!(
                    "./local: 0 sets removed, 0 objects, 0 B\n…no space left to store …: {space}…\n\
                     … WARN no room for a lease; going on without one …"
                ),
            ),
        row(kind, "probing a full disk", reads(STORAGE, "local")).given(full).ends(
            5,
            format!(
                "./local (HERE/local): unknown\n  unknown         round-trip            \
                 a small object could not be written and read: no space left to store probe/…: {space}\n…→ {ROOM}\n…"
            ),
        ),
    ]
}

#[test]
fn repositories() {
    assert_eq!(ALL.len(), READERS.len() + 2);
    check(&Backups::new(), &rows());
}
