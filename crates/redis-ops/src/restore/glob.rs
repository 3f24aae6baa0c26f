//! Patterns of key names, as Redis matches them: `*`, `?`, `[a-z]`, `[^x]`, `\` before a character that is meant.

/// Whether a pattern matches a whole text. Takes at most pattern times text steps.
#[must_use]
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last `*` stands, and how much text it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, from));
            at += 1;
            continue;
        }
        if let Some(after) = one(&pattern[at..], text[from]) {
            at += after;
            from += 1;
            continue;
        }
        let Some((star_at, swallowed)) = star else { return false };
        star = Some((star_at, swallowed + 1));
        at = star_at + 1;
        from = swallowed + 1;
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Matches one character; gives the length of the pattern's part that did.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', rest @ ..] => class(rest, byte).map(|length| length + 1),
        [plain, ..] => (*plain == byte).then_some(1),
    }
}

/// A class behind its `[`; one that is never closed ends with the pattern, as in Redis.
fn class(rest: &[u8], byte: u8) -> Option<usize> {
    let negated = rest.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match &rest[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                found |= (*first.min(last)..=*first.max(last)).contains(&byte);
                at += 3;
            }
            [plain, ..] => {
                found |= *plain == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let table = [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("session:*", "session:17", true),
            ("session:*", "sessions", false),
            ("*:17", "session:17", true),
            ("a*b*c", "axxbxxbxc", true),
            ("a*b*c", "axxbxx", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("[\\]]", "]", true),
            ("[abc", "b", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_patterns_take_no_exponential_time() {
        let pattern = "a*".repeat(2000) + "b";
        assert!(!matches(pattern.as_bytes(), &b"a".repeat(2000)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(pattern: Vec<u8>, text: Vec<u8>) {
            let _ = matches(&pattern, &text);
            prop_assert!(matches(b"*", &text));
        }
    }
}
