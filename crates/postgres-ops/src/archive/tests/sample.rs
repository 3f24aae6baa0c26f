//! Writes archives by hand, in every format version.

use crate::archive::wire::encode_int;

/// A table or large-object entry with its data.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// Rows of COPY text, cut into chunks of this many bytes.
    Rows(Vec<Vec<u8>>, usize),
    /// Large objects: number and content.
    Objects(Vec<(u32, Vec<u8>)>),
}

#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) minor: u8,
    pub(super) int_size: usize,
    pub(super) compression: u8,
    pub(super) data: Vec<Data>,
}

impl Sample {
    pub(super) fn new(data: Vec<Data>) -> Self {
        Self { minor: 14, int_size: 4, compression: 0, data }
    }

    /// Three tables, one of them empty, and two large objects.
    pub(super) fn ordinary() -> Self {
        let rows =
            |count: usize| (0..count).map(|n| format!("{n}\trow {n}").into_bytes()).collect::<Vec<_>>();
        Self::new(vec![
            Data::Rows(rows(7), 13),
            Data::Rows(Vec::new(), 100),
            Data::Rows(rows(120), 64),
            Data::Objects(vec![(16_400, b"blob\n".to_vec()), (4_000_000_000, Vec::new())]),
        ])
    }

    /// Entry number of the n-th data.
    pub(super) fn id(index: usize) -> u32 {
        101 + index as u32
    }

    pub(super) fn toc_bytes(&self) -> Vec<u8> {
        let mut out = Writer { bytes: Vec::new(), int_size: self.int_size };
        out.header(self.minor, self.compression);
        out.int(1 + 2 * self.data.len() as i32);
        out.entry(self.minor, &Entry { id: 1, desc: "ENCODING", tag: "ENCODING", ..Entry::default() });
        for (index, data) in self.data.iter().enumerate() {
            let table = 11 + index as u32;
            let tag = format!("t{index}");
            out.entry(self.minor, &Entry { id: table, desc: "TABLE", tag: &tag, ..Entry::default() });
            let id = Self::id(index);
            let entry = match data {
                Data::Rows(..) => Entry {
                    id,
                    desc: "TABLE DATA",
                    tag: &tag,
                    has_data: true,
                    is_copy: true,
                    after: Some(table),
                },
                Data::Objects(_) => {
                    Entry { id, desc: "BLOBS", tag: "BLOBS", has_data: true, is_copy: false, after: None }
                }
            };
            out.entry(self.minor, &entry);
        }
        out.bytes
    }

    pub(super) fn block_bytes(&self, index: usize) -> Vec<u8> {
        let mut out = Writer { bytes: Vec::new(), int_size: self.int_size };
        let id = Self::id(index) as i32;
        match &self.data[index] {
            Data::Rows(rows, chunk) => {
                out.bytes.push(1);
                out.int(id);
                let mut text: Vec<u8> = rows.iter().flat_map(|row| [&row[..], b"\n"].concat()).collect();
                text.extend(b"\\.\n\n\n");
                text.chunks(*chunk).for_each(|piece| out.text(Some(piece)));
                out.int(0);
            }
            Data::Objects(objects) => {
                out.bytes.push(3);
                out.int(id);
                for (oid, content) in objects {
                    out.int(oid.cast_signed());
                    content.chunks(3).for_each(|piece| out.text(Some(piece)));
                    out.int(0);
                }
                out.int(0);
            }
        }
        out.bytes
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.toc_bytes();
        (0..self.data.len()).for_each(|index| bytes.extend(self.block_bytes(index)));
        bytes
    }
}

#[derive(Clone, Copy, Default)]
struct Entry<'a> {
    id: u32,
    desc: &'a str,
    tag: &'a str,
    has_data: bool,
    is_copy: bool,
    after: Option<u32>,
}

struct Writer {
    bytes: Vec<u8>,
    int_size: usize,
}

impl Writer {
    fn int(&mut self, value: i32) {
        encode_int(value, self.int_size, &mut self.bytes);
    }

    fn text(&mut self, text: Option<&[u8]>) {
        match text {
            None => self.int(-1),
            Some(text) => {
                self.int(text.len() as i32);
                self.bytes.extend(text);
            }
        }
    }

    fn header(&mut self, minor: u8, compression: u8) {
        self.bytes.extend(b"PGDMP");
        self.bytes.extend([1, minor, 0, self.int_size as u8, 8, 1]);
        if minor >= 15 {
            self.bytes.push(compression);
        } else {
            self.int(if compression == 0 { 0 } else { -1 });
        }
        [9, 30, 21, 22, 10, 126, 0].into_iter().for_each(|part| self.int(part));
        [b"shop".as_slice(), b"15.18", b"15.18"].into_iter().for_each(|text| self.text(Some(text)));
    }

    fn entry(&mut self, minor: u8, entry: &Entry<'_>) {
        self.int(entry.id as i32);
        self.int(i32::from(entry.has_data));
        self.text(Some(b"1259"));
        self.text(Some(b"16385"));
        self.text(Some(entry.tag.as_bytes()));
        self.text(Some(entry.desc.as_bytes()));
        self.int(if entry.has_data { 3 } else { 2 });
        self.text(Some(b"SET client_encoding = 'UTF8';\n"));
        self.text(Some(b""));
        let copy = format!("COPY public.{} (a, b) FROM stdin;\n", entry.tag);
        self.text(entry.is_copy.then_some(copy.as_bytes()));
        self.text(Some(b"public"));
        self.text(None);
        if minor >= 14 {
            self.text(Some(b"heap"));
        }
        if minor >= 16 {
            self.int(i32::from(b'r'));
        }
        self.text(Some(b"alice"));
        self.text(Some(b"false"));
        if let Some(after) = entry.after {
            self.text(Some(after.to_string().as_bytes()));
        }
        self.text(None);
        self.bytes.push(if entry.has_data { 1 } else { 3 });
        self.bytes.extend([0; 8]);
    }
}
