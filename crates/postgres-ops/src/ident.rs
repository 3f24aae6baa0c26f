//! Names and texts in SQL, and in the patterns of `pg_dump`.
//!
//! `pg_dump -t`, `-T`, `-n` and `-N` take patterns, in which `*`, `?`, `.` and more have a meaning and capitals are
//! folded unless quoted; the functions here make patterns that match one name exactly. `pg_restore -t`, `-n` and `-T`
//! compare the bare name instead: give it as it is, without quotes. Pass either as `--table=…`, never as two
//! arguments, so that a name with a leading dash is no option.

use crate::error::Error;

/// Longest name in bytes; PostgreSQL cuts what is longer without a word.
pub(crate) const MAX_NAME: usize = 63;

/// Refuses a name that PostgreSQL would cut, and so take for another one.
///
/// # Errors
/// [`Error::NameTooLong`].
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    if name.len() <= MAX_NAME { Ok(()) } else { Err(Error::NameTooLong { what, name: name.to_owned() }) }
}

/// Quotes an identifier, always: `a"b` becomes `"a""b"`.
pub fn quote_ident(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    push_quoted(&mut quoted, name);
    quoted
}

/// Quotes a name in a schema: `"schema"."name"`.
pub fn quote_qualified(schema: &str, name: &str) -> String {
    let mut quoted = String::with_capacity(schema.len() + name.len() + 5);
    push_quoted(&mut quoted, schema);
    quoted.push('.');
    push_quoted(&mut quoted, name);
    quoted
}

/// Quotes a text as a string literal that means the same whatever `standard_conforming_strings` is.
pub fn quote_literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 4);
    if text.contains('\\') {
        quoted.push_str(" E");
    }
    quoted.push('\'');
    for letter in text.chars() {
        if matches!(letter, '\'' | '\\') {
            quoted.push(letter);
        }
        quoted.push(letter);
    }
    quoted.push('\'');
    quoted
}

/// Pattern for `pg_dump --table=` and `--exclude-table=` that matches exactly this table.
pub fn dump_table_pattern(schema: &str, table: &str) -> String {
    // Within double quotes everything is literal to pg_dump too, and a quote is doubled.
    quote_qualified(schema, table)
}

/// Pattern for `pg_dump --schema=` and `--exclude-schema=` that matches exactly this schema.
pub fn dump_schema_pattern(schema: &str) -> String {
    quote_ident(schema)
}

fn push_quoted(quoted: &mut String, name: &str) {
    quoted.push('"');
    for letter in name.chars() {
        if letter == '"' {
            quoted.push('"');
        }
        quoted.push(letter);
    }
    quoted.push('"');
}

#[cfg(test)]
mod tests {
    use super::{check_name, quote_ident, quote_literal, quote_qualified};

    #[test]
    fn names_are_counted_in_bytes() {
        assert!(check_name("database", &"ä".repeat(31)).is_ok());
        let error = check_name("database", &"ä".repeat(32)).unwrap_err();
        let words = format!("database name {} has 64 bytes, PostgreSQL takes 63", "ä".repeat(32));
        assert_eq!(error.to_string(), words);
    }

    #[test]
    fn identifiers_are_always_quoted_and_their_quotes_doubled() {
        assert_eq!(quote_ident("plain"), r#""plain""#);
        assert_eq!(quote_ident(r#"we"ird "" x"#), r#""we""ird """" x""#);
        assert_eq!(quote_qualified("a.b", "C d"), r#""a.b"."C d""#);
    }

    #[test]
    fn literals_with_backslashes_say_so() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\b'c"), r" E'a\\b''c'");
        assert_eq!(quote_literal(""), "''");
    }
}
