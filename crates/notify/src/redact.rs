//! Takes secrets out of what people are told: those we know, and what looks like one.
//!
//! A notice travels to chat rooms, mailboxes and public pages, and stays there. Its texts often quote errors, and errors
//! quote addresses, headers and arguments. [`Redactor::clean`] is applied when a notice is made, before it is
//! written to disk, and again to what templates made of it.

use std::fmt;
use std::ops::Range;

use backstay_backup_core::process::scrub;
use backstay_backup_core::secret::Secret;

const REDACTED: &str = "[redacted]";
/// Shorter "secrets" would take every second word with them.
const SHORTEST: usize = 6;

/// Beginnings of tokens that services give out, with the smallest number of token characters that follow.
const TOKENS: [(&str, usize); 20] = [
    ("AGE-SECRET-KEY-", 20),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("xoxa-", 10),
    ("xapp-", 10),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("github_pat_", 20),
    ("glpat-", 15),
    ("whsec_", 16),
    ("AKIA", 16),
    ("ASIA", 16),
    ("sk_live_", 10),
    ("rk_live_", 10),
    ("SG.", 40),
    ("eyJ", 40),
    ("hooks.slack.com/services/", 10),
    ("hooks.slack.com/workflows/", 10),
    ("hooks.slack.com/triggers/", 10),
];

/// Words that are followed by a secret.
const ASSIGNED: [&str; 12] = [
    "passwd",
    "password",
    "secret",
    "token",
    "api_key",
    "api-key",
    "apikey",
    "routing_key",
    "routing-key",
    "secret_access_key",
    "sig",
    "private_key",
];

/// Knows the secrets of this process.
#[derive(Clone, Default)]
pub struct Redactor {
    known: Vec<Secret<String>>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.known.len())
    }
}

impl Redactor {
    /// Adds a secret, and the lines and the last path of an address that it may be.
    pub fn add(&mut self, secret: &Secret<String>) {
        let text = secret.expose().trim();
        let path = text.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
        for part in text.lines().chain(path).map(str::trim).filter(|part| part.len() >= SHORTEST) {
            self.known.push(Secret::new(part.to_owned()));
        }
        self.sort();
    }

    /// Adds what another one knows.
    pub(crate) fn learn(&mut self, other: Self) {
        self.known.extend(other.known);
        self.sort();
    }

    /// The longest first: one that begins like another one would leave the rest of that one.
    fn sort(&mut self) {
        self.known.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
    }

    /// The text without secrets.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let text = scrub(text, &self.known);
        let text = without_tokens(&text);
        let text = without_assigned(&text);
        without_keys(&text)
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '=')
}

/// The text with these ranges, which ascend, taken out.
fn without(text: &str, ranges: &[Range<usize>]) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for range in ranges {
        clean.push_str(&text[from..range.start]);
        clean.push_str(REDACTED);
        from = range.end;
    }
    clean.push_str(&text[from..]);
    clean
}

fn without_tokens(text: &str) -> String {
    let mut clean = text.to_owned();
    for (begin, least) in TOKENS {
        let mut ranges = Vec::new();
        let mut from = 0;
        while let Some(at) = clean[from..].find(begin).map(|at| from + at) {
            let after = at + begin.len();
            let end = clean[after..].find(|c| !is_token(c)).map_or(clean.len(), |length| after + length);
            from = after;
            if end - after >= least {
                ranges.push(after..end);
                from = end;
            }
        }
        if !ranges.is_empty() {
            clean = without(&clean, &ranges);
        }
    }
    clean
}

/// `token=…`, `"secret": "…"`, `Authorization: Bearer …` without their values.
fn without_assigned(text: &str) -> String {
    let mut clean = text.to_owned();
    for word in ASSIGNED.iter().copied().chain(["bearer", "basic"]) {
        let is_scheme = matches!(word, "bearer" | "basic");
        let lower = clean.to_ascii_lowercase();
        let mut ranges = Vec::new();
        let mut from = 0;
        while let Some(at) = lower[from..].find(word).map(|at| from + at) {
            let after = at + word.len();
            from = after;
            let rest = &clean[after..];
            let start = if is_scheme { rest.starts_with(' ').then_some(1) } else { assignment(rest) };
            let Some(start) = start.map(|start| after + start) else { continue };
            let stop =
                |c: char| c.is_whitespace() || matches!(c, '&' | '"' | '\'' | ',' | ';' | '}' | '<' | '>');
            let end = clean[start..].find(stop).map_or(clean.len(), |length| start + length);
            let least = if is_scheme { 8 } else { 3 };
            if end - start >= least && !clean[start..end].starts_with(REDACTED) {
                ranges.push(start..end);
                from = end;
            }
        }
        if !ranges.is_empty() {
            clean = without(&clean, &ranges);
        }
    }
    clean
}

/// Length of `=`, `: "`, `" : "` and the like.
fn assignment(rest: &str) -> Option<usize> {
    let mut seen = false;
    for (at, c) in rest.char_indices() {
        match c {
            '=' | ':' if !seen => seen = true,
            '"' | '\'' | ' ' if at < 5 => {}
            _ => return seen.then_some(at),
        }
    }
    None
}

/// Private keys in PEM.
fn without_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let (before, key) = rest.split_at(at);
        clean.push_str(before);
        let head = &key[..key.floor_char_boundary(80)];
        if !head.contains("PRIVATE KEY") {
            clean.push_str(BEGIN);
            rest = &key[BEGIN.len()..];
            continue;
        }
        clean.push_str(REDACTED);
        let end = key.find("-----END").map_or(key.len(), |end| {
            let tail = &key[end + 8..];
            tail.find("-----").map_or(key.len(), |dashes| end + 8 + dashes + 5)
        });
        rest = &key[end..];
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_secrets_and_what_looks_like_one_go() {
        let mut redactor = Redactor::default();
        redactor.add(&Secret::new("https://hooks.example/T1/B2/abcdef".to_owned()));
        redactor.add(&Secret::new("correct horse\n".to_owned()));
        redactor.add(&Secret::new("correct".to_owned()));
        let hidden = [
            "POST https://hooks.example/T1/B2/abcdef failed",
            "path /T1/B2/abcdef here",
            "correct horse battery",
            "token=abc123def",
            "{\"api_key\": \"abc123def\"}",
            "Authorization: Bearer abc123defghi",
            "postgresql://backup:abc123def@db/shop",
            "xoxb-123-456-abc123def4",
            "AKIAABC123DEFABC1234",
            "AGE-SECRET-KEY-1ABC123DEFABC123DEFABC123DEF",
            "-----BEGIN RSA PRIVATE KEY-----\nabc123def\n-----END RSA PRIVATE KEY----- tail",
        ];
        for text in hidden {
            let clean = redactor.clean(text);
            assert!(clean.contains("[redacted]"), "{clean}");
            for secret in ["abcdef", "horse", "abc123def", "ABC123DEF"] {
                assert!(!clean.contains(secret), "{text} → {clean}");
            }
        }
        for plain in ["the secret of a token is to expire", "passwordless login", "no tokens", "sig 11"] {
            assert_eq!(redactor.clean(plain), plain);
        }
        assert_eq!(redactor.clean("disk full on db-1"), "disk full on db-1");
    }
}
