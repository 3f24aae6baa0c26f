//! Keys that do not open a set, and sets that are damaged or lie in the wrong place.

use super::support::Bench;
use super::support::table::{Row, Wrong, check};
use super::{Backups, row};

const KEY: &str = "give the private key of one of its recipients with --identity-file";
const WHOLE: &str = "`verify-backups` shows which copies and sets are whole";

fn cut(bench: &mut Bench, _: &Backups) {
    bench.cut_manifest("local");
}

fn of_another_stanza(bench: &mut Bench, _: &Backups) {
    bench.copy_to_another_stanza("local");
}

pub(super) fn rows() -> Vec<Row<Backups>> {
    [keys(), manifests(), stanzas()].into_iter().flatten().collect()
}

fn keys() -> Vec<Row<Backups>> {
    let content = "verify-backups --repository ./sealed --full --content";
    let test = "verify-backups --repository ./sealed --restore-test --scratch .";
    let pair = "hint: `age-keygen` makes a pair: …";
    vec![
        row(Wrong::NoKey, "reading an encrypted set without its key", content).ends(
            2,
            "SET unchecked full ./sealed\n? …: its content was not decrypted: give the private key of age1…",
        ),
        row(Wrong::NoKey, "restoring an encrypted set for a test without its key", test).ends(
            2,
            format!(
                "SET not tested (database shop)\n! set SET is encrypted: give the private key of age1…\n  → {KEY}\n…"
            ),
        ),
        row(Wrong::NoKey, "the file with the key is missing", format!("{content} --identity-file no.key"))
            .ends(2, "error: cannot read secret file no.key: No such file or directory (os error 2)\nhint: check the path, …"),
        row(Wrong::OtherKey, "reading an encrypted set with the wrong key", format!("{content} --identity-file wrong.key"))
            .ends(
                2,
                "SET unchecked full ./sealed\n? …: its content was not decrypted: none of the keys given belongs to age1…",
            ),
        row(Wrong::OtherKey, "restoring it for a test with the wrong key", format!("{test} --identity-file wrong.key"))
            .ends(
                2,
                format!(
                    "SET not tested (database shop)\n\
                     ! set SET is encrypted: none of the keys given belongs to age1…\n  → {KEY}\n…"
                ),
            ),
        row(Wrong::OtherKey, "a file that holds no key", format!("{content} --identity-file no.key"))
            .given(|bench, _| bench.write_secret("no.key", "open sesame\n"))
            .ends(2, format!("error: invalid encryption key: line 1 is no age identity …\n{pair}")),
        row(
            Wrong::OtherKey,
            "a recipient that is none",
            "backup-database --repository ./new --option encryption.recipients=age1me,age1you",
        )
        .ends(2, format!("error: invalid encryption key: \"age1me\" is no age recipient (age1…): …\n{pair}")),
    ]
}

fn manifests() -> Vec<Row<Backups>> {
    let kind = Wrong::CutManifest;
    let problem =
        "the manifest of set SET in repository ./local cannot be used: it is damaged: not valid JSON";
    let mut rows = vec![
        row(kind, "listing a manifest that was cut short", "list-backups --repository ./local")
            .given(cut)
            .ends(1, format!("…SET … BAD …\n! SET: ./local: {problem}…")),
        row(kind, "verifying a manifest that was cut short", "verify-backups --repository ./local")
            .given(cut)
            .ends(3, format!("SET FAILED    quick ./local\n! manifest.json: {problem}…")),
        row(kind, "a restore test with only such a set", "verify-backups --repository ./local --restore-test")
            .given(cut)
            .ends(
                1,
                "error: no good postgres-logical set in stanza main\nhint: `list-backups` shows the sets there are",
            ),
        row(kind, "a restore test of such a set", "verify-backups --repository ./local --restore-test --set 2")
            .given(cut)
            .ends(3, format!("error: set SET cannot be restored: ./local: {problem}…\nhint: {WHOLE}; restore one of those")),
        row(kind, "pruning beside it", "prune-backups --repository ./local --keep-last 1")
            .given(cut)
            .ends(0, format!("./local: 0 sets removed, 0 objects, 0 B\n  SET stays: {problem}…")),
        row(kind, "what pruning would do beside it", "prune-backups --repository ./local --keep-last 1 --dry-run")
            .given(cut)
            .ends(0, "./local: 1 sets stay, 0 would be removed\n  keep    SET  …unreadable\n0 B would be freed"),
        row(kind, "holding a set that is not there", "prune-backups --repository ./local --hold 2020 --reason audit")
            .ends(1, "error: no set 2020… in stanza main\nhint: `list-backups` shows the sets there are"),
    ];
    let programs = ["backup-database", "list-backups", "verify-backups", "prune-backups"];
    rows.extend(programs.map(|program| {
        row(
            kind,
            "a description of a repository that was cut short",
            format!("{program} --repository ./local"),
        )
        .given(|bench, _| {
            std::fs::remove_file(bench.path("local/backstay.json")).unwrap();
            bench.write("local/backstay.json", "{\"format\": 1");
        })
        .ends(
            3,
            "error: the description of repository HERE/local cannot be used: it is damaged: not valid JSON …\n\
                 hint: put back backstay.json from another copy of this repository; its sets are not concerned",
        )
    }));
    rows
}

fn stanzas() -> Vec<Row<Backups>> {
    let kind = Wrong::OtherStanza;
    let problem = "the manifest at set SET of stanza other belongs to set SET of stanza main";
    vec![
        row(kind, "listing the set of another stanza", "list-backups --repository ./local --stanza other")
            .given(of_another_stanza)
            .ends(1, format!("…SET … BAD …\n! SET: ./local: {problem}")),
        row(
            kind,
            "verifying the set of another stanza",
            "verify-backups --repository ./local --stanza other",
        )
        .given(of_another_stanza)
        .ends(3, format!("SET FAILED    quick ./local\n! …: {problem}\n…")),
        row(
            kind,
            "a restore test of the set of another stanza",
            "verify-backups --repository ./local --stanza other --restore-test --set 2",
        )
        .given(of_another_stanza)
        .ends(
            3,
            format!(
                "error: set SET cannot be restored: ./local: {problem}\nhint: {WHOLE}; restore one of those"
            ),
        ),
        row(
            kind,
            "pruning beside the set of another stanza",
            "prune-backups --repository ./local --stanza other --keep-last 1",
        )
        .given(of_another_stanza)
        .ends(0, format!("./local: 0 sets removed, 0 objects, 0 B\n  SET stays: {problem}")),
    ]
}

#[test]
fn keys_and_sets() {
    check(&Backups::new(), &rows());
}
