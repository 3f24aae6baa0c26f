//! Takes in a request body: hashes and stores it off the async threads, checks it, and only then hands it on.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3Result, StdError, s3_error};
use tokio::sync::mpsc;

use super::api::custom_error;
use super::blob::{BlobWriter, Segment};
use super::digest::{Digests, Hashers};

/// Bodies up to this size are hashed where they arrive; it takes well under half a millisecond.
const INLINE: u64 = 64 * 1024;
/// Chunks of the network waiting for the hashing thread; bounds the memory of one upload.
const WAITING: usize = 8;
/// S3's limit for one request.
const MAX_BODY: u64 = 5 * 1024 * 1024 * 1024;

/// A body that arrived whole.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) segment: Segment,
    pub(super) digests: Digests,
}

/// Where a body goes while it arrives.
pub(super) struct Sink {
    writer: BlobWriter,
    hashers: Hashers,
}

impl Sink {
    pub(super) fn new(writer: BlobWriter, hashers: Hashers) -> Self {
        Self { writer, hashers }
    }

    fn write(&mut self, chunk: &Bytes) -> io::Result<()> {
        self.hashers.update(chunk);
        self.writer.write(chunk)
    }

    fn finish(self) -> io::Result<Received> {
        let digests = self.hashers.finish();
        Ok(Received { segment: self.writer.finish()?, digests })
    }
}

/// The length a body must have.
pub(super) fn expected_length(content_length: Option<i64>, headers: &hyper::HeaderMap) -> S3Result<u64> {
    let decoded =
        headers.get("x-amz-decoded-content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    let length = decoded.or(content_length.and_then(|length| u64::try_from(length).ok()));
    match length {
        None => Err(s3_error!(MissingContentLength)),
        Some(length) if length > MAX_BODY => {
            Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"))
        }
        Some(length) => Ok(length),
    }
}

/// Reads `body` to its end into `sink`.
///
/// # Cancel safety
/// When dropped, the bytes taken so far disappear.
pub(super) async fn receive(body: Option<StreamingBlob>, expected: u64, sink: Sink) -> S3Result<Received> {
    let received = match body {
        None => sink.finish().map_err(S3Error::internal_error)?,
        Some(body) if expected <= INLINE => inline(body, sink).await?,
        Some(body) => on_thread(body, sink).await?,
    };
    if received.segment.len != expected {
        return Err(incomplete());
    }
    Ok(received)
}

async fn inline(mut body: StreamingBlob, mut sink: Sink) -> S3Result<Received> {
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(broken_body)?;
        sink.write(&chunk).map_err(S3Error::internal_error)?;
        if sink.writer.len() > INLINE {
            return Err(incomplete());
        }
    }
    sink.finish().map_err(S3Error::internal_error)
}

async fn on_thread(mut body: StreamingBlob, mut sink: Sink) -> S3Result<Received> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(WAITING);
    // `None`: the body broke off, so that what was taken must not be used.
    let (whole, confirmed) = tokio::sync::oneshot::channel::<()>();
    let worker = tokio::task::spawn_blocking(move || -> io::Result<Option<Received>> {
        while let Some(chunk) = receiver.blocking_recv() {
            sink.write(&chunk)?;
        }
        if confirmed.blocking_recv().is_err() {
            return Ok(None);
        }
        sink.finish().map(Some)
    });
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(broken_body)?;
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    // Fails only when the worker is gone with an error, which is read next.
    let _ = whole.send(());
    drop(sender);
    let outcome = worker.await.map_err(S3Error::internal_error)?;
    outcome.map_err(S3Error::internal_error)?.ok_or_else(incomplete)
}

fn incomplete() -> S3Error {
    s3_error!(
        IncompleteBody,
        "You did not provide the number of bytes specified by the Content-Length HTTP header"
    )
}

/// Names what is wrong with the body; the types of the stream's errors are private to the protocol crate.
fn broken_body(error: StdError) -> S3Error {
    let text = error.to_string();
    let mut broken = if text.contains("Sha256Mismatch") {
        let message = "The provided 'x-amz-content-sha256' header does not match what was computed.";
        custom_error("XAmzContentSHA256Mismatch", hyper::StatusCode::BAD_REQUEST, message)
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "The signature of a chunk does not match.")
    } else {
        incomplete()
    };
    broken.set_source(error);
    broken
}
