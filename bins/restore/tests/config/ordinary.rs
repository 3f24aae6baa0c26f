//! As an account that is not root: what it may not give to files is told, and the rest is installed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use backstay_testkit::Account;

use crate::support::{Bench, path};
use crate::{COMMON, in_a_folder, prepare};

#[test]
fn an_ordinary_account_installs_what_it_may_and_names_what_it_could_not_give() {
    let mut bench = Bench::new();
    let options = prepare(&bench);
    // Root's, and run as root by whoever runs it.
    bench.write("etc/app/tool", "#!/bin/sh\n");
    fs::set_permissions(bench.path("etc/app/tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    in_a_folder(&bench, &options);
    let Some(account) = Account::for_servers().unwrap() else {
        // This account is an ordinary one already: everything is its own.
        bench.run("restore-config", &[&COMMON[..], &["--staging", "staging", "--apply"]].concat()).expect(0);
        return;
    };
    // The set has files of root; the account may neither enter root's folders nor read root's key.
    fs::copy(path("restore-config"), bench.path("restore-config")).unwrap();
    let mut chown = Command::new("chown");
    assert!(chown.arg("-R").arg(account.name()).arg(bench.path("")).status().unwrap().success());
    bench.write("etc/app/main.conf", "listen = 8080\n");
    fs::remove_file(bench.path("etc/app/tool")).unwrap();
    let ids = [format!("--reuid={}", account.uid()), format!("--regid={}", account.gid())];
    bench.wrap(&[
        "setpriv",
        &ids[0],
        &ids[1],
        "--clear-groups",
        "--",
        "sh",
        "-c",
        "exec ./restore-config \"$@\"",
    ]);
    let args = [&COMMON[..], &["--staging", "staging", "--apply"]].concat();
    let (ended, report) = bench.json("restore-config", &args);
    assert_eq!(ended.code, 6, "{ended:?}");
    assert_eq!(fs::read_to_string(bench.path("etc/app/main.conf")).unwrap(), "listen = 80\n");
    let lacking = report["applied"]["lacking"].to_string();
    assert!(
        lacking.contains("main.conf") && lacking.contains("this account may not set its owner"),
        "{report:#}"
    );
    // A file that is not root's here runs as nobody else.
    let tool = fs::metadata(bench.path("etc/app/tool")).unwrap();
    assert_eq!((tool.uid(), tool.mode() & 0o7777), (account.uid(), 0o755));
    // What root keeps for itself is not replaced, and told.
    assert!(Command::new("chown").arg("root").arg(bench.path("etc/app")).status().unwrap().success());
    fs::write(bench.path("etc/app/main.conf"), "listen = 8080\n").unwrap();
    let refused = bench.run("restore-config", &args).expect(2).stderr;
    assert!(refused.contains("cannot write beside ") && refused.contains("Permission denied"), "{refused}");
    assert_eq!(fs::read_to_string(bench.path("etc/app/main.conf")).unwrap(), "listen = 8080\n");
}
