//! Why a program did not do what it was asked, ready to be printed.

use std::error::Error;
use std::fmt;

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified;
use backstay_backup_core::process::scrub;
use serde::Serialize;

use crate::exit::Exit;

/// An error with its class and, where one is known, what to do about it. Made from any library error by `?`.
pub struct Failure {
    class: Class,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

/// The program was told to stop.
#[derive(Clone, Copy, Debug)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped by a signal")
    }
}

impl Error for Cancelled {}

/// What `--json` prints of a failure.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct FailureReport {
    class: Exit,
    exit_code: u8,
    message: String,
    chain: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl<E: Classified> From<E> for Failure {
    fn from(error: E) -> Self {
        let class = error.class();
        let hint = error.hint();
        Self { class, error: Box::new(error), hint }
    }
}

impl Failure {
    /// An error of that class.
    pub fn new(class: Class, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class, error: error.into(), hint: None }
    }

    /// Something to be changed in arguments or configuration.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Class::Usage, message.into())
    }

    /// The program was told to stop.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(Class::Temporary, Cancelled)
            .with_hint("nothing half-done was left behind; run the same command again")
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Its class.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The exit code that it ends in.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.class.into()
    }

    /// The error itself, to look for a kind that is treated differently.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.error.as_ref()
    }

    /// The error and its causes, outermost first, without repetitions and secrets.
    fn chain(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::new();
        let mut next: Option<&(dyn Error + 'static)> = Some(self.error.as_ref());
        while let Some(error) = next {
            let text = scrub(&error.to_string(), &[]);
            // Some libraries print their cause themselves and hand it out as well.
            if !text.is_empty() && !chain.last().is_some_and(|outer| outer.contains(&text)) {
                chain.push(text);
            }
            next = error.source();
        }
        chain
    }

    /// The error with its causes in one line, for reports that mention it.
    #[must_use]
    pub fn message(&self) -> String {
        self.chain().join(": ")
    }

    pub(crate) fn report(&self) -> FailureReport {
        let exit = self.exit();
        let chain = self.chain();
        FailureReport {
            class: exit,
            exit_code: exit.code(),
            message: chain.join(": "),
            chain,
            hint: self.hint.clone(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.chain().join(": "))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use backstay_backup_core::Error as CoreError;
    use backstay_backup_core::store::StoreError;

    use super::*;

    fn refused() -> CoreError {
        let source = StoreError::Denied {
            op: "write",
            what: "main/sets/x".to_owned(),
            source: "403 from https://key:secret@s3.example/bucket".into(),
        };
        CoreError::Store { repository: "offsite".to_owned(), op: "create", source }
    }

    #[test]
    fn the_chain_is_one_line_with_a_hint_below() {
        assert_eq!(
            Failure::from(refused()).to_string(),
            "error: repository offsite: create failed: not allowed to write main/sets/x: 403 from \
             https://key:[redacted]@s3.example/bucket\nhint: check the credentials and permissions; `check-storage` \
             tries every operation"
        );
    }

    #[test]
    fn json_has_the_same_words_and_the_exit_code() {
        let report = serde_json::to_value(Failure::usage("no such flag").report()).unwrap();
        let expected = serde_json::json!({
            "class": "usage", "exit-code": 2, "message": "no such flag", "chain": ["no such flag"]
        });
        assert_eq!(report, expected);
    }

    #[test]
    fn causes_that_were_printed_already_are_not_repeated() {
        #[derive(Debug)]
        struct Doubled(std::io::Error);
        impl fmt::Display for Doubled {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "outer: {}", self.0)
            }
        }
        impl Error for Doubled {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let failure = Failure::new(Class::Data, Doubled(std::io::Error::other("inner")));
        assert_eq!(failure.to_string(), "error: outer: inner");
    }
}
