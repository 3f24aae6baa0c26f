//! The push parser of RDB files: a stack of what comes next, and bytes to skip.
//!
//! [`Parser::advance`] takes from the front of what is at hand as much as it understands at once: one small primitive
//! (at most [`LONGEST`] bytes, else it asks for more), or any number of bytes of a value that is skipped.

use super::RdbError;
use super::elements::{Item, Task, tasks_of, tasks_of_type};
use super::facts::Magic;
use super::kept::{Encoding, Keep};

/// Bytes of the longest primitive: the header of a compressed string.
pub(super) const LONGEST: usize = 19;
/// Newest versions whose types are all known.
pub(super) const NEWEST_REDIS: u32 = 12;
pub(super) const NEWEST_VALKEY: u32 = 80;
/// Bytes kept of an auxiliary field or a function library.
const KEPT: usize = 4096;
/// A whole listpack that is kept for a rewrite has at most that many bytes.
const LARGEST_LISTPACK: u64 = 64 << 20;

const EOF: u8 = 255;
const SELECTDB: u8 = 254;
const EXPIRE_SECONDS: u8 = 253;
const EXPIRE_MILLISECONDS: u8 = 252;
const RESIZEDB: u8 = 251;
const AUX: u8 = 250;
const FREQ: u8 = 249;
const IDLE: u8 = 248;
const MODULE_AUX: u8 = 247;
const FUNCTION: u8 = 245;
const SLOT_INFO: u8 = 244;

/// What was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Nothing yet: more bytes are needed.
    More,
    /// Bytes without a meaning of their own.
    Bytes,
    /// Magic and version.
    Header { magic: Magic, version: u32 },
    /// An expiry of the next key, in milliseconds; the piece is its opcode and number.
    Expire { at: i64, seconds: bool },
    /// The type of a key: a key begins.
    Key { kind: u8 },
    /// Keys that follow are in this database.
    Database(u32),
    /// An auxiliary field.
    Aux { name: Vec<u8>, value: Vec<u8> },
    /// The beginning of the code of a function library.
    Function(Vec<u8>),
    /// Earliest expiry of the fields of a hash, in milliseconds, little-endian; 8 bytes.
    FieldExpiry(i64),
    /// The expiry of a field relative to the earliest one of its hash, 0 for none; a length.
    FieldTtl,
    /// Bytes of a listpack that are kept until it is whole.
    Withheld,
    /// The whole listpack of a hash whose fields expire; the piece is its last bytes.
    Listpack(Vec<u8>),
    /// Something that is not known; everything behind it passes by unseen.
    Unknown(String),
    /// The end mark; 8 bytes of checksum follow if the version has one.
    End,
}

/// Header of a string: its own length, that of its content as stored, and how that is encoded.
struct StringHeader {
    header: usize,
    content: u64,
    encoding: Encoding,
}

/// A length: its own size and its value.
struct Length {
    size: usize,
    value: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Parser {
    stack: Vec<Task>,
    /// Bytes of a value that are still to be skipped.
    skip: u64,
    keep: Option<Keep>,
    magic: Magic,
    version: u32,
    aux_name: Vec<u8>,
    withhold: bool,
    at: u64,
    opaque: bool,
    /// Where the end mark ends.
    end: Option<u64>,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self {
            stack: vec![Task::Opcode, Task::Header],
            skip: 0,
            keep: None,
            magic: Magic::Redis,
            version: 0,
            aux_name: Vec::new(),
            withhold: false,
            at: 0,
            opaque: false,
            end: None,
        }
    }

    /// Keeps listpacks whose fields expire, to rewrite them.
    pub(super) fn withhold_listpacks(mut self) -> Self {
        self.withhold = true;
        self
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Bytes behind the end mark; `None` before it.
    pub(super) fn behind_end(&self) -> Option<u64> {
        self.end.map(|end| self.at - end)
    }

    /// Whether something unknown was met.
    pub(super) fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Understands what it can at the front of `input` and says how many bytes that were.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<(usize, What), RdbError> {
        let (taken, what) = self.step(input)?;
        self.at += taken as u64;
        Ok((taken, what))
    }

    fn step(&mut self, input: &[u8]) -> Result<(usize, What), RdbError> {
        if self.opaque {
            return Ok((input.len(), What::Bytes));
        }
        if self.skip > 0 {
            return self.skip(input);
        }
        let Some(task) = self.stack.pop() else {
            return Ok((input.len(), What::Bytes));
        };
        match self.task(&task, input) {
            Ok((0, What::More)) => {
                self.stack.push(task);
                Ok((0, What::More))
            }
            // What a version that is newer than this code means is not for it to judge.
            Err(RdbError::Damaged { problem, .. }) if self.is_newer() => Ok(self
                .give_up(input, format!("version {} is newer than this program: {problem}", self.version))),
            other => other,
        }
    }

    fn is_newer(&self) -> bool {
        match self.magic {
            Magic::Redis => self.version > NEWEST_REDIS,
            Magic::Valkey => self.version > NEWEST_VALKEY,
        }
    }

    fn give_up(&mut self, input: &[u8], reason: String) -> (usize, What) {
        self.opaque = true;
        self.stack.clear();
        (input.len(), What::Unknown(reason))
    }

    fn damaged<T>(&self, problem: &'static str) -> Result<T, RdbError> {
        Err(RdbError::Damaged { at: self.at, problem })
    }

    fn task(&mut self, task: &Task, input: &[u8]) -> Result<(usize, What), RdbError> {
        let more = Ok((0, What::More));
        match *task {
            Task::Header => self.header(input),
            Task::Opcode => match input.first() {
                Some(&opcode) => self.opcode(opcode, input),
                None => more,
            },
            Task::Expire { seconds } => self.expiry(input, seconds),
            Task::Skip(bytes) => {
                self.skip = bytes;
                Ok((0, What::Bytes))
            }
            Task::Lengths(count) => match self.length(input)? {
                Some(length) => {
                    if count > 1 {
                        self.stack.push(Task::Lengths(count - 1));
                    }
                    Ok((length.size, What::Bytes))
                }
                None => more,
            },
            Task::Strings(0) | Task::Repeat(0, _) => Ok((0, What::Bytes)),
            Task::Strings(count) => self.strings(input, count),
            Task::Keep(item) => self.keep_string(input, item),
            Task::Count(element) => match self.length(input)? {
                Some(length) => {
                    self.stack.push(Task::Repeat(length.value, element));
                    Ok((length.size, What::Bytes))
                }
                None => more,
            },
            Task::Repeat(count, element) => {
                if let Some(strings) = element.strings() {
                    let all =
                        count.checked_mul(strings).map_or_else(|| self.damaged("too many elements"), Ok)?;
                    self.stack.push(Task::Strings(all));
                } else {
                    self.stack.push(Task::Repeat(count - 1, element));
                    self.stack.extend(tasks_of(element).iter().rev().cloned());
                }
                Ok((0, What::Bytes))
            }
            Task::OldDouble => match input.first() {
                None => more,
                // Not a number and the infinities have no digits.
                Some(253..=255) => Ok((1, What::Bytes)),
                Some(&length) => {
                    self.skip = u64::from(length);
                    Ok((1, What::Bytes))
                }
            },
            Task::ModuleValue => self.module_value(input),
            Task::SelectDatabase => match self.length(input)? {
                Some(length) => {
                    let number =
                        u32::try_from(length.value).ok().filter(|number| i32::try_from(*number).is_ok());
                    match number {
                        Some(number) => Ok((length.size, What::Database(number))),
                        None => self.damaged("a database with an impossible number"),
                    }
                }
                None => more,
            },
            Task::FieldTtl => match self.length(input)? {
                Some(length) => Ok((length.size, What::FieldTtl)),
                None => more,
            },
            Task::FieldExpiry => match input.first_chunk::<8>() {
                Some(bytes) => Ok((8, What::FieldExpiry(i64::from_le_bytes(*bytes)))),
                None => more,
            },
        }
    }

    fn skip(&mut self, input: &[u8]) -> Result<(usize, What), RdbError> {
        if input.is_empty() {
            return Ok((0, What::More));
        }
        let taken = usize::try_from(self.skip).map_or(input.len(), |skip| skip.min(input.len()));
        self.skip -= taken as u64;
        let Some(keep) = &mut self.keep else { return Ok((taken, What::Bytes)) };
        let room = keep.limit.saturating_sub(keep.bytes.len()).min(taken);
        keep.bytes.extend_from_slice(&input[..room]);
        if self.skip == 0 { self.kept(taken) } else { Ok((taken, keep.passing())) }
    }

    /// As many strings as are whole in `input`, and the part of one more.
    fn strings(&mut self, input: &[u8], count: u64) -> Result<(usize, What), RdbError> {
        let (mut taken, mut left) = (0, count);
        while left > 0 && self.skip == 0 {
            let Some(string) = self.string(&input[taken..])? else { break };
            left -= 1;
            taken += string.header;
            let rest = input.len() - taken;
            match usize::try_from(string.content) {
                Ok(content) if content <= rest => taken += content,
                _ => {
                    self.skip = string.content - rest as u64;
                    taken = input.len();
                }
            }
        }
        if taken == 0 {
            return Ok((0, What::More));
        }
        if left > 0 {
            self.stack.push(Task::Strings(left));
        }
        Ok((taken, What::Bytes))
    }

    fn header(&mut self, input: &[u8]) -> Result<(usize, What), RdbError> {
        const SIZE: usize = 9;
        let magic_of = |text: &[u8]| RdbError::Magic { found: String::from_utf8_lossy(text).into_owned() };
        let Some(header) = input.get(..SIZE) else {
            // Soon enough for an answer of a server that is none.
            let known = |magic: &[u8]| magic.iter().zip(input).all(|(a, b)| a == b);
            return if known(b"REDIS") || known(b"VALKEY") {
                Ok((0, What::More))
            } else {
                Err(magic_of(input))
            };
        };
        let (magic, digits) = match header {
            [b'R', b'E', b'D', b'I', b'S', digits @ ..] => (Magic::Redis, digits),
            [b'V', b'A', b'L', b'K', b'E', b'Y', digits @ ..] => (Magic::Valkey, digits),
            _ => return Err(magic_of(header)),
        };
        let number = digits.iter().try_fold(0_u32, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'))
        });
        match number {
            Some(version) if version > 0 => {
                self.magic = magic;
                self.version = version;
                Ok((SIZE, What::Header { magic, version }))
            }
            _ => Err(magic_of(header)),
        }
    }

    fn opcode(&mut self, opcode: u8, input: &[u8]) -> Result<(usize, What), RdbError> {
        self.stack.push(Task::Opcode);
        let tasks: &[Task] = match opcode {
            EOF => {
                self.stack.clear();
                self.end = Some(self.at + 1);
                return Ok((1, What::End));
            }
            // Taken together with its number, so that a rewrite sees both.
            EXPIRE_SECONDS | EXPIRE_MILLISECONDS => {
                self.stack.push(Task::Expire { seconds: opcode == EXPIRE_SECONDS });
                return Ok((0, What::Bytes));
            }
            SELECTDB => &[Task::SelectDatabase],
            RESIZEDB => &[Task::Lengths(2)],
            AUX => &[Task::Keep(Item::AuxName), Task::Keep(Item::AuxValue)],
            FREQ => &[Task::Skip(1)],
            IDLE => &[Task::Lengths(1)],
            MODULE_AUX => &[Task::Lengths(3), Task::ModuleValue],
            FUNCTION => &[Task::Keep(Item::Function)],
            SLOT_INFO => &[Task::Lengths(3)],
            kind => {
                let Some(tasks) = tasks_of_type(kind, self.magic) else {
                    return Ok(self.give_up(input, format!("type {kind} is not known to this program")));
                };
                self.stack.extend(tasks.iter().rev().cloned());
                // The key.
                self.stack.push(Task::Strings(1));
                return Ok((1, What::Key { kind }));
            }
        };
        self.stack.extend(tasks.iter().rev().cloned());
        Ok((1, What::Bytes))
    }

    fn expiry(&self, input: &[u8], seconds: bool) -> Result<(usize, What), RdbError> {
        if seconds {
            let Some(bytes) = input.get(1..).and_then(<[u8]>::first_chunk::<4>) else {
                return Ok((0, What::More));
            };
            return Ok((5, What::Expire { at: i64::from(i32::from_le_bytes(*bytes)) * 1000, seconds }));
        }
        let Some(bytes) = input.get(1..).and_then(<[u8]>::first_chunk::<8>) else {
            return Ok((0, What::More));
        };
        Ok((9, What::Expire { at: i64::from_le_bytes(*bytes), seconds }))
    }

    fn module_value(&mut self, input: &[u8]) -> Result<(usize, What), RdbError> {
        let Some(length) = self.length(input)? else { return Ok((0, What::More)) };
        let next = match length.value {
            0 => return Ok((length.size, What::Bytes)),
            1 | 2 => Task::Lengths(1),
            3 => Task::Skip(4),
            4 => Task::Skip(8),
            5 => Task::Strings(1),
            _ => return self.damaged("a module's value with an impossible part"),
        };
        self.stack.extend([Task::ModuleValue, next]);
        Ok((length.size, What::Bytes))
    }

    fn keep_string(&mut self, input: &[u8], item: Item) -> Result<(usize, What), RdbError> {
        let Some(string) = self.string(input)? else { return Ok((0, What::More)) };
        let limit = match item {
            Item::Listpack if !self.withhold => {
                self.skip = string.content;
                return Ok((string.header, What::Bytes));
            }
            Item::Listpack => {
                let plain = match string.encoding {
                    Encoding::Lzf { plain } => plain,
                    _ => string.content,
                };
                if plain.max(string.content) > LARGEST_LISTPACK {
                    let problem = format!("a hash of {plain} bytes whose fields expire");
                    return Err(RdbError::CannotShift { problem });
                }
                usize::try_from(LARGEST_LISTPACK).unwrap_or(usize::MAX)
            }
            _ => KEPT,
        };
        let keep = Keep { item, encoding: string.encoding, limit, bytes: Vec::new() };
        let passing = keep.passing();
        self.keep = Some(keep);
        self.skip = string.content;
        if string.content == 0 { self.kept(string.header) } else { Ok((string.header, passing)) }
    }

    /// A kept string is whole.
    fn kept(&mut self, taken: usize) -> Result<(usize, What), RdbError> {
        let Some(keep) = self.keep.take() else { return Ok((taken, What::Bytes)) };
        let Some(content) = keep.content() else { return self.damaged("a compressed string that is none") };
        let what = match keep.item {
            Item::AuxName => {
                self.aux_name = content;
                What::Bytes
            }
            Item::AuxValue => What::Aux { name: std::mem::take(&mut self.aux_name), value: content },
            Item::Function => What::Function(content),
            Item::Listpack => What::Listpack(content),
        };
        Ok((taken, what))
    }

    /// A plain length; `None` when more bytes are needed.
    fn length(&self, input: &[u8]) -> Result<Option<Length>, RdbError> {
        match self.length_or_encoding(input)? {
            Some(Ok(length)) => Ok(Some(length)),
            Some(Err(_)) => self.damaged("an encoded string in place of a length"),
            None => Ok(None),
        }
    }

    /// A length, or the number of an encoding.
    fn length_or_encoding(&self, input: &[u8]) -> Result<Option<Result<Length, u8>>, RdbError> {
        let Some(&first) = input.first() else { return Ok(None) };
        let length = |size, value| Ok(Some(Ok(Length { size, value })));
        match first {
            0x00..=0x3f => length(1, u64::from(first)),
            0x40..=0x7f => match input.get(1) {
                Some(&low) => length(2, u64::from(first & 0x3f) << 8 | u64::from(low)),
                None => Ok(None),
            },
            0x80 => match input[1..].first_chunk::<4>() {
                Some(bytes) => length(5, u64::from(u32::from_be_bytes(*bytes))),
                None => Ok(None),
            },
            0x81 => match input[1..].first_chunk::<8>() {
                Some(bytes) => length(9, u64::from_be_bytes(*bytes)),
                None => Ok(None),
            },
            0xc0..=0xff => Ok(Some(Err(first & 0x3f))),
            0x82..=0xbf => self.damaged("a length with an impossible form"),
        }
    }

    fn string(&self, input: &[u8]) -> Result<Option<StringHeader>, RdbError> {
        let integer = |content| Ok(Some(StringHeader { header: 1, content, encoding: Encoding::Integer }));
        match self.length_or_encoding(input)? {
            None => Ok(None),
            Some(Ok(Length { size, value })) => {
                Ok(Some(StringHeader { header: size, content: value, encoding: Encoding::Raw }))
            }
            Some(Err(0)) => integer(1),
            Some(Err(1)) => integer(2),
            Some(Err(2)) => integer(4),
            Some(Err(3)) => {
                let Some(stored) = self.length(&input[1..])? else { return Ok(None) };
                let Some(plain) = self.length(&input[1 + stored.size..])? else { return Ok(None) };
                let encoding = Encoding::Lzf { plain: plain.value };
                let header = 1 + stored.size + plain.size;
                Ok(Some(StringHeader { header, content: stored.value, encoding }))
            }
            Some(Err(_)) => self.damaged("a string with an impossible encoding"),
        }
    }
}
