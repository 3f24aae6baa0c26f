use std::fmt;
use std::num::NonZeroU32;

/// A timeline of a cluster, printed as in file names (`00000002`). Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timeline(NonZeroU32);

impl Timeline {
    /// The timeline of a new cluster.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// `None` for 0, which PostgreSQL uses for "none".
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0.get()
    }

    /// Reads the eight hexadecimal digits of a file name.
    pub(super) fn from_digits(digits: &str) -> Option<Self> {
        hex(digits).and_then(Self::new)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

/// Exactly eight upper-case hexadecimal digits, as PostgreSQL writes them.
pub(super) fn hex(digits: &str) -> Option<u32> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    let is_number = digits.len() == 8 && digits.bytes().all(is_digit);
    if is_number { u32::from_str_radix(digits, 16).ok() } else { None }
}
