//! As an account that is not root: it says what it could not capture.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use backstay_testkit::Account;

use crate::support::path;
use crate::{COMMON, bench, object, shell};

#[test]
fn an_ordinary_account_stores_what_it_may_read_and_names_the_rest() {
    let (mut bench, _) = bench();
    bench.set("BACKSTAY_ENCRYPTION_RECIPIENTS", "");
    fs::create_dir(bench.path("etc/closed")).unwrap();
    bench.write("etc/closed/inside", "x\n");
    bench.write("etc/secret", "x\n");
    let account = Account::for_servers().unwrap();
    if let Some(account) = &account {
        // As packages leave them: root's, and readable by all but for two. The account may not enter root's folders, so it
        // gets a copy of the program.
        fs::copy(path("backup-config"), bench.path("backup-config")).unwrap();
        assert!(Command::new("chown").arg(account.name()).arg(bench.path("")).status().unwrap().success());
        let ids = [format!("--reuid={}", account.uid()), format!("--regid={}", account.gid())];
        let words =
            ["setpriv", &ids[0], &ids[1], "--clear-groups", "--", "sh", "-c", "exec ./backup-config \"$@\""];
        bench.wrap(&words);
    }
    for (name, mode) in [("etc/closed", 0o000), ("etc/secret", 0o000), ("etc/app.conf", 0o644)] {
        fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let args = [&COMMON[..], &["etc", "--plaintext"]].concat();
    let said = bench.run("backup-config", &args).expect(3).stdout;
    assert!(said.starts_with("incomplete set "), "{said}");
    for name in ["/etc/closed: Permission denied", "/etc/secret: Permission denied"] {
        assert_eq!(said.matches(name).count(), 1, "{name}: {said}");
    }
    assert!(
        said.contains("\n- not root: attributes of files that only root sees are not in the set"),
        "{said}"
    );
    let archive = object(&bench, "files.tar.zst").display().to_string();
    let names = shell(&format!("zstd -dc '{archive}' | tar -t"), &bench.path(""));
    assert!(
        names.contains("app.conf") && !names.contains("inside") && !names.contains("etc/secret\n"),
        "{names}"
    );
    // Without what it may not read it is a good one.
    let without = [&args[..], &["--exclude", "closed", "--exclude", "secret"]].concat();
    bench.run("backup-config", &without).expect(0);
    fs::set_permissions(bench.path("etc/closed"), fs::Permissions::from_mode(0o755)).unwrap();
}
