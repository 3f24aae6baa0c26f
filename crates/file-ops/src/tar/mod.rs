//! Tar archives: what this crate writes, and a reader that takes nothing else.
//!
//! The form is POSIX pax over ustar, with the records that GNU tar and bsdtar know for extended attributes, ACLs and holes. So
//! `tar --acls --xattrs --xattrs-include='*' -xpf` restores an archive without us (P5).
//!
//! The reader is strict: it understands the forms that the writer makes, and of those every field. Tar has grown for forty
//! years, and programs that guess what a header may mean have been led out of their folder by it. What is refused is named.

mod header;
mod pax;
mod read;
mod sparse;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Kind, TarEntry, TarProblem, TarReader};
pub use sparse::Extent;
pub use write::{END, Entry, EntryKind, encode, padding};

/// Bytes of a header, and what content is padded to.
pub const RECORD: usize = 512;
