//! What else of the system is stored: units, cron tables, as they really are here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::files;
use crate::{COMMON, bench, object, shell};

#[test]
fn units_are_those_that_systemd_names() {
    let (mut bench, _) = bench();
    bench.set("BACKSTAY_ENCRYPTION_RECIPIENTS", "");
    let args = [&COMMON[..], &["etc", "--plaintext", "--units"]].concat();
    bench.run("backup-config", &args).expect(0);
    let stored = object(&bench, "units.txt").display().to_string();
    let stored = shell(&format!("zstd -dc '{stored}'"), &bench.path(""));
    let listed = Command::new("systemctl")
        .args(["list-unit-files", "--no-legend", "--no-pager", "--plain"])
        .output()
        .expect("the tests need systemctl");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    let counts = ["enabled", "enabled-runtime", "masked", "disabled"];
    let wanted: BTreeSet<_> =
        listed.lines().map(words).filter(|words| counts.contains(&words[1].as_str())).collect();
    assert!(!wanted.is_empty(), "{listed}");
    assert_eq!(stored.lines().map(words).collect::<BTreeSet<_>>(), wanted);
}

/// Where cron looks.
const PLACES: [&str; 7] = [
    "/etc/crontab",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/var/spool/cron",
];

#[test]
fn cron_tables_are_stored_as_they_are() {
    let (mut bench, _) = bench();
    bench.set("BACKSTAY_ENCRYPTION_RECIPIENTS", "");
    let args = [&COMMON[..], &["--plaintext", "--crontabs", "--allow", "*"]].concat();
    bench.run("backup-config", &args).expect(0);
    let archive = object(&bench, "files.tar.zst").display().to_string();
    fs::create_dir(bench.path("out")).unwrap();
    shell(&format!("zstd -dc '{archive}' | tar -xf - -C out"), &bench.path(""));
    let here: Vec<_> = PLACES
        .iter()
        .flat_map(|place| match Path::new(place).is_dir() {
            true => files(Path::new(place)),
            false => vec![Path::new(place).to_owned()],
        })
        .filter(|path| path.is_file())
        .collect();
    assert!(!here.is_empty(), "no cron table on this machine: every Debian has /etc/cron.d/e2scrub_all");
    for path in here {
        let stored = fs::read(bench.path("out").join(path.strip_prefix("/").unwrap())).unwrap();
        assert_eq!(stored, fs::read(&path).unwrap(), "{}", path.display());
    }
}
