//! Turns a piece of the replication stream into what a server replays: whole commands up to the target, and nothing half.
//!
//! ```text
//! stream in any pieces ─▶ scanner ─▶ whole commands ─▶ fillers left out ─▶ expiries by policy ─▶ file
//!                                                                          the end of the last transaction is marked
//! ```
//!
//! The output ends at the last place up to the target where the stream may be cut: behind a whole command, outside
//! `MULTI` … `EXEC`. What was written behind it is taken away again by [`StreamCutter::finish`]'s caller, who is told the
//! length. Values pass by; only a command whose expiry may change is held in memory while it comes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use super::ttl::TtlChange;
use super::ttl_command::{self, may_expire};
use crate::position::Offset;
use crate::resp::{CommandScanner, RespError, StreamState};

/// Bytes of a command that are held at most before they are passed on, unless its expiry may change.
const HELD: usize = 256 << 10;
/// Bytes in the longest name of a command that carries an expiry.
const LONGEST_NAME: usize = 16;

/// Why a stream could not be cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    /// It is no stream of commands.
    #[error("the stream is damaged")]
    Stream {
        /// What is wrong.
        #[source]
        source: RespError,
    },
    /// The output cannot be written.
    #[error("cannot write the stream")]
    Write {
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// What a cut stream holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CutReport {
    /// Where it ends.
    pub end: Offset,
    /// Length of the output up to there; whatever is behind it must go.
    pub length: u64,
    /// Commands that change something.
    pub commands: u64,
    /// Commands whose expiry was changed.
    pub changed: u64,
    /// Commands that change something, by the database they went to.
    pub databases: BTreeMap<u32, u64>,
}

/// Writes the commands of a stream until a target. Feed it everything from the base on.
#[derive(Debug)]
pub struct StreamCutter<W> {
    scanner: CommandScanner,
    output: Output<W>,
    /// The last offset that may be restored.
    until: Offset,
}

#[derive(Debug)]
struct Output<W> {
    file: W,
    change: TtlChange,
    /// When what is fed now was received, in milliseconds since 1970.
    now: i64,
    written: u64,
    /// The command at hand, as far as it was neither written nor left out.
    held: Vec<u8>,
    /// Whether the beginning of the command at hand was written already.
    is_begun: bool,
    report: CutReport,
    /// Of the transaction at hand.
    pending: Pending,
    failure: Option<io::Error>,
}

/// What is not certain to belong to the result yet.
#[derive(Debug, Default)]
struct Pending {
    commands: u64,
    changed: u64,
    databases: Vec<u32>,
}

impl<W: Write> StreamCutter<W> {
    /// Begins at the offset of a base, where `state` holds.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn new(
        file: W,
        start: Offset,
        state: StreamState,
        until: Offset,
        change: TtlChange,
    ) -> Result<Self, CutError> {
        let report = CutReport { end: start, ..CutReport::default() };
        let mut output = Output {
            file,
            change,
            now: 0,
            written: 0,
            held: Vec::new(),
            is_begun: false,
            pending: Pending::default(),
            report,
            failure: None,
        };
        // A base that a replica made may stand anywhere between two SELECTs of its primary.
        if let Some(database) = state.database {
            output.write_command(&[Cow::Borrowed(b"SELECT"), database.to_string().into_bytes().into()]);
            output.report.length = output.written;
        }
        let mut cutter = Self { scanner: CommandScanner::new(start, state), output, until };
        cutter.check()?;
        Ok(cutter)
    }

    /// Takes the next bytes, received at that time (milliseconds since 1970). Gives whether more are wanted.
    ///
    /// # Errors
    /// Bytes that are no stream; the output cannot be written.
    pub fn feed(&mut self, mut bytes: &[u8], received: i64) -> Result<bool, CutError> {
        self.output.now = received;
        let room = usize::try_from(self.until.since(self.scanner.offset())).unwrap_or(usize::MAX);
        bytes = &bytes[..bytes.len().min(room)];
        let Self { scanner, output, .. } = self;
        // Where in `bytes` the command at hand goes on.
        let mut at = 0;
        let begin = scanner.offset();
        let scanned = scanner.scan(bytes, |command| {
            let end = usize::try_from(command.end.since(begin)).unwrap_or(usize::MAX).min(bytes.len());
            output.hold(&bytes[at..end]);
            at = end;
            if command.is_filler() && !output.is_begun {
                output.leave_out();
            } else {
                output.end_command(command.before.database);
            }
            if command.is_cut() {
                output.mark(command.end);
            }
        });
        scanned.map_err(|source| CutError::Stream { source })?;
        self.output.hold(&bytes[at..]);
        self.output.pass_on();
        self.check()?;
        Ok(self.scanner.offset() < self.until)
    }

    /// Where the scanned part of the stream ends.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.scanner.offset()
    }

    /// Ends the stream here. Cut the output to the length that the report names.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(mut self) -> Result<(W, CutReport), CutError> {
        self.output.file.flush().map_err(|source| CutError::Write { source })?;
        Ok((self.output.file, self.output.report))
    }

    fn check(&mut self) -> Result<(), CutError> {
        self.output.failure.take().map_or(Ok(()), |source| Err(CutError::Write { source }))
    }
}

impl<W: Write> Output<W> {
    fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    fn leave_out(&mut self) {
        // One that is so long that a part of it was passed on stays: it changes nothing.
        self.held.clear();
    }

    /// Writes what need not be held. Values of any size pass through this.
    fn pass_on(&mut self) {
        if self.held.len() >= HELD && (self.is_begun || !could_expire(&self.held)) {
            let held = std::mem::take(&mut self.held);
            self.write(&held);
            self.is_begun = true;
            self.held = held;
            self.held.clear();
        }
    }

    fn end_command(&mut self, database: Option<u32>) {
        let held = std::mem::take(&mut self.held);
        let rewritten = if self.is_begun { None } else { self.rewrite(&held) };
        match rewritten {
            Some(words) => {
                self.write_command(&words);
                self.pending.changed += 1;
            }
            None => self.write(&held),
        }
        self.is_begun = false;
        self.pending.commands += 1;
        if let Some(database) = database {
            self.pending.databases.push(database);
        }
        self.held = held;
        self.held.clear();
    }

    fn rewrite<'a>(&self, command: &'a [u8]) -> Option<Vec<Cow<'a, [u8]>>> {
        if !could_expire(command) {
            return None;
        }
        ttl_command::rewrite(self.change, &words(command)?, self.now)
    }

    /// Everything up to here belongs to the result.
    fn mark(&mut self, end: Offset) {
        self.report.end = end;
        self.report.length = self.written;
        self.report.commands += std::mem::take(&mut self.pending.commands);
        self.report.changed += std::mem::take(&mut self.pending.changed);
        for database in self.pending.databases.drain(..) {
            *self.report.databases.entry(database).or_default() += 1;
        }
    }

    fn write_command(&mut self, words: &[Cow<'_, [u8]>]) {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        self.write(&command);
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        match self.file.write_all(bytes) {
            Ok(()) => self.written += bytes.len() as u64,
            Err(error) => self.failure = Some(error),
        }
    }
}

/// Whether the command whose beginning this is can carry an expiry, as far as one can see.
fn could_expire(bytes: &[u8]) -> bool {
    let Some(header) = memchr::memchr(b'\n', bytes) else { return true };
    let name = &bytes[header + 1..];
    match (next_word(name), length_of(name)) {
        (Some((name, _)), _) => may_expire(name),
        // No name that matters is longer; it is not waited for.
        (None, Some((length, _))) => length <= LONGEST_NAME,
        (None, None) => true,
    }
}

/// The length of a bulk string, and what is behind its header.
fn length_of(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let digits = bytes[..end].strip_prefix(b"$")?.strip_suffix(b"\r")?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, &bytes[end + 1..]))
}

/// A bulk string, and what is behind it.
fn next_word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, content) = length_of(bytes)?;
    let rest = content.get(length.checked_add(2)?..)?;
    Some((&content[..length], rest))
}

/// The words of one whole command.
fn words(command: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = &command[memchr::memchr(b'\n', command)? + 1..];
    let mut words = Vec::new();
    while !rest.is_empty() {
        let (word, behind) = next_word(rest)?;
        words.push(word);
        rest = behind;
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::restore::TtlPolicy;

    fn command(text: &str) -> Vec<u8> {
        let words: Vec<_> = text.split(' ').collect();
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        bytes
    }

    fn stream(commands: &[&str]) -> Vec<u8> {
        commands.iter().flat_map(|text| command(text)).collect()
    }

    fn cut(bytes: &[u8], until: u64, piece: usize, change: TtlChange) -> (Vec<u8>, CutReport) {
        let state = StreamState::default();
        let mut cutter = StreamCutter::new(Vec::new(), Offset(100), state, Offset(until), change).unwrap();
        for piece in bytes.chunks(piece.max(1)) {
            if !cutter.feed(piece, 5_000).unwrap() {
                break;
            }
        }
        let (mut file, report) = cutter.finish().unwrap();
        file.truncate(usize::try_from(report.length).unwrap());
        (file, report)
    }

    const ALL: [&str; 8] =
        ["SELECT 0", "SET a 1", "PING", "MULTI", "SET b 2", "SET c 3", "EXEC", "REPLCONF GETACK *"];

    #[test]
    fn a_stream_ends_behind_a_whole_command_outside_a_transaction() {
        let whole = stream(&ALL);
        let before = stream(&ALL[..2]);
        let with = stream(&["SELECT 0", "SET a 1", "MULTI", "SET b 2", "SET c 3", "EXEC"]);
        let exec_end = 100 + stream(&ALL[..7]).len() as u64;
        for until in 100..=100 + whole.len() as u64 {
            for piece in [1, 7, whole.len()] {
                let (file, report) = cut(&whole, until, piece, TtlChange::KEEP);
                assert!(report.end.0 <= until);
                let expected = if until >= exec_end {
                    &with[..]
                } else if until >= 100 + before.len() as u64 {
                    &before
                } else if until >= 100 + command("SELECT 0").len() as u64 {
                    &before[..command("SELECT 0").len()]
                } else {
                    &[]
                };
                assert_eq!(file, expected, "until {until}, pieces of {piece}");
            }
        }
    }

    #[test]
    fn commands_are_counted_where_they_went() {
        let bytes = stream(&["SELECT 0", "SET a 1", "SELECT 3", "SET b 2", "DEL b"]);
        let (_, report) = cut(&bytes, u64::MAX, 11, TtlChange::KEEP);
        assert_eq!(report.databases.get(&3), Some(&2));
        assert_eq!(report.end.0, 100 + bytes.len() as u64);
    }

    #[test]
    fn expiries_are_changed_on_the_way_whatever_the_pieces() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let change = TtlChange::new(TtlPolicy::Shift, at(10_000), at(70_000));
        let bytes = stream(&["SELECT 0", "SET a 1 PXAT 20000", "SETEX b 9 v", "PEXPIREAT a 30000"]);
        let expected = stream(&["SELECT 0", "SET a 1 PXAT 80000", "SET b v PXAT 74000", "PEXPIREAT a 90000"]);
        for piece in 1..bytes.len() {
            let (file, report) = cut(&bytes, u64::MAX, piece, change);
            assert_eq!(file, expected);
            assert_eq!(report.changed, 3);
        }
    }

    #[test]
    fn large_values_pass_by_and_those_that_expire_are_changed_too() {
        let value = "x".repeat(3 * HELD);
        let bytes = stream(&[&format!("SET a {value} PXAT 20000"), &format!("APPEND a {value}")]);
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let change = TtlChange::new(TtlPolicy::Strip, at(10_000), at(70_000));
        let (file, _) = cut(&bytes, u64::MAX, 64 << 10, change);
        assert_eq!(file, stream(&[&format!("SET a {value}"), &format!("APPEND a {value}")]));
    }

    #[test]
    fn the_database_of_the_base_is_selected_first() {
        let state = StreamState { database: Some(7), in_transaction: false };
        let cutter =
            StreamCutter::new(Vec::new(), Offset(1), state, Offset(u64::MAX), TtlChange::KEEP).unwrap();
        let (file, report) = cutter.finish().unwrap();
        assert_eq!(file, command("SELECT 7"));
        assert_eq!(report.length, file.len() as u64);
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let state = StreamState::default();
        let mut cutter =
            StreamCutter::new(Vec::new(), Offset(1), state, Offset(u64::MAX), TtlChange::KEEP).unwrap();
        assert!(matches!(cutter.feed(b"SET a 1\r\n", 0), Err(CutError::Stream { .. })));
    }

    proptest! {
        /// Whatever the words, the policy and the pieces: what comes out is as many whole commands.
        #[test]
        fn a_stream_that_was_cut_is_a_stream_again(
            commands in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![
                "SET", "GETEX", "HSETEX", "HGETEX", "MSETEX", "PEXPIREAT", "EXPIRE", "HEXPIRE", "RESTORE", "SETEX", "PX",
                "EXAT", "FIELDS", "ABSTTL", "MULTI", "EXEC", "PING", "SELECT", "7", "99999", "", "\r\n", "$3",
            ]), 1..7), 0..30),
            policy in prop::sample::select(vec![TtlPolicy::Keep, TtlPolicy::Shift, TtlPolicy::Strip]),
            piece in 1_usize..90,
        ) {
            let at = |millis| Timestamp::from_millisecond(millis).unwrap();
            let change = TtlChange::new(policy, at(10_000), at(70_000));
            let bytes: Vec<u8> = commands.iter().flat_map(|words| {
                let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
                words.iter().for_each(|word| bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes()));
                bytes
            }).collect();
            let (file, report) = cut(&bytes, u64::MAX, piece, change);
            let mut scanner = CommandScanner::new(Offset(0), StreamState::default());
            let mut count = 0;
            scanner.scan(&file, |_| count += 1).unwrap();
            prop_assert_eq!(scanner.boundary(), Offset(file.len() as u64));
            prop_assert_eq!(count, report.commands);
        }

        #[test]
        fn keeping_changes_nothing_but_fillers(
            commands in prop::collection::vec(prop::sample::select(ALL.to_vec()), 0..40),
            piece in 1_usize..50,
        ) {
            let commands: Vec<_> = std::iter::once("SELECT 1").chain(commands).collect();
            let bytes = stream(&commands);
            let (file, report) = cut(&bytes, u64::MAX, piece, TtlChange::KEEP);
            let last_cut = {
                let mut open = false;
                let mut last = 0;
                for (number, command) in commands.iter().enumerate() {
                    match *command {
                        "MULTI" => open = true,
                        "EXEC" => open = false,
                        _ => {}
                    }
                    if !open {
                        last = number + 1;
                    }
                }
                last
            };
            let kept: Vec<_> = commands[..last_cut]
                .iter()
                .filter(|command| !command.starts_with("PING") && !command.starts_with("REPLCONF"))
                .copied()
                .collect();
            prop_assert_eq!(file, stream(&kept));
            prop_assert_eq!(report.end.0, 100 + stream(&commands[..last_cut]).len() as u64);
        }
    }
}
