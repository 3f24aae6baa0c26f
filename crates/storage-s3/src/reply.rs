//! What a store said when it refused, in one line that is safe to print.
//!
//! The SDK's own errors are not kept: their texts nest, repeat themselves, and can hold signed headers or URLs.

use std::error::Error as StdError;
use std::fmt;

/// Longest text taken over from anybody else.
const MAX_TEXT: usize = 400;

/// A refusal in the store's own words, the last link of an error chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    text: String,
    hint: Option<String>,
}

impl Reply {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: scrub(text.as_ref()), hint: None }
    }

    pub(crate) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl StdError for Reply {}

/// The texts of an error and its sources, each once.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !part.is_empty() && !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = error.source();
    }
    text
}

/// Removes what can sign a request or log in, line breaks, and anything too long.
pub(crate) fn scrub(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(scrub_word).collect();
    let mut out = words.join(" ");
    if let Some((cut, _)) = out.char_indices().nth(MAX_TEXT) {
        out.truncate(cut);
        out.push('…');
    }
    out
}

fn scrub_word(word: &str) -> String {
    const TELLTALES: [&str; 6] = [
        "x-amz-signature",
        "x-amz-credential",
        "x-amz-security-token",
        "signature=",
        "credential=",
        "aws4-hmac",
    ];
    let lower = word.to_ascii_lowercase();
    if TELLTALES.iter().any(|telltale| lower.contains(telltale)) {
        return "[redacted]".to_owned();
    }
    match word.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').map_or((rest, ""), |(a, p)| (a, p));
            match authority.rsplit_once('@') {
                Some((_, host)) if path.is_empty() => format!("{scheme}://[redacted]@{host}"),
                Some((_, host)) => format!("{scheme}://[redacted]@{host}/{path}"),
                None => word.to_owned(),
            }
        }
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_tokens_and_passwords_are_removed() {
        let text = "GET https://b.s3.amazonaws.com/k?X-Amz-Signature=abc failed via http://u:pw@proxy:3128/x\nAuthorization: \
                    AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=abcd";
        let safe = scrub(text);
        for secret in ["abc", "pw", "AKIA"] {
            assert!(!safe.contains(secret), "{safe}");
        }
        assert!(safe.contains("failed via http://[redacted]@proxy:3128/x"), "{safe}");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let safe = scrub(&"ä".repeat(2 * MAX_TEXT));
        assert_eq!(safe.chars().count(), MAX_TEXT + 1);
    }
}
