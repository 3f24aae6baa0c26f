//! Rewrites the expiries of an RDB while it passes by, and its checksum.
//!
//! A snapshot holds absolute times. Restored a day later, everything that lived for less than a day is gone at once;
//! shifted by that day, it comes back with the time it had left.

use serde::{Deserialize, Serialize};

use super::RdbError;
use super::checksum::{Crc64, Trailed};
use super::driver::Driver;
use super::facts::Magic;
use super::listpack::rewrite_expiries;
use super::parser::{Parser, What};
use super::scanner::{FIRST_WITH_TRAILER, check_end};

const EXPIRE_MILLISECONDS: u8 = 252;
/// Field expiry of a Valkey hash that has none.
const NEVER: i64 = -1;

/// What becomes of expiries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expiries {
    /// They stay as they are: what has expired since is gone.
    Keep,
    /// All of them move by that many milliseconds.
    Shift(i64),
    /// They are removed: everything stays for ever.
    Strip,
    /// Those behind that moment, in milliseconds since 1970, are removed; what had expired by then stays expired.
    StripAfter(i64),
}

impl Expiries {
    /// What becomes of one, in milliseconds; `None` when it is removed.
    #[must_use]
    pub fn apply(self, expiry: i64) -> Option<i64> {
        match self {
            Self::Keep => Some(expiry),
            Self::Shift(by) => Some(expiry.saturating_add(by).max(1)),
            Self::Strip => None,
            Self::StripAfter(moment) => (expiry <= moment).then_some(expiry),
        }
    }
}

/// What a rewrite did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ShiftReport {
    /// Expiries of keys that were met.
    pub keys: u64,
    /// Hashes whose fields expire.
    pub hashes: u64,
}

/// Rewrites an RDB that comes in any pieces. Memory is that of the largest hash whose fields expire, 64 MiB at most.
#[derive(Clone, Debug)]
pub struct ShiftExpires {
    driver: Driver,
    expiries: Expiries,
    magic: Magic,
    /// Checksum of what came.
    old: Trailed,
    /// Checksum of what went.
    new: Crc64,
    length: u64,
    report: ShiftReport,
}

impl ShiftExpires {
    /// A rewrite at the first byte.
    #[must_use]
    pub fn new(expiries: Expiries) -> Self {
        let mut parser = Parser::new();
        if expiries != Expiries::Keep {
            parser = parser.withhold_listpacks();
        }
        Self {
            driver: Driver::new(parser),
            expiries,
            magic: Magic::Redis,
            old: Trailed::new(),
            new: Crc64::new(),
            length: 0,
            report: ShiftReport::default(),
        }
    }

    /// Rewrites the next bytes to the end of `output`.
    ///
    /// # Errors
    /// What no server writes, and [`RdbError::CannotShift`] for what is not known to this version.
    pub fn push(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Result<(), RdbError> {
        self.length += bytes.len() as u64;
        self.old.update(bytes);
        let begin = output.len();
        let Self { driver, expiries, magic, report, .. } = self;
        let mut rewrite = Rewrite { expiries: *expiries, magic, report };
        let mut ended = driver.parser().behind_end().is_some();
        driver.push(bytes, |piece, what| {
            if ended {
                return Ok(());
            }
            ended = what == What::End;
            rewrite.piece(piece, what, output)
        })?;
        self.new.update(&output[begin..]);
        Ok(())
    }

    /// Ends the file with its new checksum.
    ///
    /// # Errors
    /// As [`super::RdbScanner::finish`]; what was written then must not be used.
    pub fn finish(self, output: &mut Vec<u8>) -> Result<ShiftReport, RdbError> {
        let parser = self.driver.parser();
        let has_trailer = parser.version() >= FIRST_WITH_TRAILER;
        check_end(parser, self.length, has_trailer)?;
        if has_trailer {
            self.old.check()?;
            output.extend_from_slice(&self.new.value().to_le_bytes());
        }
        Ok(self.report)
    }
}

struct Rewrite<'a> {
    expiries: Expiries,
    magic: &'a mut Magic,
    report: &'a mut ShiftReport,
}

impl Rewrite<'_> {
    fn piece(&mut self, piece: &[u8], what: What, output: &mut Vec<u8>) -> Result<(), RdbError> {
        match what {
            What::Withheld => {}
            What::Header { magic, .. } => {
                *self.magic = magic;
                output.extend_from_slice(piece);
            }
            What::Expire { at, .. } => {
                self.report.keys += 1;
                match self.expiries.apply(at) {
                    Some(same) if same == at => output.extend_from_slice(piece),
                    Some(expiry) => {
                        output.push(EXPIRE_MILLISECONDS);
                        output.extend_from_slice(&expiry.to_le_bytes());
                    }
                    None => {}
                }
            }
            What::FieldExpiry(at) => output.extend_from_slice(&self.field(at).to_le_bytes()),
            What::FieldTtl if self.strips_fields() => output.push(0),
            What::Listpack(listpack) => {
                let rewritten = rewrite_expiries(&listpack, |at| self.expiries.apply(at).unwrap_or(0));
                let problem = || "a hash whose fields expire is not what it should be".to_owned();
                let rewritten = rewritten.ok_or_else(|| RdbError::CannotShift { problem: problem() })?;
                push_string(output, &rewritten);
            }
            What::Unknown(problem) => return Err(RdbError::CannotShift { problem }),
            What::Key { kind } => {
                self.report.hashes += u64::from(super::scanner::EXPIRING_HASHES.contains(&kind));
                output.extend_from_slice(piece);
            }
            _ => output.extend_from_slice(piece),
        }
        Ok(())
    }

    /// What becomes of an expiry inside a hash; each magic has its own way to say that there is none.
    fn field(&self, at: i64) -> i64 {
        let none = if *self.magic == Magic::Valkey { NEVER } else { 0 };
        let is_removed = at == none || (*self.magic == Magic::Redis && self.strips_fields());
        if is_removed { none } else { self.expiries.apply(at).unwrap_or(none) }
    }

    /// Fields of a large Redis hash count from the first of them to expire. They are all kept or all removed: one that had
    /// expired and was not removed yet comes back, and none is lost.
    fn strips_fields(&self) -> bool {
        matches!(self.expiries, Expiries::Strip | Expiries::StripAfter(_))
    }
}

fn push_string(output: &mut Vec<u8>, content: &[u8]) {
    output.push(0x81);
    output.extend_from_slice(&(content.len() as u64).to_be_bytes());
    output.extend_from_slice(content);
}

/// Rewrites a whole RDB from a reader to a writer. Blocks.
///
/// # Errors
/// Those of reader and writer; an [`RdbError`] inside an [`std::io::Error`] of kind `InvalidData` for an RDB that
/// cannot be rewritten.
pub fn shift_expires(
    mut input: impl std::io::Read,
    mut output: impl std::io::Write,
    expiries: Expiries,
) -> std::io::Result<ShiftReport> {
    let bad = |error: RdbError| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    let mut shift = ShiftExpires::new(expiries);
    let (mut buffer, mut rewritten) = (vec![0; 256 << 10], Vec::new());
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        shift.push(&buffer[..read], &mut rewritten).map_err(bad)?;
        output.write_all(&rewritten)?;
        rewritten.clear();
    }
    let report = shift.finish(&mut rewritten).map_err(bad)?;
    output.write_all(&rewritten)?;
    output.flush()?;
    Ok(report)
}
