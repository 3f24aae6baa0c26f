//! Compression: whole frames on the way in, a stream of frames on the way out.
//!
//! Every frame is an independent zstd frame (with its length and a checksum of its content) or gzip member, and
//! frames are simply put one after another, so stock `zstd -d` and `gzip -d` open the result and workers can
//! compress frames side by side. An empty object is one empty frame, because the stock tools refuse empty files.

use std::io::{self, BufRead, Read, Write};
use std::sync::{Mutex, PoisonError};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::manifest::Codec;
use crate::pipeline::buffers::{Buffer, Pool};

/// Compressors that are reused from frame to frame, one for every thread that is busy with one.
pub(crate) struct Compressors {
    level: i32,
    idle: Mutex<Vec<zstd::bulk::Compressor<'static>>>,
    outputs: Pool,
}

/// A frame as it will be stored, before encryption.
pub(crate) enum Compressed {
    /// As it came.
    Plain(bytes::Bytes),
    /// Compressed into a buffer that goes back to its pool.
    Buffer(Buffer),
}

impl Compressed {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Buffer(buffer) => buffer,
        }
    }
}

impl Compressors {
    /// Compressors for a zstd level; gzip takes the nearest of its own.
    pub(crate) fn new(level: i32) -> Self {
        Self { level, idle: Mutex::default(), outputs: Pool::default() }
    }

    /// Compresses one frame; blocks for milliseconds.
    pub(crate) fn compress(&self, codec: Codec, frame: bytes::Bytes) -> io::Result<Compressed> {
        match codec {
            Codec::None => Ok(Compressed::Plain(frame)),
            Codec::Zstd => self.zstd(&frame).map(Compressed::Buffer),
            Codec::Gzip => self.gzip(&frame).map(Compressed::Buffer),
        }
    }

    /// Compresses one frame with zstd; blocks for milliseconds.
    pub(crate) fn zstd(&self, frame: &[u8]) -> io::Result<Buffer> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut compressor = match idle {
            Some(compressor) => compressor,
            None => new_compressor(self.level)?,
        };
        let mut output = self.outputs.take(zstd::zstd_safe::compress_bound(frame.len()));
        let result = compressor.compress_to_buffer(frame, &mut *output);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(compressor);
        result.map(|_| output)
    }

    fn gzip(&self, frame: &[u8]) -> io::Result<Buffer> {
        let level = self.level.clamp(1, 9).unsigned_abs();
        let mut output = self.outputs.take(frame.len() / 2);
        let mut encoder = GzEncoder::new(&mut *output, Compression::new(level));
        encoder.write_all(frame)?;
        encoder.finish()?;
        Ok(output)
    }
}

fn new_compressor(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    Ok(compressor)
}

/// Decompresses frames one after another; the end of `input` is the end of the content.
pub(crate) fn decompress<R: BufRead + Send + 'static>(
    codec: Codec,
    input: R,
) -> io::Result<Box<dyn Read + Send>> {
    Ok(match codec {
        Codec::None => Box::new(input),
        Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        Codec::Gzip => Box::new(MultiGzDecoder::new(input)),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn round_trip(codec: Codec, frames: &[&'static [u8]]) -> Vec<u8> {
        let compressors = Compressors::new(3);
        let mut stored = Vec::new();
        for frame in frames {
            let output = compressors.compress(codec, Bytes::from_static(frame)).unwrap();
            stored.extend_from_slice(output.as_slice());
        }
        let mut plain = Vec::new();
        decompress(codec, io::Cursor::new(stored)).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn frames_one_after_another_are_one_stream() {
        for codec in [Codec::None, Codec::Zstd, Codec::Gzip] {
            assert_eq!(round_trip(codec, &[b"one ", b"", b"two"]), b"one two", "{codec:?}");
        }
    }

    #[test]
    fn zstd_frames_carry_their_length_and_a_checksum() {
        let frame = Compressors::new(3).compress(Codec::Zstd, Bytes::from_static(&[7; 1000])).unwrap();
        let frame = frame.as_slice();
        assert_eq!(zstd::zstd_safe::get_frame_content_size(frame).unwrap(), Some(1000));
        assert_eq!(frame[4] & 0b100, 0b100, "the checksum flag of the frame header");
    }
}
