//! Cuts and cleans text.

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Characters of Unicode.
    Chars,
    /// Units of UTF-16, as services written in JavaScript count.
    Utf16,
    /// Bytes of UTF-8.
    Bytes,
}

/// What stands where text was cut.
const CUT: &str = " […]";

/// The length of a text.
#[must_use]
pub fn length(text: &str, unit: Unit) -> usize {
    match unit {
        Unit::Chars => text.chars().count(),
        Unit::Utf16 => text.chars().map(char::len_utf16).sum(),
        Unit::Bytes => text.len(),
    }
}

/// Whether a text keeps a limit.
#[must_use]
pub fn fits(text: &str, limit: usize, unit: Unit) -> bool {
    length(text, unit) <= limit
}

/// The text, cut between two characters where it is longer than the limit, with a mark that it was.
#[must_use]
pub fn fit(text: &str, limit: usize, unit: Unit) -> String {
    if fits(text, limit, unit) {
        return text.to_owned();
    }
    let mark = if limit > 4 * CUT.len() { CUT } else { "" };
    let room = limit.saturating_sub(length(mark, unit));
    let size = |c: char| match unit {
        Unit::Chars => 1,
        Unit::Utf16 => c.len_utf16(),
        Unit::Bytes => c.len_utf8(),
    };
    let mut used = 0;
    let kept = text.chars().take_while(|c| {
        used += size(*c);
        used <= room
    });
    let mut cut: String = kept.collect();
    cut.truncate(cut.trim_end().len());
    cut.push_str(mark);
    cut
}

/// Characters that change how others are shown: direction overrides, and invisible ones that hide words.
fn deceives(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

/// A text of several lines without control and deceiving characters.
#[must_use]
pub fn clean_text(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
    let kept = text.chars().filter(|c| !deceives(*c)).map(|c| match c {
        '\n' => '\n',
        '\t' => ' ',
        c if c.is_control() => ' ',
        c => c,
    });
    kept.collect::<String>().trim_end().to_owned()
}

/// A text of one line.
#[must_use]
pub fn clean_line(text: &str) -> String {
    let text = clean_text(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_cut_keeps_its_limit_and_begins_the_same(text in "\\PC{0,80}", limit in 0_usize..60) {
            for unit in [Unit::Chars, Unit::Utf16, Unit::Bytes] {
                let cut = fit(&text, limit, unit);
                prop_assert!(fits(&cut, limit, unit), "{cut:?}");
                let kept = cut.strip_suffix(CUT).unwrap_or(&cut);
                prop_assert!(text.starts_with(kept));
            }
        }

        #[test]
        fn a_line_is_a_line(text in "(?s).{0,60}") {
            let line = clean_line(&text);
            prop_assert!(!line.chars().any(|c| c.is_control() || deceives(c)), "{line:?}");
        }
    }
}
