//! Secrets stop a set without encryption; ordinary configuration does not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backstay_file_ops::config_set::Outcome;
use backstay_file_ops::scan::Scanner;
use backstay_file_ops::{ArchivePath, Error};

use crate::support::{Scene, files_in};

/// Random-looking characters of an alphabet; put together here, so that this file holds no token.
fn random(alphabet: &str, length: usize) -> String {
    let letters: Vec<char> = alphabet.chars().collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        letters[(state >> 33) as usize % letters.len()]
    };
    (0..length).map(|_| next()).collect()
}

fn letters(length: usize) -> String {
    random("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", length)
}

fn hex(length: usize) -> String {
    random("0123456789abcdef", length)
}

fn upper(length: usize) -> String {
    random("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", length)
}

/// A kind of secret, the file it is planted in, and the content.
fn planted() -> Vec<(&'static str, &'static str, String)> {
    let key_block =
        |title: &str| format!("# key\n-----BEGIN {title}-----\n{}\n-----END {title}-----\n", letters(64));
    let jwt = format!("eyJ{}.eyJ{}.{}", letters(20), letters(30), letters(40));
    vec![
        ("dotenv file", ".env", "MODE=production\n".to_owned()),
        ("RSA key", "tls/server.conf", key_block("RSA PRIVATE KEY")),
        ("OpenSSH key under another name", "notes.txt", key_block("OPENSSH PRIVATE KEY")),
        ("PGP key", "export.asc", key_block("PGP PRIVATE KEY BLOCK")),
        ("key file in binary", "server.key", "0\u{1}\u{2}".to_owned()),
        ("SSH key by name", ".ssh/id_ed25519", String::new()),
        ("key store", "keystore.p12", String::new()),
        ("Terraform state", "prod.tfstate", "{}".to_owned()),
        ("netrc", ".netrc", "machine x login y password z\n".to_owned()),
        ("pgpass", ".pgpass", "h:1:d:u:p\n".to_owned()),
        ("AWS credentials file", ".aws/credentials", "[default]\n".to_owned()),
        ("AWS access key", "app.ini", format!("key_id = AKIA{}\n", upper(16))),
        ("AWS secret key", "app.ini", format!("aws_secret_access_key = {}\n", letters(40))),
        ("GitHub token", "ci.yml", format!("run: curl -u x:ghp_{} https://x\n", letters(36))),
        ("GitLab token", "ci.yml", format!("x: glpat-{}\n", letters(20))),
        ("Slack token", "bot.json", format!("{{\"t\": \"xoxb-{}-{}\"}}\n", "1".repeat(11), letters(24))),
        (
            "Slack webhook",
            "alerts.yml",
            format!("url: https://hooks.slack.com/services/T{}/B{}/{}\n", upper(8), upper(8), letters(24)),
        ),
        ("Stripe key", "shop.conf", format!("stripe sk_live_{}\n", letters(24))),
        ("Google API key", "maps.js", format!("load('AIza{}')\n", letters(35))),
        ("SendGrid key", "mail.conf", format!("k SG.{}.{}\n", letters(22), letters(43))),
        ("npm token", ".npmrc", format!("//registry.example/:_authToken={}\n", letters(36))),
        ("PyPI token", "upload.cfg", format!("x pypi-AgEIcHlwaS5vcmc{}\n", letters(60))),
        ("JSON web token", "api.conf", format!("header {jwt}\n")),
        ("password in an address", "app.yml", format!("database: postgres://app:{}@db/app\n", letters(10))),
        ("password of a database", "my.cnf", "[client]\npassword = Tr0ub4dor&3\n".to_owned()),
        ("password in YAML", "values.yaml", "  dbPassword: \"k7!mQx92wp\"\n".to_owned()),
        ("secret of a web framework", "settings.py", format!("SECRET_KEY = '{}'\n", letters(50))),
        ("API key", "weather.toml", format!("api_key = \"{}\"\n", hex(32))),
        ("password hash", "users", format!("admin:$6$abcdefgh${}\n", letters(86))),
        ("WireGuard key", "wg0.conf", format!("[Interface]\nPrivateKey = {}=\n", letters(43))),
        ("Wi-Fi password", "home.nmconnection", "[wifi-security]\npsk=correct7horse\n".to_owned()),
        ("age key", "backup.txt", format!("AGE-SECRET-KEY-1{}\n", upper(58))),
        ("Vault token", "agent.hcl", format!("t = \"hvs.{}\"\n", letters(90))),
        ("Docker login", "pull.json", format!("{{\"auths\":{{\"r\":{{\"auth\": \"{}\"}}}}}}\n", letters(40))),
        ("Azure account key", "blob.conf", format!("X=1;AccountKey={}==;Y=2\n", letters(86))),
        ("Telegram bot", "notify.sh", format!("T={}:AA{}\n", "1".repeat(9), letters(33))),
        ("bearer token", "proxy.conf", format!("Authorization: Bearer {}\n", letters(40))),
    ]
}

#[test]
fn every_kind_of_planted_secret_stops_a_plaintext_set() {
    let planted = planted();
    assert!(planted.len() >= 20);
    for (what, name, content) in &planted {
        let scene = Scene::new();
        let tree = scene.path("srv");
        let file = tree.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(tree.join("ordinary.conf"), "listen = 80\n").unwrap();
        fs::write(&file, content).unwrap();
        let mut options = scene.plain(std::slice::from_ref(&tree));
        let error = scene.try_back_up(&options).expect_err(what);
        let Error::Secrets { findings } = &error else { panic!("{what}: {error}") };
        let path = file.display().to_string();
        assert!(findings.iter().all(|finding| finding.path == path), "{what}: {error}");
        // Named by rule, and not told.
        let secret =
            content.split(|letter: char| " \n='\"".contains(letter)).max_by_key(|word| word.len()).unwrap();
        assert!(secret.len() < 10 || !error.to_string().contains(secret), "{what}");
        assert!(files_in(&scene.path("repository/main/sets")).is_empty(), "{what}");
        // Encrypted, or allowed by its path, it is stored.
        assert!(matches!(scene.try_back_up(&scene.options(&[tree])), Ok(Outcome::Stored(_))), "{what}");
        options.allow = vec![path];
        options.force = true;
        assert!(matches!(scene.try_back_up(&options), Ok(Outcome::Stored(_))), "{what}");
    }
    println!("{} kinds of secrets stopped", planted.len());
}

#[test]
fn without_recipients_nothing_is_stored_unless_that_is_said() {
    let scene = Scene::new();
    fs::write(scene.path("file"), "x").unwrap();
    let mut options = scene.plain(&[scene.path("file")]);
    options.plaintext = false;
    assert!(matches!(scene.try_back_up(&options), Err(Error::Plaintext)));
    options.plaintext = true;
    scene.back_up(&options);
}

#[test]
fn every_file_of_many_is_looked_into() {
    let scene = Scene::new();
    let tree = scene.path("srv");
    fs::create_dir(&tree).unwrap();
    for number in 0..300 {
        fs::write(tree.join(format!("{number:03}.conf")), format!("x ghp_{}\n", letters(36))).unwrap();
    }
    let Err(Error::Secrets { findings }) = scene.try_back_up(&scene.plain(std::slice::from_ref(&tree)))
    else {
        panic!("it was stored");
    };
    let found: Vec<_> = findings.iter().map(|finding| finding.path.clone()).collect();
    let expected: Vec<_> = (0..300).map(|number| format!("{}/{number:03}.conf", tree.display())).collect();
    assert_eq!(found, expected);
}

/// Packages that every machine with `scripts/setup.sh` has.
const PACKAGES: [&str; 20] = [
    "adduser",
    "apt",
    "base-files",
    "bash",
    "ca-certificates",
    "debconf",
    "dpkg",
    "e2fsprogs",
    "git",
    "libpam-modules",
    "libpam-runtime",
    "login",
    "openssl",
    "passwd",
    "perl-base",
    "postgresql-common",
    "redis-server",
    "redis-tools",
    "systemd",
    "util-linux",
];
/// Where configuration lies in them, and what configures by being there.
const CONFIGURES: [&str; 6] = [
    "/etc/",
    "/usr/lib/systemd/",
    "/usr/lib/tmpfiles.d/",
    "/usr/share/git-core/",
    "/usr/share/perl5/",
    "/usr/share/postgresql-common/",
];

/// Files as packages brought them, the same on every machine: those that somebody changed here are left out.
fn corpus() -> BTreeSet<PathBuf> {
    if let Some(folder) = std::env::var_os("BACKSTAY_CORPUS") {
        let is_file = |path: &PathBuf| path.symlink_metadata().is_ok_and(|facts| facts.is_file());
        return files_in(Path::new(&folder)).into_iter().filter(is_file).collect();
    }
    let dpkg = |command: &str| {
        let output = Command::new(command.split(' ').next().unwrap())
            .args(command.split(' ').skip(1))
            .args(PACKAGES)
            .output()
            .expect("the tests need a Debian system");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (listed, missing) = dpkg("dpkg-query --listfiles");
    assert!(missing.is_empty(), "{missing}");
    let (verified, _) = dpkg("dpkg --verify");
    let changed: BTreeSet<_> = verified.lines().filter_map(|line| line.split_whitespace().last()).collect();
    listed
        .lines()
        .filter(|line| CONFIGURES.iter().any(|folder| line.starts_with(folder)) && !changed.contains(line))
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .collect()
}

#[test]
fn ordinary_configuration_of_packages_raises_no_alarm() {
    let scanner = Scanner::new(&[]).unwrap();
    let files = corpus();
    assert!(files.len() > 200, "only {} files", files.len());
    let mut alarms = Vec::new();
    for file in &files {
        let path = ArchivePath::of_absolute(file).unwrap();
        let Ok(content) = fs::File::open(file) else { continue };
        alarms.extend(scanner.scan(&path, content).unwrap().iter().map(ToString::to_string));
    }
    assert!(alarms.is_empty(), "{} alarms in {} files:\n{}", alarms.len(), files.len(), alarms.join("\n"));
    println!("{} files of packages, no alarm", files.len());
}
