//! The forms that secrets have.
//!
//! Most rules are the published forms of tokens: a prefix that their issuer chose so that they can be found. Two rules look
//! at assignments to names such as `password`; those also ask whether the value looks like a secret at all.

use regex::bytes::{Captures, Regex};

use super::keywords::{Keywords, Worth};

/// How a match is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// The form is proof enough.
    None,
    /// The last group must not be a placeholder such as `changeme`, nor what the first one is.
    Placeholder,
    /// The last group must look like a password.
    Password,
    /// The last group must look like a random token.
    Token,
}

use Doubt::{None as Sure, Password, Placeholder, Token};

static RULES: [(&str, &str, Doubt); 36] = [
    (
        "private-key",
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s+[A-Za-z0-9+/=:,\-\s]{32}",
        Sure,
    ),
    ("putty-private-key", r"PuTTY-User-Key-File-[0-9]+:", Sure),
    ("age-secret-key", r"AGE-SECRET-KEY-1[0-9A-Z]{58}", Sure),
    ("wireguard-private-key", r"(?im)^[ \t]*(?:PrivateKey|PresharedKey)\s*=\s*[A-Za-z0-9+/]{43}=", Sure),
    ("aws-access-key-id", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b", Placeholder),
    (
        "aws-secret-access-key",
        r#"(?i)aws.{0,20}(?:secret|sk).{0,30}?[=:]\s*["']?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)"#,
        Token,
    ),
    ("github-token", r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b", Sure),
    ("github-token", r"\bgithub_pat_[A-Za-z0-9_]{22,255}\b", Sure),
    ("gitlab-token", r"\bgl(?:pat|dt|rt|ptt|oas|cbt|ft|soat)-[A-Za-z0-9_\-]{20,}", Sure),
    ("slack-token", r"\bxox[abeoprs]-(?:[0-9]+-)+[0-9A-Za-z\-]{10,}", Sure),
    (
        "slack-webhook",
        r"hooks\.slack\.com/(?:services|workflows)/T[A-Z0-9]{6,}/[A-Z0-9]{6,}/[A-Za-z0-9]{16,}",
        Sure,
    ),
    ("stripe-key", r"\b[sr]k_(?:live|test)_[0-9A-Za-z]{16,}", Sure),
    ("google-api-key", r"\bAIza[0-9A-Za-z_\-]{35}", Sure),
    ("google-oauth-secret", r"\bGOCSPX-[0-9A-Za-z_\-]{28}", Sure),
    ("sendgrid-key", r"\bSG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}", Sure),
    ("mailgun-key", r"\bkey-[0-9a-f]{32}\b", Sure),
    ("mailchimp-key", r"\b[0-9a-f]{32}-us[0-9]{1,2}\b", Sure),
    ("twilio-key", r"\bSK[0-9a-f]{32}\b", Sure),
    ("npm-token", r"\bnpm_[A-Za-z0-9]{36}\b", Sure),
    ("npm-token", r"_authToken\s*=\s*([A-Za-z0-9_\-+/=]{16,})", Token),
    ("pypi-token", r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_\-]{50,}", Sure),
    ("digitalocean-token", r"\bdo[opr]_v1_[a-f0-9]{64}\b", Sure),
    ("vault-token", r"\bhv[sbr]\.[A-Za-z0-9_\-]{24,}", Sure),
    ("shopify-token", r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b", Sure),
    ("telegram-bot-token", r"\b[0-9]{8,10}:AA[0-9A-Za-z_\-]{33}\b", Sure),
    ("discord-webhook", r"discord(?:app)?\.com/api/webhooks/[0-9]{16,}/[A-Za-z0-9_\-]{60,}", Sure),
    ("model-api-key", r"\bsk-(?:proj-|ant-[a-z0-9]+-|svcacct-)?[A-Za-z0-9_\-]{32,}", Token),
    ("azure-account-key", r"AccountKey=[A-Za-z0-9+/]{86}==", Sure),
    ("json-web-token", r"\beyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}", Sure),
    ("docker-auth", r#""auth"\s*:\s*"([A-Za-z0-9+/]{20,}={0,2})""#, Token),
    (
        "password-hash",
        r"(?m)^[^#\n]*?\$(?:1|5|6|y|7|gy|2[abxy]|argon2(?:id|i|d))\$[./A-Za-z0-9,=$]{4,}[./A-Za-z0-9]{22,}",
        Sure,
    ),
    (
        "authorization-header",
        r"(?i)\bauthorization\s*[:=]\s*(?:basic|bearer|token)\s+([A-Za-z0-9+/=._\-]{16,})",
        Token,
    ),
    (
        "password-in-address",
        r#"\b[a-z][a-z0-9+.\-]{1,20}://([^\s:/@"'<>{}$%]{1,64}):([^\s@/"'<>{}$%]{3,128})@[A-Za-z0-9\[]"#,
        Placeholder,
    ),
    (
        "password",
        r#"(?im)^[ \t]*(?:export[ \t]+|set[ \t]+|-[ \t]+)?["']?[\w.\-]*?(?:passw(?:or)?d|passphrase|pwd|psk)["']?[ \t]*(?:=>|:=|=|:)[ \t]*["']?([^\s"'#;,]{6,256})"#,
        Password,
    ),
    (
        "secret",
        r#"(?im)["']?\b[\w.\-]*?(?:secret|secret_?-?key(?:_base)?|token|api_?-?key|access_?-?key|auth_?-?key|encryption_?-?key|signing_?-?key|credentials?)["']?[ \t]*(?:=>|:=|=|:)[ \t]*["']?([A-Za-z0-9+/_=.~\-]{16,256})"#,
        Token,
    ),
    ("client-secret", r#"(?i)client[_\-]?secret["']?\s*[:=]\s*["']?([A-Za-z0-9_\-.~]{12,})"#, Token),
];

/// Rules that only mean something in text.
const TEXT_ONLY: [&str; 3] = ["password", "secret", "mailchimp-key"];

/// What stands in examples.
const PLACEHOLDERS: [&str; 24] = [
    "example",
    "changeme",
    "change_me",
    "change-me",
    "password",
    "passwd",
    "secret",
    "s3cret",
    "passw0rd",
    "placeholder",
    "your",
    "xxxx",
    "****",
    "dummy",
    "sample",
    "insert",
    "replace",
    "redacted",
    "todo",
    "user",
    "pass",
    "pwd",
    "foobar",
    "letmein",
];

#[derive(Debug)]
pub(super) struct Rules {
    keywords: Keywords,
    each: Vec<Regex>,
}

impl Rules {
    pub(super) fn new() -> Self {
        let regex =
            |pattern: &str| Regex::new(&format!("(?-u){pattern}")).expect("our own patterns are right");
        Self { keywords: Keywords::new(), each: RULES.iter().map(|(_, pattern, _)| regex(pattern)).collect() }
    }

    /// Where secrets begin, and the rules that found them.
    pub(super) fn find(&self, bytes: &[u8], is_text: bool) -> Vec<(usize, &'static str)> {
        let mut found = Vec::new();
        for (rule, worth) in self.keywords.find(bytes) {
            if !is_text && TEXT_ONLY.contains(&rule) {
                continue;
            }
            for number in (0..RULES.len()).filter(|number| RULES[*number].0 == rule) {
                match &worth {
                    Worth::Everywhere => self.try_rule(number, bytes, 0, &mut found),
                    Worth::Lines(lines) => lines
                        .iter()
                        .for_each(|line| self.try_rule(number, &bytes[line.clone()], line.start, &mut found)),
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// Tries one rule on bytes that begin at `offset`.
    fn try_rule(&self, number: usize, bytes: &[u8], offset: usize, found: &mut Vec<(usize, &'static str)>) {
        let (rule, _, doubt) = RULES[number];
        let sure = self.each[number].captures_iter(bytes).filter(|captures| {
            let begin = captures.get(0).map_or(0, |whole| whole.start());
            is_secret(captures, doubt) && !(doubt == Token && is_in_a_remark(bytes, begin))
        });
        found.extend(sure.filter_map(|captures| Some((offset + captures.get(0)?.start(), rule))));
    }

    /// What [`Rules::find`] finds, by trying every rule everywhere.
    #[cfg(test)]
    pub(super) fn find_slowly(&self, bytes: &[u8], is_text: bool) -> Vec<(usize, &'static str)> {
        let mut found = Vec::new();
        let tried = (0..RULES.len()).filter(|number| is_text || !TEXT_ONLY.contains(&RULES[*number].0));
        tried.for_each(|number| self.try_rule(number, bytes, 0, &mut found));
        found.sort_unstable();
        found
    }

    /// The rows of the table that find something.
    #[cfg(test)]
    pub(super) fn rows(&self, bytes: &[u8]) -> Vec<usize> {
        let finds = |number: &usize| {
            let mut found = Vec::new();
            self.try_rule(*number, bytes, 0, &mut found);
            !found.is_empty()
        };
        (0..RULES.len()).filter(finds).collect()
    }

    #[cfg(test)]
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        RULES.iter().map(|(rule, _, _)| *rule)
    }
}

fn is_secret(captures: &Captures<'_>, doubt: Doubt) -> bool {
    // The last group is the value; without one the whole match.
    let value = captures.get(captures.len() - 1).map_or(&[][..], |value| value.as_bytes());
    let is_name = captures.len() > 2 && captures.get(1).is_some_and(|name| name.as_bytes() == value);
    match doubt {
        Sure => true,
        Placeholder => !is_placeholder(value) && !is_name,
        Password => !is_placeholder(value) && looks_like_a_password(value),
        Token => !is_placeholder(value) && looks_random(value),
    }
}

/// Whether it is a parameter of an address that a comment refers to.
fn is_in_a_remark(bytes: &[u8], begin: usize) -> bool {
    let before = &bytes[..begin];
    let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_start();
    before.last().is_some_and(|byte| b"?&".contains(byte)) && line.starts_with(b"#")
}

/// What distributions hand out to everybody although it looks like a secret: the public key of a service for all.
const PUBLISHED: [&[u8]; 1] = [b"icy63itbhhni8bq15ntp5n5symuixf73s1kpjh6skaq4e7nx5fiy"];

fn is_placeholder(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    let text = String::from_utf8_lossy(&lower);
    let is_word = PLACEHOLDERS.iter().any(|word| text.contains(word));
    is_word || PUBLISHED.contains(&value) || distinct(value) <= 3 || has_a_run(value)
}

/// Whether five follow one another as in `abcde` or `12345`.
fn has_a_run(value: &[u8]) -> bool {
    value.windows(5).any(|five| five.windows(2).all(|two| two[0].checked_add(1) == Some(two[1])))
}

fn distinct(value: &[u8]) -> usize {
    value.iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// Letters and digits, neither a path, nor a variable, nor a name in a program.
fn looks_like_a_password(value: &[u8]) -> bool {
    let has = |test: fn(&u8) -> bool| value.iter().any(test);
    let starts = |bytes: &[u8]| value.first().is_some_and(|first| bytes.contains(first));
    let reads_elsewhere =
        starts(b"/$%<{[(*@&|") || has(|byte| b"(){}[]<>$\\".contains(byte)) || value.contains(&b'/');
    !reads_elsewhere && has(u8::is_ascii_alphabetic) && has(u8::is_ascii_digit) && entropy(value) >= 2.2
}

/// Digits and both cases, or long and evenly spread: what a machine made.
fn looks_random(value: &[u8]) -> bool {
    let has = |test: fn(&u8) -> bool| value.iter().any(test);
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_path = value.first() == Some(&b'/') || value.iter().filter(|byte| **byte == b'/').count() > 2;
    let is_name = value.split(|byte| b"._-".contains(byte)).all(|word| word.len() < 9);
    let mixed = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    let is_hex = value.iter().all(u8::is_ascii_hexdigit);
    !is_path
        && !is_name
        && has(u8::is_ascii_alphabetic)
        && digits >= 2
        && (mixed || is_hex || digits >= 4)
        && entropy(value) >= 3.0
}

/// Bits in each byte, by how often each byte is there.
fn entropy(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    value.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let length = value.len() as f64;
    let share = |count: u32| f64::from(count) / length;
    counts.iter().filter(|count| **count > 0).map(|count| -share(*count) * share(*count).log2()).sum()
}
