//! The writing half of the data path, from plain chunks to parts ready for upload.
//!
//! ```text
//! source ─▶ frames ─▶ compress (several at once, blocking threads) ─▶ in order ─▶ encrypt, hash, cut ─▶ parts
//!           2 MiB      room per frame, shared by all objects                       5 MiB, room per part
//! ```
//!
//! Memory is bounded by two numbers whatever the size of the data: frames in flight × frame size and parts in
//! flight × part size (see [`crate::set_writer::DataPath`]). Both are budgets of a whole set, so two objects written
//! at the same time share them. A chunk that has the size of a frame is compressed where it lies; [`FrameBuffers`] are for making them.
//!
//! [`read_frames`] makes such chunks out of a pipe or file. The reading half is [`crate::object_reader`].

pub(crate) mod assembler;
pub(crate) mod buffers;
mod frames;
pub(crate) mod parts;
pub(crate) mod room;

pub use buffers::{Buffer, FrameBuffers};
pub(crate) use frames::Frames;
pub use frames::read_frames;
