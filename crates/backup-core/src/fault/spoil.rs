//! Bytes that arrive otherwise than they were sent.

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt as _};

use crate::store::StoreError;

type Body = BoxStream<'static, Result<Bytes, StoreError>>;

/// The bytes with one bit flipped, if they have it.
pub(super) fn flip(bytes: &Bytes, bit: u64) -> Bytes {
    let mut spoiled = BytesMut::from(bytes.as_ref());
    if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| spoiled.get_mut(at)) {
        *byte ^= 1 << (bit % 8);
    }
    spoiled.freeze()
}

/// The body with that bit flipped.
pub(super) fn flip_in(body: Body, bit: u64) -> Body {
    let chunks = body.scan(bit, |bit, chunk| {
        let spoiled = chunk.map(|bytes| {
            let bits = bytes.len() as u64 * 8;
            let spoiled = if *bit < bits { flip(&bytes, *bit) } else { bytes };
            // Beyond the last bit: flipped once is enough.
            *bit = bit.checked_sub(bits).unwrap_or(u64::MAX);
            spoiled
        });
        std::future::ready(Some(spoiled))
    });
    chunks.boxed()
}

/// The body up to that many bytes, and then the error if there is one.
pub(super) fn cut(body: Body, after: u64, error: Option<StoreError>) -> Body {
    let shorter = body.scan(after, |left, chunk| {
        let done = *left == 0;
        let chunk = chunk.map(|mut bytes| {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
            bytes
        });
        std::future::ready((!done).then_some(chunk))
    });
    shorter.chain(stream::iter(error.map(Err))).boxed()
}
