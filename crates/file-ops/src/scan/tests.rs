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
    let content = format!("[Interface]\n\n\nPrivateKey = {}=\n", "a1B2c3D4e5F6".repeat(4).split_at(43).0);
    assert_eq!(found("etc/wg0.conf", &content), ["/etc/wg0.conf:4 (wireguard-private-key)"]);
}

#[test]
fn names_alone_say_enough_except_where_the_content_is_public() {
    assert_eq!(found("srv/app/.env", "MODE=production\n"), ["/srv/app/.env (environment-file)"]);
    assert_eq!(found("srv/app/.env.example", "MODE=\n"), [] as [&str; 0]);
    assert_eq!(found("etc/ssl/a.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n"), [] as [&str; 0]);
    assert_eq!(found("etc/ssl/a.pem", "MIIB"), ["/etc/ssl/a.pem (key-file)"]);
    let both = "-----BEGIN CERTIFICATE-----\nMIIB\n-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIE\n";
    assert_eq!(found("etc/ssl/a.pem", both), ["/etc/ssl/a.pem (key-file)"]);
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

/// What each row of the table of rules is for. Put together here, so that nobody takes this file for a leak.
fn examples() -> Vec<(&'static str, String)> {
    const MIXED: &str =
        "q8Zr4Tn6Yb2Wx5Vc9Kd3Hf7Gj1Ls0Mp4Aq8Ze6RtUv2Xy5Bw9Nc3Dk7Fh1Gm4Js6Lp8Qa0Sz2Wx4Ed6Cr8Ft0Gy";
    const UPPER: &str = "Q3ZJTOPLWKEY2357HGFDSA4NBVCXZ6LKQJHG2FDSAPOIUYTREW7MNBVCXZ";
    const HEX: &str = "3b65d8fa09ce47b1a2f4086c9d7e5b3120fc84e6d9b7a5031f6e2c8d4b0a9753";
    let mixed = |prefix: &str, length: usize| format!("{prefix}{}", &MIXED[..length]);
    let hex = |prefix: &str, length: usize| format!("{prefix}{}", &HEX[..length]);
    vec![
        ("private-key", mixed("-----BEGIN RSA PRIVATE KEY-----\n", 40)),
        ("putty-private-key", "PuTTY-User-Key-File-2: ssh-rsa".to_owned()),
        ("age-secret-key", format!("AGE-SECRET-KEY-1{UPPER}")),
        ("wireguard-private-key", mixed("PrivateKey = ", 43) + "="),
        ("aws-access-key-id", format!("AKIA{}", &UPPER[..16])),
        ("aws-secret-access-key", mixed("aws_secret_access_key = ", 40)),
        ("github-token", mixed("ghp_", 36)),
        ("github-token", mixed("github_pat_", 22)),
        ("gitlab-token", mixed("glpat-", 20)),
        ("slack-token", mixed("xoxb-1234567-", 12)),
        ("slack-webhook", mixed("hooks.slack.com/services/T12345678/B12345678/", 24)),
        ("stripe-key", mixed("sk_live_", 24)),
        ("google-api-key", mixed("AIza", 35)),
        ("google-oauth-secret", mixed("GOCSPX-", 28)),
        ("sendgrid-key", mixed("SG.", 22) + &mixed(".", 43)),
        ("mailgun-key", hex("key-", 32)),
        ("mailchimp-key", hex("", 32) + "-us1"),
        ("twilio-key", hex("SK", 32)),
        ("npm-token", mixed("npm_", 36)),
        ("npm-token", mixed("//registry.example/:_authToken = ", 20)),
        ("pypi-token", mixed("pypi-AgEIcHlwaS5vcmc", 50)),
        ("digitalocean-token", hex("dop_v1_", 64)),
        ("vault-token", mixed("hvs.", 24)),
        ("shopify-token", hex("shpat_", 32)),
        ("telegram-bot-token", mixed("123456789:AA", 33)),
        ("discord-webhook", mixed("discord.com/api/webhooks/1234567890123456/", 60)),
        ("model-api-key", mixed("sk-proj-", 32)),
        ("azure-account-key", mixed("AccountKey=", 86) + "=="),
        ("json-web-token", mixed("eyJ", 10) + &mixed(".eyJ", 10) + &mixed(".", 10)),
        ("docker-auth", mixed("\"auth\": \"", 20) + "\""),
        ("password-hash", mixed("root:$6$saltsalt$", 40)),
        ("authorization-header", mixed("Authorization: Bearer ", 20)),
        ("password-in-address", "postgres://app:k7!mQx92wp@db/app".to_owned()),
        ("password", "db_password = k7!mQx92wp".to_owned()),
        ("secret", mixed("signing_key: ", 24)),
        ("client-secret", mixed("client_secret: ", 14)),
    ]
}

#[test]
fn every_rule_finds_what_it_is_for() {
    let examples = examples();
    let rules: Vec<_> = examples.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(rules, Rules::names().collect::<Vec<_>>());
    for (row, (rule, example)) in examples.iter().enumerate() {
        assert!(RULES.rows(example.as_bytes()).contains(&row), "{rule}: {example}");
        let found = RULES.find(example.as_bytes(), true);
        assert!(found.iter().any(|(_, name)| name == rule), "{rule}: {found:?}");
    }
}

#[test]
fn every_name_that_means_a_secret_is_known() {
    for (rule, paths) in [
        ("environment-file", &["srv/.env", "srv/.env.production", "srv/shop.env", "home/a/.envrc"][..]),
        ("key-file", &["etc/a.pem", "etc/a.key", "a.ppk", "a.agekey", "a.pkcs8", "a.pk8"]),
        (
            "ssh-private-key",
            &[
                "root/.ssh/id_rsa",
                "id_dsa",
                "id_ecdsa",
                "id_ed25519",
                "id_ecdsa_sk",
                "id_ed25519_sk",
                "etc/ssh/ssh_host_rsa_key",
            ],
        ),
        (
            "key-store",
            &[
                "a.p12",
                "a.pfx",
                "a.jks",
                "a.keystore",
                "a.kdbx",
                "etc/krb5.keytab",
                "wallet.dat",
                "secring.gpg",
            ],
        ),
        ("gnupg-private-keys", &["root/.gnupg/private-keys-v1.d/A.x", "root/.gnupg/secring.old"]),
        (
            "cloud-credentials",
            &[
                "root/.aws/credentials",
                "root/.aws/sso/cache/a.json",
                "root/.azure/accessTokens.json",
                "root/.azure/msal_token_cache.bin",
                "root/.config/gcloud/credentials.db",
                "root/.config/gcloud/application_default_credentials.json",
                "root/.terraform.d/credentials.tfrc.json",
                "root/.boto",
                "root/.s3cfg",
            ],
        ),
        ("terraform-state", &["srv/a.tfstate", "srv/a.tfstate.backup"]),
        (
            "password-file",
            &[
                "root/.netrc",
                "_netrc",
                "root/.pgpass",
                "root/.my.cnf",
                "root/.mylogin.cnf",
                "srv/.htpasswd",
                "etc/shadow",
                "etc/shadow-",
                "etc/gshadow",
                "etc/gshadow-",
                "master.passwd",
            ],
        ),
        ("git-credentials", &["root/.git-credentials", "root/.config/git/credentials"]),
        (
            "tool-credentials",
            &[
                "root/.docker/config.json",
                "root/.dockercfg",
                "root/.pypirc",
                "root/.cargo/credentials",
                "root/.cargo/credentials.toml",
                "root/.gem/credentials",
                "root/.kube/config",
                "srv/a.kubeconfig",
                "root/.vault-token",
                "root/.config/gh/hosts.yml",
                "root/.config/hub",
                "root/.config/rclone/rclone.conf",
            ],
        ),
        (
            "network-passwords",
            &["etc/NetworkManager/system-connections/home", "etc/wpa_supplicant-wlan0.conf"],
        ),
        ("age-identity", &["root/.config/age/keys.txt", "root/.config/sops/age/keys.txt"]),
    ] {
        for path in paths {
            assert_eq!(found(path, ""), [format!("/{path} ({rule})")]);
        }
    }
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
