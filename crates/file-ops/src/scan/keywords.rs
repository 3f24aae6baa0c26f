//! Words without which a rule cannot match. One pass over the bytes tells which rules are worth trying, and where: most files
//! have none of them, and a rule costs as much as the pass.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// What has to stand around a word, so that its rule is worth trying. Never stricter than the rule.
#[derive(Clone, Copy, Debug)]
enum Around {
    /// Anything; upper and lower case are the same.
    Anything,
    /// The word is written just so, and so many letters, digits, `_` and `-` follow.
    Token(usize),
    /// A quote, blanks, then `=` or `:`; the rule stays within the line.
    Assigned,
    /// The same with line breaks for blanks.
    AssignedBelow,
    /// One of these within so many bytes of the line.
    Near(&'static [&'static str], usize),
    /// 32 hexadecimal digits before, and a digit after it.
    HexBefore,
    /// A colon, then `@`, before the address has its first slash.
    Login,
}

use Around::{Anything, Assigned, AssignedBelow, HexBefore, Login, Near, Token};

static WORDS: [(&str, &[&str], Around); 37] = [
    ("private-key", &["private key"], Anything),
    ("putty-private-key", &["putty-user-key-file"], Anything),
    ("age-secret-key", &["AGE-SECRET-KEY-1"], Token(58)),
    ("wireguard-private-key", &["privatekey", "presharedkey"], AssignedBelow),
    ("aws-access-key-id", &["AKIA", "ASIA", "ABIA", "ACCA"], Token(16)),
    ("aws-secret-access-key", &["aws"], Near(&["secret", "sk"], 20)),
    ("github-token", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], Token(36)),
    ("github-token", &["github_pat_"], Token(22)),
    (
        "gitlab-token",
        &["glpat-", "gldt-", "glrt-", "glptt-", "gloas-", "glcbt-", "glft-", "glsoat-"],
        Token(20),
    ),
    ("slack-token", &["xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-"], Token(10)),
    ("slack-webhook", &["hooks.slack.com/"], Anything),
    ("stripe-key", &["sk_live_", "sk_test_", "rk_live_", "rk_test_"], Token(16)),
    ("google-api-key", &["AIza"], Token(35)),
    ("google-oauth-secret", &["GOCSPX-"], Token(28)),
    ("sendgrid-key", &["SG."], Token(22)),
    ("mailgun-key", &["key-"], Token(32)),
    ("mailchimp-key", &["-us"], HexBefore),
    ("twilio-key", &["SK"], Token(32)),
    ("npm-token", &["npm_"], Token(36)),
    ("npm-token", &["_authtoken"], Anything),
    ("pypi-token", &["pypi-AgEIcHlwaS5vcmc"], Token(50)),
    ("digitalocean-token", &["doo_v1_", "dop_v1_", "dor_v1_"], Token(64)),
    ("vault-token", &["hvs.", "hvb.", "hvr."], Token(24)),
    ("shopify-token", &["shpat_", "shpca_", "shppa_", "shpss_"], Token(32)),
    ("telegram-bot-token", &[":AA"], Token(33)),
    ("discord-webhook", &["/api/webhooks/"], Anything),
    ("model-api-key", &["sk-"], Token(32)),
    ("azure-account-key", &["accountkey="], Anything),
    ("json-web-token", &["eyJ"], Token(10)),
    ("docker-auth", &["\"auth\""], Anything),
    (
        "password-hash",
        &[
            "$1$",
            "$5$",
            "$6$",
            "$y$",
            "$7$",
            "$gy$",
            "$2a$",
            "$2b$",
            "$2x$",
            "$2y$",
            "$argon2id$",
            "$argon2i$",
            "$argon2d$",
        ],
        Anything,
    ),
    ("authorization-header", &["authorization"], AssignedBelow),
    ("password-in-address", &["://"], Login),
    ("password", &["passwd", "password", "passphrase", "pwd", "psk"], Assigned),
    ("secret", &["secret", "token", "credential", "credentials"], Assigned),
    (
        "secret",
        &[
            "secretkey_base",
            "secret_key_base",
            "secret-key_base",
            "secret_-key_base",
            "secretkey",
            "secret_key",
            "secret-key",
            "secret_-key",
            "apikey",
            "api_key",
            "api-key",
            "api_-key",
            "accesskey",
            "access_key",
            "access-key",
            "access_-key",
            "authkey",
            "auth_key",
            "auth-key",
            "auth_-key",
            "encryptionkey",
            "encryption_key",
            "encryption-key",
            "encryption_-key",
            "signingkey",
            "signing_key",
            "signing-key",
            "signing_-key",
        ],
        Assigned,
    ),
    ("client-secret", &["clientsecret", "client_secret", "client-secret"], AssignedBelow),
];

/// Where a rule is worth trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Everywhere.
    Everywhere,
    /// In these lines.
    Lines(Vec<Range<usize>>),
}

impl Worth {
    /// Whether the last of it has that place too.
    fn has(&self, at: usize) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Lines(lines) => lines.last().is_some_and(|line| line.contains(&at)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Keywords {
    search: AhoCorasick,
    /// Row of [`WORDS`] of each word.
    rows: Vec<usize>,
}

impl Keywords {
    pub(super) fn new() -> Self {
        let words = WORDS
            .iter()
            .enumerate()
            .flat_map(|(row, (_, words, _))| words.iter().map(move |word| (row, *word)));
        let (rows, words): (Vec<_>, Vec<_>) = words.unzip();
        let search = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(words)
            .expect("our own words are few");
        Self { search, rows }
    }

    /// The rules worth trying, by name.
    pub(super) fn find(&self, bytes: &[u8]) -> Vec<(&'static str, Worth)> {
        let mut found: Vec<(&'static str, Worth)> = Vec::new();
        for hit in self.search.find_overlapping_iter(bytes) {
            let (rule, words, around) = WORDS[self.rows[hit.pattern().as_usize()]];
            let known = found.iter().position(|(name, _)| *name == rule);
            if known.is_some_and(|known| found[known].1.has(hit.start()))
                || !around.fits(bytes, &hit.range(), words)
            {
                continue;
            }
            let line = matches!(around, Assigned).then(|| line_at(bytes, hit.start()));
            match (known.map(|known| &mut found[known].1), line) {
                (Some(Worth::Lines(lines)), Some(line)) => lines.push(line),
                (Some(worth), _) => *worth = Worth::Everywhere,
                (None, Some(line)) => found.push((rule, Worth::Lines(vec![line]))),
                (None, None) => found.push((rule, Worth::Everywhere)),
            }
        }
        found
    }

    #[cfg(test)]
    pub(super) fn rules() -> impl Iterator<Item = &'static str> {
        WORDS.iter().map(|(rule, _, _)| *rule)
    }
}

fn line_at(bytes: &[u8], at: usize) -> Range<usize> {
    let begin = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |newline| newline + 1);
    let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |newline| at + newline);
    begin..end
}

impl Around {
    fn fits(self, bytes: &[u8], word: &Range<usize>, words: &[&str]) -> bool {
        let rest = &bytes[word.end..];
        match self {
            Anything => true,
            Token(length) => {
                let is_exact = words.iter().any(|exact| exact.as_bytes() == &bytes[word.clone()]);
                let follows = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
                is_exact && rest.len() >= length && rest[..length].iter().all(follows)
            }
            Assigned => is_assigned(rest, |byte| matches!(byte, b' ' | b'\t')),
            AssignedBelow => is_assigned(rest, |byte| matches!(byte, b'\t'..=b'\r' | b' ')),
            Near(others, within) => others.iter().any(|other| {
                let near = &rest[..rest.len().min(within + other.len())];
                near.windows(other.len()).any(|part| part.eq_ignore_ascii_case(other.as_bytes()))
            }),
            HexBefore => {
                let digit = rest.first().is_some_and(u8::is_ascii_digit);
                digit
                    && word.start >= 32
                    && bytes[word.start - 32..word.start].iter().all(u8::is_ascii_hexdigit)
            }
            Login => {
                let ends = |byte: u8| byte.is_ascii_whitespace() || b"/\"'<>{}$%\x0b".contains(&byte);
                let address = rest.iter().copied().take(200).take_while(|byte| !ends(*byte));
                let mut colon = false;
                address.into_iter().any(|byte| {
                    colon |= byte == b':';
                    colon && byte == b'@'
                })
            }
        }
    }
}

/// Whether a quote, blanks, and a sign of assignment come next.
fn is_assigned(rest: &[u8], is_blank: impl Fn(u8) -> bool) -> bool {
    let rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest);
    let next = rest.iter().copied().find(|byte| !is_blank(*byte));
    matches!(next, Some(b'=' | b':'))
}
