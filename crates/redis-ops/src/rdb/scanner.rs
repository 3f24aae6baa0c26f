//! Counts what passes by, and checks that it is whole.

use super::RdbError;
use super::checksum::{TRAILER, Trailed};
use super::driver::Driver;
use super::facts::{Checksum, Contents, DatabaseFacts, Magic, RdbFacts};
use super::parser::{Parser, What};

/// First version that has one.
pub(super) const FIRST_WITH_TRAILER: u32 = 5;
/// Function libraries and auxiliary fields that are remembered.
const MANY: usize = 10_000;
/// Types whose value belongs to a module, and hashes whose fields expire.
const MODULE: u8 = 7;
pub(super) const EXPIRING_HASHES: [u8; 3] = [22, 24, 25];

/// Takes an RDB in any pieces and says what it holds. See the page of [`crate::rdb`].
#[derive(Clone, Debug)]
pub struct RdbScanner {
    driver: Driver,
    tally: Tally,
    checksum: Trailed,
    length: u64,
    failed: Option<RdbError>,
}

#[derive(Clone, Debug)]
struct Tally {
    facts: RdbFacts,
    database: u32,
    /// Expiry of the next key.
    expiry: Option<i64>,
    /// When the file was written, in milliseconds.
    written: Option<i64>,
}

impl Default for RdbScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl RdbScanner {
    /// A scanner at the first byte.
    #[must_use]
    pub fn new() -> Self {
        let facts = RdbFacts {
            magic: Magic::Redis,
            version: 0,
            length: 0,
            checksum: Checksum::Absent,
            contents: Contents::Counted,
            aux: std::collections::BTreeMap::new(),
            databases: std::collections::BTreeMap::new(),
            functions: Vec::new(),
            module_keys: 0,
        };
        Self {
            driver: Driver::new(Parser::new()),
            tally: Tally { facts, database: 0, expiry: None, written: None },
            checksum: Trailed::new(),
            length: 0,
            failed: None,
        }
    }

    /// Bytes seen so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Keys counted so far.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.tally.facts.keys()
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// What no server writes. Every further call, and [`RdbScanner::finish`], then give the same error.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), RdbError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.length += bytes.len() as u64;
        self.checksum.update(bytes);
        let tally = &mut self.tally;
        let pushed = self.driver.push(bytes, |_, what| {
            tally.note(what);
            Ok(())
        });
        pushed.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Checks the end and answers with what was found.
    ///
    /// # Errors
    /// [`RdbError::Length`] for a file that is cut off or goes on behind its end, [`RdbError::Checksum`] for one that is
    /// damaged.
    pub fn finish(mut self) -> Result<RdbFacts, RdbError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let parser = self.driver.parser();
        let has_trailer = parser.version() >= FIRST_WITH_TRAILER;
        if parser.version() == 0 {
            return Err(RdbError::Length { at: self.length, problem: "breaks off" });
        }
        if !parser.is_opaque() {
            check_end(parser, self.length, has_trailer)?;
        }
        if has_trailer {
            self.tally.facts.checksum = self.checksum.check()?;
        }
        let mut facts = self.tally.facts;
        facts.length = self.length;
        facts.functions.sort();
        Ok(facts)
    }
}

/// The end mark must be followed by the checksum and nothing else.
pub(super) fn check_end(parser: &Parser, length: u64, has_trailer: bool) -> Result<(), RdbError> {
    // The parser counts what follows the end mark too.
    let behind = parser.behind_end();
    let expected = if has_trailer { TRAILER as u64 } else { 0 };
    match behind {
        Some(behind) if behind == expected => Ok(()),
        Some(behind) if behind > expected => {
            Err(RdbError::Length { at: length - (behind - expected), problem: "goes on behind its end" })
        }
        _ => Err(RdbError::Length { at: length, problem: "breaks off" }),
    }
}

impl Tally {
    fn note(&mut self, what: What) {
        let facts = &mut self.facts;
        match what {
            What::Header { magic, version } => {
                facts.magic = magic;
                facts.version = version;
            }
            What::Expire { at, .. } => self.expiry = Some(at),
            What::Key { kind } => self.key(kind),
            What::Database(number) => self.database = number,
            What::Aux { name, value } => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (name, value) = (text(&name), text(&value));
                if name == "ctime" {
                    self.written = value.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1000));
                }
                if facts.aux.len() < MANY {
                    facts.aux.insert(name, value);
                }
            }
            What::Function(code) => {
                if facts.functions.len() < MANY {
                    facts.functions.push(library_name(&code));
                }
            }
            What::Unknown(reason) => facts.contents = Contents::Unknown { reason },
            What::More
            | What::Bytes
            | What::FieldExpiry(_)
            | What::FieldTtl
            | What::Withheld
            | What::Listpack(_)
            | What::End => {}
        }
    }

    fn key(&mut self, kind: u8) {
        let databases = &mut self.facts.databases;
        if databases.len() >= MANY && !databases.contains_key(&self.database) {
            self.facts.contents = Contents::Unknown { reason: format!("more than {MANY} databases") };
            return;
        }
        let database: &mut DatabaseFacts = databases.entry(self.database).or_default();
        database.keys += 1;
        if let Some(expiry) = self.expiry.take() {
            database.expires += 1;
            if self.written.is_some_and(|written| expiry < written) {
                database.expired += 1;
            }
        }
        if kind == MODULE {
            self.facts.module_keys += 1;
        }
        if EXPIRING_HASHES.contains(&kind) {
            database.field_expires += 1;
        }
    }
}

/// The name in the first line of a library's code, `#!lua name=…`.
fn library_name(code: &[u8]) -> String {
    let line = code.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let name = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("name="));
    name.unwrap_or("?").chars().take(200).collect()
}
