//! To which moment.

use std::fmt;
use std::num::NonZeroU32;

use backstay_backup_core::id::SetId;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::resp::Command;
use crate::{Offset, ReplicationId};

use super::error::RestoreError;
use super::glob;

/// The moment that is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreTarget {
    /// The last moment that can be recovered.
    Newest,
    /// Exactly what a snapshot holds.
    Set(SetId),
    /// Everything that was received until then.
    Time(Timestamp),
    /// Everything up to an offset, in the history of that id or in the newest one.
    Offset {
        /// The history.
        history: Option<ReplicationId>,
        /// The offset.
        offset: Offset,
    },
    /// Everything before a command.
    Before(CommandSearch),
}

impl fmt::Display for RestoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("the newest moment"),
            Self::Set(set) => write!(f, "set {set}"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Offset { history: Some(history), offset } => write!(f, "offset {offset} of {history}"),
            Self::Offset { history: None, offset } => write!(f, "offset {offset}"),
            Self::Before(search) => write!(f, "just before {search}"),
        }
    }
}

impl Serialize for RestoreTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl RestoreTarget {
    /// Reads a time, such as `2026-11-22T14:30:00Z` or `2026-11-22 15:30 +01:00`.
    ///
    /// # Errors
    /// A text that is no time, or has no offset from UTC.
    pub fn time(text: &str) -> Result<Self, RestoreError> {
        let compact = text.trim().replacen(' ', "T", 1).replace(' ', "");
        compact.parse().map(Self::Time).map_err(|_| {
            RestoreError::usage(
                format!("{text:?} is no time"),
                "write it with its offset from UTC, as 2026-11-22T14:30:00Z or \"2026-11-22 15:30:00 +01:00\"",
            )
        })
    }

    /// Reads an offset, alone or as `<replication id>:<offset>`.
    ///
    /// # Errors
    /// A text that is neither.
    pub fn offset(text: &str) -> Result<Self, RestoreError> {
        let (history, offset) = match text.split_once(':') {
            Some((history, offset)) => (history.parse().map(Some), offset),
            None => (Ok(None), text),
        };
        match (history, offset.parse()) {
            (Ok(history), Ok(offset)) => Ok(Self::Offset { history, offset }),
            _ => Err(RestoreError::usage(
                format!("{text:?} is no offset"),
                "write it as a number, or as a replication id, a colon and a number",
            )),
        }
    }
}

/// Commands that are looked for in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandSearch {
    /// Its name, and words that follow it, such as `FUNCTION FLUSH`.
    pub words: Vec<String>,
    /// A pattern that one of its arguments must match.
    pub key: Option<String>,
    /// Which one, counted from the newest: 1 is the last.
    pub occurrence: NonZeroU32,
    /// Only what was received until then.
    pub not_after: Option<Timestamp>,
}

impl CommandSearch {
    /// The last command of that name.
    ///
    /// # Errors
    /// A text without a word.
    pub fn new(text: &str) -> Result<Self, RestoreError> {
        let words: Vec<_> = text.split_whitespace().map(str::to_ascii_uppercase).collect();
        if words.is_empty() {
            let remedy = "name it as the server does, such as FLUSHALL or \"FUNCTION FLUSH\"";
            return Err(RestoreError::usage("a command needs a name", remedy));
        }
        Ok(Self { words, key: None, occurrence: NonZeroU32::MIN, not_after: None })
    }

    /// Sets a pattern that one of its arguments must match, as Redis matches keys.
    #[must_use]
    pub fn key(mut self, pattern: Option<String>) -> Self {
        self.key = pattern;
        self
    }

    /// Sets which one, counted from the newest.
    #[must_use]
    pub fn occurrence(mut self, number: NonZeroU32) -> Self {
        self.occurrence = number;
        self
    }

    /// Leaves out what was received later.
    #[must_use]
    pub fn not_after(mut self, time: Option<Timestamp>) -> Self {
        self.not_after = time;
        self
    }

    /// Whether a command is one of those.
    #[must_use]
    pub fn is(&self, command: &Command<'_>) -> bool {
        let mut words = command.arguments();
        let names = self.words.iter().all(|wanted| {
            words.next().is_some_and(|word| word.bytes.eq_ignore_ascii_case(wanted.as_bytes()))
        });
        let key = self.key.as_ref().is_none_or(|pattern| {
            words.any(|word| word.is_whole() && glob::matches(pattern.as_bytes(), word.bytes))
        });
        names && key
    }
}

impl fmt::Display for CommandSearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.occurrence.get() {
            1 => f.write_str("the last ")?,
            number => write!(f, "the {number}. last ")?,
        }
        f.write_str(&self.words.join(" "))?;
        if let Some(key) = &self.key {
            write!(f, " of {key}")?;
        }
        match self.not_after {
            Some(time) => write!(f, " until {time}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{Capture, CommandScanner, StreamState};

    fn is(search: &CommandSearch, words: &[&str]) -> bool {
        let mut bytes = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| bytes.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        let capture = Capture { arguments: 100, bytes: 100 };
        let mut scanner = CommandScanner::new(Offset(0), StreamState::default()).capture(capture);
        let mut found = false;
        scanner.scan(bytes.as_bytes(), |command| found = search.is(command)).unwrap();
        found
    }

    #[test]
    fn commands_are_found_by_name_and_key() {
        let flush = CommandSearch::new("flushall").unwrap();
        assert!(is(&flush, &["FLUSHALL"]) && is(&flush, &["flushall", "ASYNC"]));
        assert!(!is(&flush, &["FLUSHDB"]) && !is(&flush, &["SET", "flushall", "1"]));
        let delete = CommandSearch::new("del").unwrap().key(Some("session:*".to_owned()));
        assert!(is(&delete, &["DEL", "a", "session:1"]) && !is(&delete, &["DEL", "sessions"]));
        let function = CommandSearch::new("function flush").unwrap();
        assert!(is(&function, &["FUNCTION", "FLUSH", "ASYNC"]) && !is(&function, &["FUNCTION", "LOAD"]));
        assert!(CommandSearch::new(" ").is_err());
    }

    #[test]
    fn times_and_offsets_are_read_as_people_write_them() {
        let time = RestoreTarget::Time("2026-11-22T14:30:00Z".parse().unwrap());
        assert_eq!(RestoreTarget::time("2026-11-22T14:30:00Z").unwrap(), time);
        assert_eq!(RestoreTarget::time("2026-11-22 15:30:00 +01:00").unwrap(), time);
        assert!(RestoreTarget::time("2026-11-22 15:30").is_err());
        assert_eq!(
            RestoreTarget::offset("17").unwrap(),
            RestoreTarget::Offset { history: None, offset: Offset(17) }
        );
        let id = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(
            RestoreTarget::offset(&format!("{id}:17")).unwrap().to_string(),
            format!("offset 17 of {id}")
        );
        assert!(RestoreTarget::offset("x:17").is_err() && RestoreTarget::offset("-1").is_err());
    }
}
