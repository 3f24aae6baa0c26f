//! Staging, plan, installation, undo, and what is refused.

use std::fs;

use crate::support::{Bench, files, flip_a_bit};
use crate::{COMMON, bench, etc};

#[test]
fn a_plan_touches_nothing_and_an_installation_can_be_taken_back() {
    let bench = bench();
    bench.write("etc/app/main.conf", "listen = 8080\n");
    fs::remove_file(bench.path("etc/app/other.conf")).unwrap();
    let staging = [&COMMON[..], &["--staging", "staging"]].concat();
    let planned = bench.run("restore-config", &[&staging[..], &["--diff"]].concat()).expect(0).stdout;
    let at = etc(&bench).display().to_string();
    assert!(
        planned.contains(&format!("\n~ {at}/app/main.conf (content: 14 bytes here, 12 in the set)")),
        "{planned}"
    );
    assert!(planned.contains(&format!("\n+ {at}/app/other.conf")), "{planned}");
    assert!(planned.contains("\n-listen = 8080\n+listen = 80\n"), "{planned}");
    assert!(planned.ends_with("\nnothing was installed; --apply does it\n"), "{planned}");
    assert_eq!(fs::read_to_string(bench.path("etc/app/main.conf")).unwrap(), "listen = 8080\n");

    let (_, installed) = bench.json("restore-config", &[&staging[..], &["--apply"]].concat());
    assert_eq!(installed["applied"]["done"], 2, "{installed}");
    assert_eq!(fs::read_to_string(bench.path("etc/app/main.conf")).unwrap(), "listen = 80\n");
    assert!(bench.path("etc/app/other.conf").exists());
    let again = bench.run("restore-config", &staging).expect(0).stdout;
    assert!(again.contains("\n0 differ from /, "), "{again}");

    let undo = installed["applied"]["undo"].as_str().unwrap();
    let undone = bench.run("restore-config", &["--undo", undo]).expect(0).stdout;
    assert_eq!(undone, "1 are what they were, 1 removed that had not been there, 0 unchanged\n");
    assert_eq!(fs::read_to_string(bench.path("etc/app/main.conf")).unwrap(), "listen = 8080\n");
    assert!(!bench.path("etc/app/other.conf").exists());
}

#[test]
fn one_file_a_list_and_what_is_not_there() {
    let bench = bench();
    fs::remove_dir_all(bench.path("etc")).unwrap();
    let wanted = etc_file(&bench, "app/main.conf");
    let listed = bench.run("restore-config", &[&COMMON[..], &["--list"]].concat()).expect(0).stdout;
    assert!(listed.contains(&wanted) && listed.contains("other.conf"), "{listed}");
    let one = [&COMMON[..], &["--staging", "staging", "--apply", &wanted]].concat();
    bench.run("restore-config", &one).expect(0);
    assert_eq!(files(&bench.path("etc")), [bench.path("etc/app/main.conf")]);
    let none = [&COMMON[..], &["--staging", "staging", "/not/there"]].concat();
    let absent = bench.run("restore-config", &none).expect(1).stderr;
    assert!(absent.contains(" holds nothing of that\nhint: --list names what it holds\n"), "{absent}");
    let before = [&COMMON[..], &["--staging", "staging", "--at", "2020-01-01T00:00:00Z"]].concat();
    bench.run("restore-config", &before).expect(1);
}

fn etc_file(bench: &Bench, name: &str) -> String {
    bench.path("").canonicalize().unwrap().join("etc").join(name).display().to_string()
}

#[test]
fn damage_a_missing_key_and_a_foreign_folder_change_nothing() {
    let bench = bench();
    let other = bench.run("restore-config", &[&COMMON[..], &["--staging", "etc"]].concat()).expect(4).stderr;
    assert!(other.contains("there are other things in it\nhint: name an empty or a new folder"), "{other}");
    let keyless = ["--repository", "./local", "--staging", "staging"];
    let closed = bench.run("restore-config", &keyless).expect(2).stderr;
    assert!(closed.contains(" is encrypted: "), "{closed}");
    let mut objects = files(&bench.path("local/main/sets"));
    objects.retain(|path| path.to_string_lossy().contains("files.tar"));
    flip_a_bit(&objects[0]);
    let args = [&COMMON[..], &["--staging", "staging", "--apply"]].concat();
    let damaged = bench.run("restore-config", &args).expect(3).stderr;
    assert!(damaged.contains(" is damaged: files.tar.zst.age: "), "{damaged}");
    bench.run("restore-config", &["--repository", "./local"]).expect(2);
}

/// What a program asked of the kernel, one call a line, in order.
fn calls(bench: &Bench, args: &[&str]) -> Vec<String> {
    let program = bench.command("restore-config", args);
    let traced =
        "trace=rename,renameat,renameat2,unlink,unlinkat,open,openat,openat2,syncfs,fsync,truncate,ftruncate";
    let options = ["-f", "-qq", "-y", "-o", "calls", "-e", traced];
    let mut traced = bench.command("strace", &options);
    let output = traced.arg("--").arg(program.get_program()).args(program.get_args()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let calls = fs::read_to_string(bench.path("calls")).unwrap();
    calls.lines().map(|line| line.split_once(' ').unwrap().1.trim_start().to_owned()).collect()
}

/// A reader at any moment finds the old file or the new one, and so does one after a power failure.
#[test]
fn a_live_file_is_replaced_by_a_rename_between_two_syncs_and_by_nothing_else() {
    let bench = bench();
    bench.write("etc/app/main.conf", "listen = 8080\n");
    fs::remove_file(bench.path("etc/app/other.conf")).unwrap();
    let calls = calls(&bench, &[&COMMON[..], &["--staging", "staging", "--apply"]].concat());
    let live = etc(&bench).join("app").display().to_string();
    let touches = |call: &str, name: &str| call.contains(name) && !call.contains("/staging/files");
    let at = |wanted: &dyn Fn(&str) -> bool| {
        let found = calls.iter().enumerate().filter(|(_, call)| wanted(call)).map(|(at, _)| at);
        found.collect::<Vec<_>>()
    };
    let renames = at(&|call| call.starts_with("rename") && call.contains(&live));
    assert_eq!(renames.len(), 2, "{calls:#?}");
    // What was there is on disk, and how to take it back, before anything is put in its place.
    let (first, last) = (renames[0], renames[1]);
    let kept = at(&|call| call.starts_with("fsync") && call.contains("/undo/"));
    assert!(kept.len() >= 3 && kept.iter().filter(|at| **at < first).count() >= 3, "{calls:#?}");
    let synced = at(&|call| call.starts_with("syncfs"));
    assert!(synced.iter().any(|at| *at < first) && synced.iter().any(|at| *at > last), "{calls:#?}");
    let written =
        at(&|call| call.starts_with("openat") && call.contains("O_CREAT") && call.contains(".backstay-"));
    assert!(written.len() == 2 && synced.iter().any(|at| (written[1]..first).contains(at)), "{calls:#?}");
    // No other call that changes something has to do with their names.
    for name in ["\"main.conf\"", "\"other.conf\""] {
        let others = at(&|call| {
            let changes =
                call.starts_with("unlink") || call.contains("truncate") || call.contains("O_WRONLY");
            changes && touches(call, name)
        });
        assert_eq!(others, [] as [usize; 0], "{calls:#?}");
    }
}
