//! Names that mean secrets.

use std::collections::HashMap;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::path::ArchivePath;

/// Rule, and the names it stands for as in `.gitignore`.
const DENIED: [(&str, &[&str]); 12] = [
    (
        "environment-file",
        &[
            ".env",
            ".env.*",
            "*.env",
            ".envrc",
            "!.env.example",
            "!.env.sample",
            "!.env.template",
            "!.env.dist",
        ],
    ),
    ("key-file", &["*.pem", "*.key", "*.ppk", "*.agekey", "*.pkcs8", "*.pk8"]),
    (
        "ssh-private-key",
        &["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk", "ssh_host_*_key"],
    ),
    (
        "key-store",
        &["*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.keytab", "wallet.dat", "secring.gpg"],
    ),
    ("gnupg-private-keys", &["**/private-keys-v1.d/*", "**/.gnupg/secring*"]),
    (
        "cloud-credentials",
        &[
            "**/.aws/credentials",
            "**/.aws/sso/cache/*",
            "**/.azure/accessTokens.json",
            "**/.azure/msal_token_cache*",
            "**/gcloud/credentials.db",
            "**/gcloud/application_default_credentials.json",
            "credentials.tfrc.json",
            ".boto",
            ".s3cfg",
        ],
    ),
    ("terraform-state", &["*.tfstate", "*.tfstate.*"]),
    (
        "password-file",
        &[
            ".netrc",
            "_netrc",
            ".pgpass",
            ".my.cnf",
            ".mylogin.cnf",
            ".htpasswd",
            "/etc/shadow",
            "/etc/shadow-",
            "/etc/gshadow",
            "/etc/gshadow-",
            "master.passwd",
        ],
    ),
    ("git-credentials", &[".git-credentials", "**/git/credentials"]),
    (
        "tool-credentials",
        &[
            "**/.docker/config.json",
            ".dockercfg",
            ".pypirc",
            "**/.cargo/credentials",
            "**/.cargo/credentials.toml",
            "**/.gem/credentials",
            "**/.kube/config",
            "*.kubeconfig",
            ".vault-token",
            "**/.config/gh/hosts.yml",
            "**/.config/hub",
            "**/rclone/rclone.conf",
        ],
    ),
    ("network-passwords", &["**/NetworkManager/system-connections/*", "**/wpa_supplicant-*.conf"]),
    ("age-identity", &["**/age/keys.txt", "**/sops/age/keys.txt"]),
];

/// Names that may as well be of something public.
const EITHER: [&str; 2] = [".pem", ".key"];

#[derive(Debug)]
pub(super) struct Names {
    denied: Gitignore,
    /// Rule of each pattern.
    rules: HashMap<&'static str, &'static str>,
}

impl Names {
    pub(super) fn new() -> Self {
        let mut builder = GitignoreBuilder::new("/");
        let mut rules = HashMap::new();
        for (rule, pattern) in
            DENIED.iter().flat_map(|(rule, patterns)| patterns.iter().map(move |one| (*rule, *one)))
        {
            builder.add_line(None, pattern).expect("our own patterns are right");
            rules.insert(pattern, rule);
        }
        Self { denied: builder.build().expect("our own patterns are right"), rules }
    }

    /// The rule that a name breaks.
    pub(super) fn find(&self, path: &ArchivePath) -> Option<&'static str> {
        match self.denied.matched(path.as_path(), false) {
            Match::Ignore(pattern) => self.rules.get(pattern.original()).copied(),
            _ => None,
        }
    }
}

/// Whether only the content tells what such a file is: certificates and public keys have the same endings as private ones.
pub(super) fn needs_content(path: &ArchivePath) -> bool {
    EITHER.iter().any(|ending| path.name().ends_with(ending.as_bytes()))
}
