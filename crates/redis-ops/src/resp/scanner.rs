//! The push parser of the replication stream.

use crate::position::Offset;

use super::RespError;
use super::command::{Capture, Command, Kept, StreamState};

/// Digits of a length at most; no server sends more than 19.
const MAX_LINE: usize = 20;
/// Arguments of one command at most, as in the servers.
const MAX_ARGUMENTS: u64 = i32::MAX as u64;
/// Bytes of one argument at most: `proto-max-bulk-len` may be anything, memory is not touched by it.
const MAX_BULK: u64 = 1 << 44;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Between two commands.
    Idle,
    /// In the line after `*`.
    Count,
    /// Before the `$` of an argument.
    Bulk,
    /// In the line after `$`.
    Length,
    /// In the content of an argument, that many bytes before its end.
    Content(u64),
    /// Before `\r\n` after an argument; that many of the two bytes are to come.
    End(u8),
    /// Before the `\n` of an empty line.
    EmptyLine,
    /// After the last byte of a command.
    Whole,
    /// After an error.
    Broken,
}

/// Finds the commands in a replication stream that comes in any pieces. See the page of [`crate::resp`].
#[derive(Clone, Debug)]
pub struct CommandScanner {
    step: Step,
    capture: Capture,
    /// Everything scanned so far.
    offset: Offset,
    /// Begin of the command at hand, which is the end of the last whole one.
    boundary: Offset,
    /// End of the last whole command outside a transaction.
    cut: Offset,
    state: StreamState,
    /// The digits of a length that is still coming.
    line: Vec<u8>,
    count: u64,
    left: u64,
    arguments: Vec<Kept>,
    bytes: Vec<u8>,
}

impl CommandScanner {
    /// A scanner that begins between two commands, where `state` holds.
    #[must_use]
    pub fn new(start: Offset, state: StreamState) -> Self {
        Self {
            step: Step::Idle,
            capture: Capture::default(),
            offset: start,
            boundary: start,
            cut: start,
            state,
            line: Vec::with_capacity(MAX_LINE),
            count: 0,
            left: 0,
            arguments: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Sets how much of each command is kept.
    #[must_use]
    pub fn capture(mut self, capture: Capture) -> Self {
        self.set_capture(capture);
        self
    }

    /// Sets how much of each command is kept, from the next one on.
    pub fn set_capture(&mut self, capture: Capture) {
        self.capture = Capture { arguments: capture.arguments.max(2), bytes: capture.bytes.max(32) };
    }

    /// Where the scanned part of the stream ends.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Where the last whole command ends.
    #[must_use]
    pub fn boundary(&self) -> Offset {
        self.boundary
    }

    /// Where the last whole command outside a transaction ends: the last place where the stream may be cut. It is the
    /// begin of the scan as long as there was none, which is such a place only if no transaction was open there.
    #[must_use]
    pub fn cut(&self) -> Offset {
        self.cut
    }

    /// What holds at [`CommandScanner::boundary`].
    #[must_use]
    pub fn state(&self) -> StreamState {
        self.state
    }

    /// Scans the next piece of the stream; `on` sees each command when its last byte has come.
    ///
    /// # Errors
    /// What no primary sends. Nothing can be scanned after an error.
    pub fn scan(&mut self, mut bytes: &[u8], mut on: impl FnMut(&Command<'_>)) -> Result<(), RespError> {
        while let Some(&next) = bytes.first() {
            let taken = match self.step {
                Step::Idle => self.begin(next)?,
                Step::Count | Step::Length => self.number(bytes)?,
                Step::Bulk if next == b'$' => self.go(Step::Length),
                Step::Bulk => return self.broken("an argument does not begin with $"),
                Step::Content(left) => self.content(bytes, left),
                Step::End(2) if next == b'\r' => self.go(Step::End(1)),
                Step::End(1) if next == b'\n' => self.end_argument(),
                Step::End(_) => return self.broken("an argument is longer than announced"),
                Step::EmptyLine if next == b'\n' => self.go(Step::Whole),
                Step::EmptyLine => return self.broken("a carriage return without its line feed"),
                Step::Whole | Step::Broken => return self.broken("the stream was broken before"),
            };
            self.offset = self.offset.plus(taken as u64);
            bytes = &bytes[taken..];
            if self.step == Step::Whole {
                self.finish(&mut on);
            }
        }
        Ok(())
    }

    fn broken<T>(&mut self, problem: &'static str) -> Result<T, RespError> {
        self.broken_at(self.offset, problem)
    }

    fn broken_at<T>(&mut self, at: Offset, problem: &'static str) -> Result<T, RespError> {
        self.step = Step::Broken;
        Err(RespError { at, problem })
    }

    fn go(&mut self, step: Step) -> usize {
        self.step = step;
        1
    }

    fn begin(&mut self, next: u8) -> Result<usize, RespError> {
        self.arguments.clear();
        self.bytes.clear();
        self.count = 0;
        match next {
            b'*' => Ok(self.go(Step::Count)),
            b'\r' => Ok(self.go(Step::EmptyLine)),
            b'\n' => Ok(self.go(Step::Whole)),
            _ => self.broken("a command does not begin with *"),
        }
    }

    /// Reads digits up to the end of the line; most lines come in one piece.
    fn number(&mut self, bytes: &[u8]) -> Result<usize, RespError> {
        // However the line was cut: what is wrong with it is told of its begin.
        let line = Offset(self.offset.0.saturating_sub(self.line.len() as u64));
        let room = bytes.len().min(MAX_LINE + 2 - self.line.len());
        let end = bytes[..room].iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(room, |end| end + 1);
        self.line.extend_from_slice(&bytes[..taken]);
        if end.is_none() {
            return if self.line.len() >= MAX_LINE + 2 {
                self.broken_at(line, "a length without end")
            } else {
                Ok(taken)
            };
        }
        let number = self.line.strip_suffix(b"\r\n").and_then(parse);
        self.line.clear();
        match (&self.step, number) {
            (_, None) => self.broken_at(line, "a length that is no number"),
            (Step::Count, Some(count)) => {
                if count > MAX_ARGUMENTS {
                    return self.broken_at(line, "a command with too many arguments");
                }
                self.count = count;
                self.left = count;
                // Empty arrays are skipped by the servers too.
                self.step = if count == 0 { Step::Whole } else { Step::Bulk };
                Ok(taken)
            }
            (_, Some(length)) => {
                if length > MAX_BULK {
                    return self.broken_at(line, "an argument that is too long");
                }
                self.begin_argument(length, self.offset.plus(taken as u64));
                Ok(taken)
            }
        }
    }

    fn begin_argument(&mut self, len: u64, start: Offset) {
        if self.arguments.len() < self.capture.arguments {
            let begin = self.bytes.len();
            self.arguments.push(Kept { start, len, kept: begin..begin });
        }
        self.step = if len == 0 { Step::End(2) } else { Step::Content(len) };
    }

    fn content(&mut self, bytes: &[u8], left: u64) -> usize {
        let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        // Only the last argument can be the one at hand, and only while fewer than `capture.arguments` have passed.
        let number = self.count - self.left;
        if number < self.arguments.len() as u64
            && let Some(argument) = self.arguments.last_mut()
        {
            let room = self.capture.bytes.saturating_sub(argument.kept.len()).min(taken);
            self.bytes.extend_from_slice(&bytes[..room]);
            argument.kept.end += room;
        }
        let left = left - taken as u64;
        self.step = if left == 0 { Step::End(2) } else { Step::Content(left) };
        taken
    }

    fn end_argument(&mut self) -> usize {
        self.left -= 1;
        self.go(if self.left == 0 { Step::Whole } else { Step::Bulk })
    }

    fn finish(&mut self, on: &mut impl FnMut(&Command<'_>)) {
        let before = self.state;
        let mut command = Command {
            start: self.boundary,
            end: self.offset,
            count: self.count,
            before,
            after: before,
            arguments: &self.arguments,
            bytes: &self.bytes,
        };
        command.after = after(&command);
        on(&command);
        self.state = command.after;
        self.boundary = self.offset;
        if !self.state.in_transaction {
            self.cut = self.offset;
        }
        self.step = Step::Idle;
    }
}

fn after(command: &Command<'_>) -> StreamState {
    let mut state = command.before;
    match command.name().len() {
        6 if command.is("SELECT") => {
            let number = command.argument(1).and_then(|argument| parse(argument.bytes));
            state.database = number.and_then(|number| u32::try_from(number).ok());
        }
        5 if command.is("MULTI") => state.in_transaction = true,
        4 if command.is("EXEC") => state.in_transaction = false,
        7 if command.is("DISCARD") => state.in_transaction = false,
        _ => {}
    }
    state
}

/// A number of plain digits.
fn parse(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > MAX_LINE {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
