//! Sets, problems, refusals.

use std::fs;

use crate::support::{files, until};
use crate::{COMMON, bench};

#[test]
fn a_set_is_stored_once_and_then_nothing() {
    let (bench, key) = bench();
    let args = [&COMMON[..], &["etc", "--packages", "--annotation", "who=test"]].concat();
    let (ended, first) = bench.json("backup-config", &args);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(
        (&first["files"], &first["complete"], &first["encrypted"]),
        (&1.into(), &true.into(), &true.into())
    );
    let manifest = fs::read_to_string(bench.manifest("local")).unwrap();
    assert!(manifest.contains(&key) && !manifest.contains("app.conf"), "{manifest}");
    let mut names: Vec<_> = files(&bench.path("local/main/sets"))
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["files.tar.zst.age", "manifest.json", "packages-manual.txt.zst.age", "packages.txt.zst.age"]
    );
    // What was changed a moment ago is stored once more, to be sure.
    let mut said = String::new();
    until(|| {
        said = bench.run("backup-config", &args).expect(0).stdout;
        said.starts_with("unchanged since set ")
    });
    let before = files(&bench.path("local/main/sets")).len();
    bench.run("backup-config", &args).expect(0);
    assert_eq!(files(&bench.path("local/main/sets")).len(), before);
}

#[test]
fn what_could_not_be_read_ends_with_3_and_is_never_called_good() {
    let (bench, _) = bench();
    let args = [&COMMON[..], &["etc", "gone"]].concat();
    let said = bench.run("backup-config", &args).expect(3).stdout;
    assert!(said.starts_with("incomplete set "), "{said}");
    assert!(said.contains("/gone: No such file or directory"), "{said}");
    bench.run("list-backups", &COMMON).expect(1);
    bench.run("backup-config", &[&COMMON[..], &["gone"]].concat()).expect(2);
}

#[test]
fn without_a_key_it_refuses_and_secrets_stop_a_plaintext_set() {
    let (mut bench, _) = bench();
    bench.set("BACKSTAY_ENCRYPTION_RECIPIENTS", "");
    let refused = bench.run("backup-config", &[&COMMON[..], &["etc"]].concat()).expect(2).stderr;
    assert!(
        refused
            .contains("everybody who reads the repository reads this set\nhint: set encryption.recipients"),
        "{refused}"
    );
    let plain = [&COMMON[..], &["etc", "--plaintext"]].concat();
    bench.write("etc/.env", "A=1\n");
    let stopped = bench.run("backup-config", &plain).expect(2).stderr;
    assert!(stopped.contains("/etc/.env (environment-file)"), "{stopped}");
    let planned = bench.run("backup-config", &[&plain[..], &["--dry-run"]].concat()).expect(2).stdout;
    assert!(planned.contains("! a secret: "), "{planned}");
    assert!(files(&bench.path("local/main/sets")).is_empty());
    let allowed = bench.path("etc/.env").canonicalize().unwrap().display().to_string();
    bench.run("backup-config", &[&plain[..], &["--allow", &allowed]].concat()).expect(0);
    assert!(files(&bench.path("local/main/sets")).iter().any(|path| path.ends_with("files.tar.zst")));
}

#[test]
fn a_restore_test_unpacks_and_compares() {
    let (mut bench, _) = bench();
    let key = age::x25519::Identity::generate();
    bench.set("BACKSTAY_ENCRYPTION_RECIPIENTS", key.to_public().to_string());
    bench.write_secret("key.txt", age::secrecy::ExposeSecret::expose_secret(&key.to_string()));
    bench.run("backup-config", &[&COMMON[..], &["etc"]].concat()).expect(0);
    let test = [&COMMON[..], &["--restore-test", "--identity-file", "key.txt"]].concat();
    let (ended, report) = bench.json("verify-backups", &test);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(report["restore-tests"][0]["passed"], true, "{report}");
    let listed = bench.run("list-backups", &COMMON).expect(0).stdout;
    assert!(listed.contains("config"), "{listed}");
}

#[test]
fn another_file_system_below_is_an_empty_folder_unless_that_is_asked_for() {
    let (mut bench, _) = bench();
    bench.set("BACKSTAY_ENCRYPTION_RECIPIENTS", "");
    if !bench.make_disk("etc/mounted", "1m") {
        assert!(backstay_testkit::Account::for_servers().unwrap().is_none(), "root can mount");
        return;
    }
    bench.write("etc/mounted/file", "x\n");
    let plain = [&COMMON[..], &["etc", "--plaintext", "--force"]].concat();
    for (more, files) in [(&[][..], 1), (&["--cross-file-systems"], 2)] {
        let (ended, report) = bench.json("backup-config", &[&plain[..], more].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!((&report["files"], &report["folders"]), (&files.into(), &2.into()), "{report}");
    }
}
