//! The end of what a child wrote to stderr, bounded and without secrets.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::secret::Secret;

/// Bytes of stderr that are shown.
const SHOWN_BYTES: usize = 4 << 10;
/// Lines of stderr that are shown.
const SHOWN_LINES: usize = 20;
/// Bytes that are kept: twice as much, so that a secret cut in two at the front is never in the half that is shown.
const KEPT_BYTES: usize = 2 * SHOWN_BYTES;

/// The last bytes of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    /// Reads a stream to its end.
    pub(super) async fn follow(self, mut stream: impl AsyncRead + Unpin) {
        let mut chunk = [0; 4096];
        // An error ends the tail like the end of the stream: there is nobody to tell, and the exit status follows.
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            self.push(&chunk[..length]);
        }
    }

    pub(super) fn push(&self, more: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes.extend_from_slice(more);
        if kept.bytes.len() > KEPT_BYTES {
            let surplus = kept.bytes.len() - KEPT_BYTES;
            kept.bytes.drain(..surplus);
            kept.cut = true;
        }
    }

    /// What may be shown.
    pub(super) fn text(&self, secrets: &[Secret<String>]) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept.bytes);
        let whole = match text.split_once('\n') {
            Some((_, rest)) if kept.cut => rest,
            _ => &text,
        };
        let clean: String = scrub(whole, secrets)
            .chars()
            .map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c })
            .collect();
        last_lines(clean.trim_end()).trim().to_owned()
    }
}

fn last_lines(text: &str) -> &str {
    let by_bytes = text.ceil_char_boundary(text.len().saturating_sub(SHOWN_BYTES));
    let by_lines = text.rmatch_indices('\n').nth(SHOWN_LINES - 1).map_or(0, |(at, _)| at + 1);
    &text[by_bytes.max(by_lines)..]
}

/// Takes secrets out of a text: the ones given, passwords in addresses, and values of `password=`.
#[must_use]
pub fn scrub(text: &str, secrets: &[Secret<String>]) -> String {
    let mut clean = text.to_owned();
    for secret in secrets.iter().map(Secret::expose).filter(|secret| !secret.is_empty()) {
        clean = clean.replace(secret.as_str(), REDACTED);
    }
    without_assigned(&without_userinfo(&clean))
}

const REDACTED: &str = "[redacted]";

/// `scheme://user:password@host` without the password.
fn without_userinfo(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = address
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\''))
            .unwrap_or(address.len());
        let authority = &address[..end];
        match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
            Some((user, host)) => clean.extend([user, ":", REDACTED, "@", host]),
            None => clean.push_str(authority),
        }
        rest = &address[end..];
    }
    clean.push_str(rest);
    clean
}

/// `password=…` without its value, as in connection strings.
fn without_assigned(text: &str) -> String {
    const WORD: &str = "password=";
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.to_ascii_lowercase().find(WORD) {
        let (before, value) = rest.split_at(at + WORD.len());
        clean.push_str(before);
        let end = match value.strip_prefix('\'') {
            Some(quoted) => quoted.find('\'').map_or(value.len(), |at| at + 2),
            None => value.find(|c: char| c.is_whitespace() || matches!(c, '&' | '"')).unwrap_or(value.len()),
        };
        clean.push_str(REDACTED);
        rest = &value[end..];
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_of_every_form_are_taken_out() {
        let text = "failed: postgresql://bob:hunter2@db:5432/x?password=hunter3&a=b host=h password='a b' PASSWORD=x y";
        let expected = "failed: postgresql://bob:[redacted]@db:5432/x?password=[redacted]&a=b host=h \
                        password=[redacted] PASSWORD=[redacted] y";
        assert_eq!(scrub(text, &[]), expected);
        assert_eq!(scrub("key s3cr3t.", &[Secret::new("s3cr3t".to_owned())]), "key [redacted].");
        assert_eq!(scrub("http://host/a:b@c", &[]), "http://host/a:b@c");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let tail = Tail::default();
        for line in 0..5000 {
            tail.push(format!("line {line}\n").as_bytes());
        }
        let text = tail.text(&[]);
        assert_eq!(text.lines().count(), 20);
        assert!(text.starts_with("line 4980\n") && text.ends_with("line 4999"), "{text}");
    }

    #[test]
    fn a_secret_at_the_cut_does_not_leak_its_end() {
        let secret = "abcdefgh".repeat(16);
        for shift in 0..secret.len() {
            let tail = Tail::default();
            tail.push(secret.as_bytes());
            tail.push(&vec![b'.'; KEPT_BYTES - shift]);
            assert!(!tail.text(&[Secret::new(secret.clone())]).contains("efgh"));
        }
    }

    #[test]
    fn terminal_sequences_are_defused() {
        let tail = Tail::default();
        tail.push(b"\x1b[31mred\x07\n");
        assert_eq!(tail.text(&[]), "[31mred");
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_bounded_text(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..8)) {
            let tail = Tail::default();
            chunks.iter().for_each(|chunk| tail.push(chunk));
            prop_assert!(tail.text(&[]).len() <= SHOWN_BYTES);
        }
    }
}
