//! Strings whose content matters, while they pass by.

use super::elements::Item;
use super::lzf;
use super::parser::What;

/// A string whose content is kept.
#[derive(Clone, Debug)]
pub(super) struct Keep {
    pub(super) item: Item,
    pub(super) encoding: Encoding,
    pub(super) limit: usize,
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Raw,
    Integer,
    Lzf { plain: u64 },
}

impl Keep {
    /// What its bytes are while they pass by.
    pub(super) fn passing(&self) -> What {
        if self.item == Item::Listpack { What::Withheld } else { What::Bytes }
    }

    /// Its plain content, or the beginning of it.
    pub(super) fn content(&self) -> Option<Vec<u8>> {
        match self.encoding {
            Encoding::Raw => Some(self.bytes.clone()),
            Encoding::Integer => {
                let number = match *self.bytes {
                    [a] => i64::from(i8::from_le_bytes([a])),
                    [a, b] => i64::from(i16::from_le_bytes([a, b])),
                    [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
                    _ => return None,
                };
                Some(number.to_string().into_bytes())
            }
            Encoding::Lzf { plain } => {
                let limit = usize::try_from(plain).unwrap_or(usize::MAX).min(self.limit);
                lzf::decompress(&self.bytes, limit)
            }
        }
    }
}
