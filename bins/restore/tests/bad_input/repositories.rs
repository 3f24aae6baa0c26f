//! Repositories and sets that cannot be restored from.

use super::support::Bench;
use super::support::table::{Row, Wrong, check};
use super::support::{data, flip_a_bit};
use super::{Restores, into_copy, row};

const WHOLE: &str = "hint: `verify-backups` shows which copies and sets are whole; restore one of those";
const NO_GOOD: &str = "hint: `list-backups` shows the sets there are";
const KEY: &str = "hint: give the private key of one of its recipients with --identity-file";
const VERSION: &str = "hint: use the version of Backstay that wrote it, or a newer one";

fn cut(bench: &mut Bench, _: &Restores) {
    bench.cut_manifest("local");
}

/// The set below a stanza it does not belong to.
fn of_another_stanza(bench: &mut Bench, _: &Restores) {
    std::fs::rename(bench.path("local/main"), bench.path("local/other")).unwrap();
}

pub(super) fn rows() -> Vec<Row<Restores>> {
    [places(), keys(), sets()].into_iter().flatten().collect()
}

fn places() -> Vec<Row<Restores>> {
    let denied = "Permission denied (os error 13)";
    vec![
        row(
            Wrong::NoRepository,
            "a folder with other things",
            "restore-database --repository ./other --target-database copy",
        )
        .given(|bench, _| bench.other_things())
        .ends(
            2,
            "error: HERE/other is not a Backstay repository\n\
             hint: check the place; the first backup makes an empty or missing directory a repository",
        ),
        row(
            Wrong::NoRepository,
            "a missing folder",
            "restore-database --repository ./missing --target-database copy",
        )
        .ends(
            2,
            "error: the store at ./missing does not exist: No such file or directory (os error 2)\n\
             hint: check the place, or create the bucket or directory",
        ),
        row(Wrong::NewerRepository, "a newer repository", into_copy(""))
            .given(|bench, _| bench.make_newer("local"))
            .ends(
                2,
                format!(
                    "error: the description of repository HERE/local cannot be used: \
                     it has format 2, this program reads up to 1\n{VERSION}"
                ),
            ),
        row(Wrong::NewerRepository, "a set of a newer version", into_copy("--set 2"))
            .given(|bench, _| bench.make_set_newer("local"))
            .ends(2, format!("error: set SET cannot be restored: ./local: …it has format 2…\n{VERSION}")),
        row(Wrong::Unwritable, "a repository that cannot be read", into_copy(""))
            .given(|bench, _| bench.make_unreadable("local"))
            .ends(2, format!("error: …not allowed to …: {denied}\nhint: check the credentials and permissions; …")),
        row(Wrong::Unwritable, "a repository that can only be read is enough", into_copy("--dry-run"))
            .given(|bench, _| bench.make_unwritable("local"))
            .ends(0, "would restore set SET …"),
        row(Wrong::FullDisk, "a repository on a full disk is enough", into_copy("--dry-run"))
            .given(|bench, _| bench.fill_disk_of("local"))
            .ends(0, "would restore set SET …"),
        row(
            Wrong::Clock,
            "a store that refuses this machine's clock",
            "restore-database --repository bucket --target-database copy",
        )
        .given(|bench, world| {
            world.bucket.lend(bench);
            world.bucket.refuse_clocks();
        })
        .ends(
            2,
            "error: repository bucket: open failed: cannot read backstay.json, because the store refuses this machine's \
             clock: …the clock of this machine is wrong: it says …, the store says …\n\
             hint: let a time service (chrony, systemd-timesyncd) set this machine's clock…",
        ),
        row(Wrong::Clock, "a set from the future, and nothing else", into_copy("--at 2026-01-01T00:00:00Z"))
            .given(|bench, _| bench.move_into_the_future("local"))
            .ends(1, format!("error: no good postgres-logical set with a recovery point at or before …\n{NO_GOOD}")),
    ]
}

fn keys() -> Vec<Row<Restores>> {
    let sealed = "restore-database --repository ./sealed --target-database copy";
    vec![
        row(Wrong::NoKey, "no key for an encrypted set", sealed)
            .ends(2, format!("error: set SET is encrypted: give the private key of age1…\n{KEY}")),
        row(
            Wrong::OtherKey,
            "the wrong key for an encrypted set",
            format!("{sealed} --identity-file wrong.key"),
        )
        .ends(2, format!("error: set SET is encrypted: none of the keys given belongs to age1…\n{KEY}")),
    ]
}

fn sets() -> Vec<Row<Restores>> {
    let of_other = "restore-database --repository ./local --stanza other --target-database copy";
    vec![
        row(Wrong::CutManifest, "only a manifest that was cut short", into_copy(""))
            .given(cut)
            .ends(1, format!("error: no good postgres-logical set in stanza main\n{NO_GOOD}")),
        row(Wrong::CutManifest, "the manifest that was asked for was cut short", into_copy("--set 2"))
            .given(cut)
            .ends(
                3,
                format!(
                    "error: set SET cannot be restored: ./local: \
                     the manifest of set SET in repository ./local cannot be used: …\n{WHOLE}"
                ),
            ),
        row(Wrong::OtherStanza, "only a manifest of another stanza", of_other)
            .given(of_another_stanza)
            .ends(1, format!("error: no good postgres-logical set in stanza other\n{NO_GOOD}")),
        row(
            Wrong::OtherStanza,
            "the manifest that was asked for is of another stanza",
            format!("{of_other} --set 2"),
        )
        .given(of_another_stanza)
        .ends(
            3,
            format!(
                "error: set SET cannot be restored: ./local: \
                     the manifest at set SET of stanza other belongs to set SET of stanza main\n{WHOLE}"
            ),
        ),
        row(Wrong::Other, "an object is damaged", into_copy(""))
            .given(|bench, _| flip_a_bit(&data(bench)))
            .ends(3, format!("…error: set SET is damaged: main.0001.dump.zst: …\n{WHOLE}")),
        row(Wrong::Other, "a table that is not in the set", into_copy("--table public.itme")).ends(
            2,
            "error: set SET holds no table or schema of that name\n\
             hint: without --table and --schema everything is restored",
        ),
    ]
}

#[test]
fn repositories_and_sets() {
    check(&Restores::new(), &rows());
}
