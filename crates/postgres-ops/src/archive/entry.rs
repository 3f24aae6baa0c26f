use std::fmt;

use super::wire::{Cursor, Stop, decode_magnitude, parse_decimal};
use super::{ArchiveText, Format, Header};

/// Number of an entry within one archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DumpId(u32);

impl DumpId {
    /// Takes a number that `pg_dump` could have given: 1 to 2³¹ − 1.
    pub fn new(number: u32) -> Option<Self> {
        (1..=i32::MAX as u32).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    pub(super) fn from_int(number: i32) -> Option<Self> {
        u32::try_from(number).ok().and_then(Self::new)
    }

    pub(super) fn to_int(self) -> i32 {
        i32::try_from(self.0).expect("checked when the id was made")
    }
}

impl fmt::Display for DumpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of the three passes of a restore an entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Section {
    /// Goes with whatever it belongs to: comments, privileges.
    None,
    /// Definitions that must exist before the data.
    PreData,
    /// Rows, large objects, positions of sequences.
    Data,
    /// Indexes, constraints, triggers: cheaper once the data is there.
    PostData,
}

/// Where the data of an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataPosition {
    /// The entry has no data.
    NoData,
    /// It has data, at a place that was unknown when the entry was written: the archive went down a pipe.
    Unknown,
    /// Its block begins at this offset of the file.
    At(u64),
    /// It is in this file of the directory or tar archive.
    File(ArchiveText),
}

/// One object of the dump.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TocEntry {
    /// Number of the entry.
    pub dump_id: DumpId,
    /// Whether `pg_dump` had a routine to write data for it.
    pub had_dumper: bool,
    /// Catalog that describes the object, by the object id of that catalog; 0 if none does.
    pub table_oid: u32,
    /// Object id within that catalog, on the dumped server.
    pub oid: u32,
    /// Name of the object.
    pub tag: ArchiveText,
    /// Kind of entry, such as `TABLE DATA` or `FK CONSTRAINT`.
    pub desc: ArchiveText,
    /// Pass of the restore.
    pub section: Section,
    /// SQL that creates it.
    pub defn: ArchiveText,
    /// SQL that drops it.
    pub drop_stmt: ArchiveText,
    /// `COPY … FROM stdin`, if its data is COPY text. It may name another table than `tag`: the root of a partition
    /// that was dumped with `--load-via-partition-root`.
    pub copy_stmt: Option<ArchiveText>,
    /// Schema that holds it, if any does.
    pub namespace: Option<ArchiveText>,
    /// Tablespace, if not the default.
    pub tablespace: Option<ArchiveText>,
    /// Table access method, since format 1.14.
    pub access_method: Option<ArchiveText>,
    /// Kind of relation as in `pg_class.relkind`, since format 1.16.
    pub relkind: Option<char>,
    /// Role that owns it; empty if none does.
    pub owner: ArchiveText,
    /// Entries that must be restored before it.
    pub dependencies: Vec<DumpId>,
    /// Where its data is.
    pub data: DataPosition,
    /// Offset in the archive of the field behind `data`.
    pub(super) position_field: u64,
}

impl TocEntry {
    /// Whether the archive holds data for this entry.
    pub fn has_data(&self) -> bool {
        self.data != DataPosition::NoData
    }

    /// Whether this entry is the rows of a table.
    pub fn is_table_data(&self) -> bool {
        self.desc == "TABLE DATA"
    }

    /// Whether its data is COPY text; rows dumped as `INSERT` are not.
    pub fn is_copy_text(&self) -> bool {
        self.copy_stmt.as_ref().is_some_and(|statement| statement.as_bytes().starts_with(b"COPY "))
    }

    /// Everything up to the dependencies; these come one by one, for there may be many.
    pub(super) fn parse_fields(cursor: &mut Cursor<'_>, header: &Header) -> Result<Self, Stop> {
        // Only slices until the last field is there: an entry may be tried again and again while it arrives.
        let dump_id = dump_id(cursor)?;
        let had_dumper = cursor.int()? != 0;
        let table_oid = cursor.number_text()?;
        let oid = cursor.number_text()?;
        let tag = cursor.text()?;
        let desc = cursor.text()?;
        let section = section(cursor)?;
        let defn = cursor.text()?;
        let drop_stmt = cursor.text()?;
        let copy_stmt = cursor.text()?;
        let namespace = cursor.text()?;
        let tablespace = cursor.text()?;
        let access_method = if header.version.has_access_method() { cursor.text()? } else { None };
        let relkind = if header.version.has_relation_kind() { relkind(cursor)? } else { None };
        let owner = cursor.text()?;
        // Once said whether rows had an oid column; a constant since PostgreSQL 12.
        let _with_oids = cursor.text()?;
        Ok(Self {
            dump_id,
            had_dumper,
            table_oid,
            oid,
            tag: text(tag),
            desc: text(desc),
            section,
            defn: text(defn),
            drop_stmt: text(drop_stmt),
            copy_stmt: copy_stmt.map(ArchiveText::from),
            namespace: namespace.map(ArchiveText::from),
            tablespace: tablespace.map(ArchiveText::from),
            access_method: access_method.map(ArchiveText::from),
            relkind,
            owner: text(owner),
            dependencies: Vec::new(),
            data: DataPosition::NoData,
            position_field: 0,
        })
    }

    /// One more dependency, or the null string behind the last.
    pub(super) fn parse_dependency(cursor: &mut Cursor<'_>) -> Result<Option<DumpId>, Stop> {
        let Some(text) = cursor.text()? else { return Ok(None) };
        let id = parse_decimal(text).and_then(DumpId::new);
        id.map(Some).ok_or_else(|| cursor.corrupt("a dependency that is no entry number"))
    }

    /// The last field: where the data is.
    pub(super) fn parse_position(&mut self, cursor: &mut Cursor<'_>, header: &Header) -> Result<(), Stop> {
        self.position_field = cursor.offset();
        self.data = match header.format {
            Format::Custom => position(cursor, header.offset_size)?,
            Format::Files => match cursor.text()? {
                None | Some(b"") => DataPosition::NoData,
                Some(name) => DataPosition::File(name.into()),
            },
        };
        Ok(())
    }
}

fn dump_id(cursor: &mut Cursor<'_>) -> Result<DumpId, Stop> {
    DumpId::from_int(cursor.int()?).ok_or_else(|| cursor.corrupt("an entry number out of range"))
}

fn section(cursor: &mut Cursor<'_>) -> Result<Section, Stop> {
    match cursor.int()? {
        1 => Ok(Section::None),
        2 => Ok(Section::PreData),
        3 => Ok(Section::Data),
        4 => Ok(Section::PostData),
        _ => Err(cursor.corrupt("an unknown section")),
    }
}

fn relkind(cursor: &mut Cursor<'_>) -> Result<Option<char>, Stop> {
    match u8::try_from(cursor.int()?) {
        Ok(0) => Ok(None),
        Ok(letter) if letter.is_ascii_graphic() => Ok(Some(char::from(letter))),
        _ => Err(cursor.corrupt("an unknown kind of relation")),
    }
}

fn position(cursor: &mut Cursor<'_>, size: usize) -> Result<DataPosition, Stop> {
    let state = cursor.byte()?;
    let offset = decode_magnitude(cursor.take(size)?);
    match (state, offset) {
        (1, _) => Ok(DataPosition::Unknown),
        (2, Some(offset)) => Ok(DataPosition::At(offset)),
        (3, _) => Ok(DataPosition::NoData),
        _ => Err(cursor.corrupt("an unknown state of data")),
    }
}

fn text(bytes: Option<&[u8]>) -> ArchiveText {
    bytes.unwrap_or_default().into()
}
