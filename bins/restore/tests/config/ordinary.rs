//! As an account that is not root: what it may not give to files is told, and the rest is installed.

use std::fs;
use std::process::Command;

use backstay_testkit::Account;

use crate::support::path;
use crate::{COMMON, bench};

#[test]
fn an_ordinary_account_installs_what_it_may_and_names_what_it_could_not_give() {
    let mut bench = bench();
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
    // What root keeps for itself is not replaced, and told.
    assert!(Command::new("chown").arg("root").arg(bench.path("etc/app")).status().unwrap().success());
    fs::write(bench.path("etc/app/main.conf"), "listen = 8080\n").unwrap();
    let refused = bench.run("restore-config", &args).expect(2).stderr;
    assert!(refused.contains("cannot write beside ") && refused.contains("Permission denied"), "{refused}");
    assert_eq!(fs::read_to_string(bench.path("etc/app/main.conf")).unwrap(), "listen = 8080\n");
}
