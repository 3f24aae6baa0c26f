//! Cuts a script of SQL statements into its statements. Pure.
//!
//! Understands what `pg_dumpall --globals-only` writes: quoted identifiers, string literals (also `E'…'`), dollar
//! quotes, line and block comments. Lines that begin with `\` at the start of a statement are `psql` commands and
//! are left out.

/// The statements of a script, without their final semicolons and surrounding space.
#[must_use]
pub fn split_statements(script: &str) -> Vec<String> {
    let mut splitter = Splitter { rest: script, statement: String::new(), found: Vec::new() };
    while splitter.step() {}
    splitter.end_statement();
    splitter.found
}

struct Splitter<'a> {
    rest: &'a str,
    statement: String,
    found: Vec<String>,
}

impl Splitter<'_> {
    /// Consumes one token; false at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        match first {
            ';' => {
                self.skip(1);
                self.end_statement();
            }
            '\\' if self.statement.trim().is_empty() => self.skip_line(),
            '-' if self.rest.starts_with("--") => self.skip_line(),
            '/' if self.rest.starts_with("/*") => {
                let end = self.rest.find("*/").map_or(self.rest.len(), |at| at + 2);
                self.skip(end);
            }
            '"' => self.take(quoted(self.rest, '"', false)),
            '\'' => self.take(quoted(self.rest, '\'', self.escapes())),
            '$' => self.take(dollar_quoted(self.rest)),
            other => self.take(other.len_utf8()),
        }
        true
    }

    /// Whether the literal that begins here is an `E'…'`.
    fn escapes(&self) -> bool {
        let mut before = self.statement.chars().rev();
        let marker = before.next().is_some_and(|c| c == 'E' || c == 'e');
        marker && !before.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn take(&mut self, len: usize) {
        self.statement.push_str(&self.rest[..len]);
        self.skip(len);
    }

    fn skip(&mut self, len: usize) {
        self.rest = &self.rest[len..];
    }

    fn skip_line(&mut self) {
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        self.skip(end);
        self.statement.push(' ');
    }

    fn end_statement(&mut self) {
        let statement = std::mem::take(&mut self.statement);
        let statement = statement.trim();
        if !statement.is_empty() {
            self.found.push(statement.to_owned());
        }
    }
}

/// Length of the quoted text at the start, up to and with its closing quote, or all when it never closes.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote {
            if chars.peek().is_some_and(|&(_, next)| next == quote) {
                chars.next();
            } else {
                return at + 1;
            }
        }
    }
    text.len()
}

fn dollar_quoted(text: &str) -> usize {
    let tag_end = text[1..].find('$').map(|at| at + 2);
    let is_tag = |tag: &str| tag.chars().all(|c| c.is_alphanumeric() || c == '_');
    match tag_end {
        Some(end) if is_tag(&text[1..end - 1]) && !text[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let tag = &text[..end];
            text[end..].find(tag).map_or(text.len(), |at| end + at + end)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_inside_quotes_do_not_end_a_statement() {
        let script = "-- comment; here\nCREATE ROLE \"a;b\"\"c\";\nALTER ROLE x PASSWORD 'p;''q';\n\\connect x\nCOMMENT ON ROLE x IS E'a\\';b';\nDO $f$ begin; end $f$; /* ; */ SELECT 1";
        assert_eq!(
            split_statements(script),
            [
                "CREATE ROLE \"a;b\"\"c\"",
                "ALTER ROLE x PASSWORD 'p;''q'",
                "COMMENT ON ROLE x IS E'a\\';b'",
                "DO $f$ begin; end $f$",
                "SELECT 1",
            ]
        );
    }

    #[test]
    fn unterminated_texts_end_with_the_script() {
        for script in ["'abc", "\"abc", "$x$ abc", "/* abc", "--", "\\", "$", "$$"] {
            let _ = split_statements(script);
        }
    }
}
