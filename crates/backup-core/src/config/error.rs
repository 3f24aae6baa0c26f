//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Class, Classified};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The configuration file.
    File {
        /// Its path.
        file: Arc<str>,
        /// 1-based line.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A flag of the command line.
    Flag {
        /// The flag, with its dashes.
        flag: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line } => write!(f, "at line {line} of {file}"),
            Self::Environment { variable } => write!(f, "in environment variable {variable}"),
            Self::Flag { flag } => write!(f, "in {flag}"),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {file} is not valid TOML at line {line}: {problem}")]
    Syntax {
        /// Its path.
        file: String,
        /// 1-based line.
        line: usize,
        /// The parser's words.
        problem: String,
    },
    /// A key nobody knows.
    #[error("unknown key `{key}` {origin}{}", did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// The nearest key that exists.
        suggestion: Option<String>,
    },
    /// A value that does not fit its key.
    #[error("bad value of `{key}` {origin}: {problem}")]
    Value {
        /// The key with its sections.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// What is wrong, and how to write it.
        problem: String,
    },
    /// Something needed was not given at all.
    #[error("`{key}` is missing: {problem}")]
    Missing {
        /// The key with its sections.
        key: String,
        /// What needs it.
        problem: String,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |key| format!(": did you mean `{key}`?"))
}

impl ConfigError {
    /// Its class: always the operator's to fix.
    #[must_use]
    pub fn class(&self) -> Class {
        Class::Usage
    }
}

/// Something accepted that deserves a word.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigWarning {
    /// What it is about and what to do, in one sentence.
    pub message: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Classified for ConfigError {
    fn class(&self) -> Class {
        self.class()
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read { .. } => "check the path, and that the user of this command may read the file",
            Self::Syntax { .. } => {
                "texts stand in quotes: stanza = \"main\"; sections in brackets: [retention]"
            }
            Self::UnknownKey { suggestion: None, .. } => "docs/configuration.md has all keys",
            Self::UnknownKey { .. } | Self::Value { .. } | Self::Missing { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
