//! Finds secrets before they are stored without encryption.
//!
//! Two looks: at names that mean secrets whatever is in them (`names.rs`), and at the content, with rules for the forms that
//! keys and tokens have (`rules.rs`), tried where a word of theirs stands (`keywords.rs`). A finding names the file, the line and the rule, never the secret. What is surely no
//! secret is allowed by its path.
//!
//! This is a net with meshes: it stops the common accident. What must not be read by others is encrypted.

mod keywords;
mod names;
mod rules;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::sync::LazyLock;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Finding};
use crate::path::ArchivePath;

use names::Names;
use rules::Rules;

/// Made once: there are many.
static RULES: LazyLock<Rules> = LazyLock::new(Rules::new);
static NAMES: LazyLock<Names> = LazyLock::new(Names::new);

/// Bytes looked at together.
const WINDOW: usize = 1 << 20;
/// Bytes looked at again with the next window, so that no secret lies across two.
const OVERLAP: usize = 16 << 10;
/// Findings in one file that are told.
const MOST: usize = 10;

/// Looks for secrets.
#[derive(Debug)]
pub struct Scanner {
    allowed: Gitignore,
}

impl Scanner {
    /// Looks everywhere but at the paths allowed, which are written as in `.gitignore`, seen from `/`.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn new(allow: &[String]) -> Result<Self, Error> {
        let mut builder = GitignoreBuilder::new("/");
        let wrong = |pattern: &str, error: &ignore::Error| Error::Pattern {
            pattern: pattern.to_owned(),
            problem: error.to_string(),
        };
        for pattern in allow {
            builder.add_line(None, pattern).map_err(|error| wrong(pattern, &error))?;
        }
        let allowed = builder.build().map_err(|error| wrong("", &error))?;
        Ok(Self { allowed })
    }

    /// Whether somebody said that there is no secret in it.
    #[must_use]
    pub fn is_allowed(&self, path: &ArchivePath) -> bool {
        !self.allowed.is_empty()
            && self.allowed.matched_path_or_any_parents(path.as_path(), false).is_ignore()
    }

    /// Everything that is found in a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn scan(&self, path: &ArchivePath, content: impl Read) -> io::Result<Vec<Finding>> {
        self.scan_through(&mut Vec::new(), path, content)
    }

    /// The same through a buffer that is used again.
    pub(crate) fn scan_through(
        &self,
        buffer: &mut Vec<u8>,
        path: &ArchivePath,
        content: impl Read,
    ) -> io::Result<Vec<Finding>> {
        if self.is_allowed(path) {
            return Ok(Vec::new());
        }
        let finding = |line, rule| Finding { path: format!("/{path}"), line, rule };
        let mut found = Vec::new();
        let mut public_only = PublicOnly::default();
        let mut content = Windows::new(content, buffer);
        while let Some(window) = content.next()? {
            if window.begins_at == 0 && names::needs_content(path) {
                public_only.look(window.bytes);
            }
            for (at, rule) in RULES.find(window.bytes, window.is_text) {
                // What begins near the end may be cut off there, and is told with the next window.
                if window.told.contains(&at) && found.len() < MOST {
                    found.push(finding(Some(window.line_of(at)), rule));
                }
            }
        }
        if let Some(rule) = NAMES.find(path)
            && !(names::needs_content(path) && public_only.is_proven())
        {
            found.insert(0, finding(None, rule));
        }
        found.dedup();
        Ok(found)
    }
}

/// Whether a file of keys and certificates has only those that everybody may read.
#[derive(Debug, Default)]
struct PublicOnly {
    public: bool,
    other: bool,
}

impl PublicOnly {
    fn look(&mut self, bytes: &[u8]) {
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Some(title) = line.strip_prefix(b"-----BEGIN ") {
                let public = [
                    "CERTIFICATE",
                    "TRUSTED CERTIFICATE",
                    "PUBLIC KEY",
                    "RSA PUBLIC KEY",
                    "PGP PUBLIC KEY BLOCK",
                    "X509 CRL",
                    "DH PARAMETERS",
                    "EC PARAMETERS",
                    "CERTIFICATE REQUEST",
                ];
                let is_public = public.iter().any(|public| title.starts_with(public.as_bytes()));
                self.public |= is_public;
                self.other |= !is_public;
            }
        }
    }

    fn is_proven(&self) -> bool {
        self.public && !self.other
    }
}

/// Content in overlapping pieces.
struct Windows<'b, R> {
    input: R,
    buffer: &'b mut Vec<u8>,
    /// Where the buffer begins in the content, and the lines before it.
    begins_at: u64,
    lines_before: u64,
    is_text: bool,
    ended: bool,
}

struct Window<'a> {
    bytes: &'a [u8],
    begins_at: u64,
    lines_before: u64,
    told: std::ops::Range<usize>,
    is_text: bool,
}

impl Window<'_> {
    fn line_of(&self, at: usize) -> u64 {
        self.lines_before + lines(&self.bytes[..at]) + 1
    }
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

impl<'b, R: Read> Windows<'b, R> {
    fn new(input: R, buffer: &'b mut Vec<u8>) -> Self {
        buffer.clear();
        Self { input, buffer, begins_at: 0, lines_before: 0, is_text: true, ended: false }
    }

    fn next(&mut self) -> io::Result<Option<Window<'_>>> {
        if self.ended {
            return Ok(None);
        }
        let first = self.buffer.is_empty();
        if !first {
            let passed = self.buffer.len() - OVERLAP;
            self.lines_before += lines(&self.buffer[..passed]);
            self.begins_at += passed as u64;
            self.buffer.drain(..passed);
        }
        let wanted = (WINDOW - self.buffer.len()) as u64;
        self.input.by_ref().take(wanted).read_to_end(self.buffer)?;
        self.ended = self.buffer.len() < WINDOW;
        if first {
            let begin = &self.buffer[..self.buffer.len().min(8 << 10)];
            self.is_text = !begin.contains(&0);
        }
        let from = if first { 0 } else { OVERLAP / 2 };
        let until = if self.ended { self.buffer.len() } else { self.buffer.len() - OVERLAP / 2 };
        Ok(Some(Window {
            bytes: self.buffer,
            begins_at: self.begins_at,
            lines_before: self.lines_before,
            told: from..until,
            is_text: self.is_text,
        }))
    }
}
