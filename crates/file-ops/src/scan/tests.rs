use std::collections::BTreeSet;

use proptest::prelude::*;

use super::keywords::Keywords;
use super::*;

fn found(path: &str, content: &str) -> Vec<String> {
    let path = ArchivePath::parse(path.as_bytes()).unwrap();
    let findings = Scanner::new(&[]).unwrap().scan(&path, content.as_bytes()).unwrap();
    findings.iter().map(Finding::to_string).collect()
}

#[test]
fn a_secret_is_told_by_line_and_rule_and_never_itself() {
    let token = format!("ghp_{}", "a1B2c3D4e5F6".repeat(3));
    let content = format!("# settings\n\ntoken_of_ci = {token}\n");
    assert_eq!(found("etc/ci.conf", &content), ["/etc/ci.conf:3 (github-token)"]);
}

#[test]
fn names_alone_say_enough_except_where_the_content_is_public() {
    assert_eq!(found("srv/app/.env", "MODE=production\n"), ["/srv/app/.env (environment-file)"]);
    assert_eq!(found("srv/app/.env.example", "MODE=\n"), [] as [&str; 0]);
    assert_eq!(found("etc/ssl/a.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n"), [] as [&str; 0]);
    assert_eq!(found("etc/ssl/a.pem", "MIIB"), ["/etc/ssl/a.pem (key-file)"]);
    assert_eq!(found("root/.ssh/id_ed25519.pub", "ssh-ed25519 AAAA root"), [] as [&str; 0]);
}

#[test]
fn placeholders_and_settings_about_passwords_are_no_secrets() {
    let ordinary = "password = changeme\nPasswordAuthentication yes\npassword: ${DB_PASSWORD}\npwd=/var/lib/x1\n\
        # password=\nurl = postgres://user:password@localhost/db\npassword-file: /etc/x/pw1\ntoken_expiry: 3600s\n\
        secret_key_base: <%= ENV['SECRET_KEY_BASE'] %>\napi_key = YOUR_API_KEY_GOES_HERE1\npassword sufficient pam_unix.so sha512\n";
    assert_eq!(found("etc/app.conf", ordinary), [] as [&str; 0]);
}

#[test]
fn what_packages_bring_is_no_secret_although_it_looks_like_one() {
    // Kinds of lines that once were false alarms, and each time the same with a secret in it.
    let random = "q8Zr4Tn6Yb2Wx5Vc9Kd3Hf7G";
    for (ordinary, alarm) in [
        ("password=\"s3cret\"", "password=\"k7!mQx92wp\"".to_owned()),
        (
            "# see http://shop.example/gp/r?ie=UTF8&token=3B65d8Fa09cE47b1",
            format!("callback = http://x/r?token={random}"),
        ),
        (
            "encryption_key = \"icy63itbhhni8bq15ntp5n5symuixf73s1kpjh6skaq4e7nx5fiy\";",
            "encryption_key = \"icy63itbhhni8bq15ntp5n5symuixf73s1kpjh6skaq4e7nx5fix\";".to_owned(),
        ),
        ("password_file /etc/app/pw1file", format!("api_token: {random}")),
        ("psk_file=/etc/hostapd/wpa2.psk", "wpa_psk=correct7horse".to_owned()),
        ("PasswordAuthentication yes", format!("# api_key = {random}")),
        ("secret_key_base: <%= ENV['A1B2C3D4E5F6G7H8'] %>", format!("secret_key_base: {random}")),
    ] {
        assert_eq!(found("etc/app.conf", ordinary), [] as [&str; 0], "{ordinary}");
        assert_eq!(found("etc/app.conf", &alarm).len(), 1, "{alarm}");
    }
}

#[test]
fn a_secret_across_two_windows_is_found_once() {
    let token = format!("ghp_{}", "a1B2c3D4e5F6".repeat(3));
    for before in [WINDOW - 10, WINDOW - OVERLAP + 3, WINDOW - OVERLAP / 2, WINDOW - OVERLAP / 2 - 3] {
        let mut content = "x\n".repeat(before / 2);
        content.push_str(&token);
        content.push_str(&"\ny".repeat(WINDOW));
        let expected = format!("/big:{} (github-token)", before / 2 + 1);
        assert_eq!(found("big", &content), [expected], "{before}");
    }
}

#[test]
fn allowed_paths_are_not_looked_at() {
    let scanner = Scanner::new(&["/srv/app/.env".to_owned(), "/etc/tls/".to_owned()]).unwrap();
    for (path, expected) in [("srv/app/.env", 0), ("srv/other/.env", 1), ("etc/tls/deep/x.p12", 0)] {
        let path = ArchivePath::parse(path.as_bytes()).unwrap();
        assert_eq!(scanner.scan(&path, &b""[..]).unwrap().len(), expected, "{path}");
    }
}

#[test]
fn every_rule_has_its_words() {
    let (rules, worded): (BTreeSet<_>, BTreeSet<_>) = (Rules::names().collect(), Keywords::rules().collect());
    assert_eq!(rules, worded);
}

/// Parts that secrets and what is nearly one are made of.
const PARTS: &[&str] = &[
    "password",
    "PassWd",
    "db_pwd",
    "psk",
    "secret",
    "api_-key",
    "SIGNING-KEY",
    "token",
    "credentials",
    "client_secret",
    "aws_",
    "sk",
    "authorization",
    "PrivateKey",
    "\"auth\"",
    "://",
    "user",
    ":",
    "@",
    "/",
    "=",
    " = ",
    "=> ",
    ": ",
    "\"",
    "'",
    " ",
    "\n",
    "\t",
    ";",
    "bearer ",
    "$6$",
    "ghp_",
    "eyJ",
    "SK",
    "sk-",
    "-us1",
    "0123456789abcdef0123456789abcdef",
    "Tr0ub4dor3x9Qw7Lm",
    "q8Zr4Tn6Yb2Wx5Vc9Kd3Hf7Gj1Ls0Mp4Aq8Ze6R",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn words_spare_trying_rules_and_miss_nothing(parts in prop::collection::vec(0..PARTS.len(), 1..14)) {
        let text: String = parts.into_iter().map(|part| PARTS[part]).collect();
        for is_text in [true, false] {
            prop_assert_eq!(RULES.find(text.as_bytes(), is_text), RULES.find_slowly(text.as_bytes(), is_text), "{}", text);
        }
    }
}
