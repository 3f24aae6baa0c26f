//! Hands pieces of any size to the parser, which wants small primitives whole.

use super::RdbError;
use super::parser::{LONGEST, Parser, What};

/// Bytes of pieces that are put together; more than one primitive, so that it always gets on.
const JOINT: usize = 4 * LONGEST;

/// A parser with the few bytes that it could not use yet.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    parser: Parser,
    carry: Vec<u8>,
}

impl Driver {
    pub(super) fn new(parser: Parser) -> Self {
        Self { parser, carry: Vec::with_capacity(JOINT) }
    }

    pub(super) fn parser(&self) -> &Parser {
        &self.parser
    }

    /// Parses the next bytes; `on` sees each piece that was understood, in order and without gaps.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        mut on: impl FnMut(&[u8], What) -> Result<(), RdbError>,
    ) -> Result<(), RdbError> {
        if !self.carry.is_empty() {
            let old = self.carry.len();
            let joined = bytes.len().min(JOINT - old);
            self.carry.extend_from_slice(&bytes[..joined]);
            let used = Self::parse(&mut self.parser, &self.carry, old, &mut on)?;
            if used < old {
                self.carry.drain(..used);
                return Ok(());
            }
            bytes = &bytes[used - old..];
            self.carry.clear();
        }
        let used = Self::parse(&mut self.parser, bytes, usize::MAX, &mut on)?;
        self.carry.extend_from_slice(&bytes[used..]);
        Ok(())
    }

    /// Parses until `enough` bytes were used or more are needed, and says how many were used.
    fn parse(
        parser: &mut Parser,
        bytes: &[u8],
        enough: usize,
        on: &mut impl FnMut(&[u8], What) -> Result<(), RdbError>,
    ) -> Result<usize, RdbError> {
        let mut used = 0;
        while used < enough && used < bytes.len() {
            let (taken, what) = parser.advance(&bytes[used..])?;
            if what == What::More {
                break;
            }
            on(&bytes[used..used + taken], what)?;
            used += taken;
        }
        Ok(used)
    }
}
