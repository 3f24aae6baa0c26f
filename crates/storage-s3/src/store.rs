//! The store: objects in one step.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::http::Response;
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::store::{
    Attributes, Capabilities, ETag, GetResult, ObjectMeta, ObjectStore, PutMode, StoreError, cut_range,
};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;

use crate::client::{Connection, Error, connect};
use crate::errors::{Failure, Kind, Target, failure};
use crate::headers::{ServerDate, WriteHeaders, checksum_override, dress};
use crate::options::{Checksums, S3Options};
use crate::reply::{Reply, chain};
use crate::time::from_sdk;

/// Smallest part that is not the last.
const MIN_PART: u64 = 5 * 1024 * 1024;
/// Largest number of parts.
const MAX_PARTS: u32 = 10_000;

/// Objects in a bucket of Amazon S3 or a compatible service. Cheap to clone; clones share the connections.
///
/// One attempt per call: wrap it into `backstay_backup_core::retry::Retry`. Bodies are sent from the bytes given,
/// without a copy, and read as they arrive; memory per open read is the connection's buffer of at most 400 KiB.
#[derive(Clone)]
pub struct S3Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) options: S3Options,
    pub(crate) unsigned_payload: bool,
    location: String,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("location", &self.inner.location).finish_non_exhaustive()
    }
}

impl S3Store {
    /// Makes a store from its options. Sends nothing to the store; [`Credentials::Chain`](crate::Credentials::Chain)
    /// reads the environment and profile files here.
    ///
    /// # Errors
    /// Impossible options, and a missing region.
    pub async fn open(options: S3Options) -> Result<Self, Error> {
        let Connection { client, unsigned_payload } = Box::pin(connect(&options)).await?;
        let location = location(&options);
        Ok(Self { inner: Arc::new(Inner { client, options, unsigned_payload, location }) })
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &S3Options {
        &self.inner.options
    }

    pub(crate) fn full_key(&self, key: &Key) -> String {
        format!("{}{key}", self.inner.options.prefix.as_str())
    }

    /// Runs one call within the time that a request body of `bytes` may take.
    pub(crate) async fn call<T, E, F>(&self, bytes: u64, call: F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, SdkError<E, Response>>> + Send,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.call_within(self.inner.options.timeouts.limit(bytes), call).await
    }

    pub(crate) async fn call_within<T, E, F>(&self, limit: Duration, call: F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, SdkError<E, Response>>> + Send,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match tokio::time::timeout(limit, Box::pin(call)).await {
            Ok(result) => result.map_err(|error| failure(&error)),
            Err(_) => Err(Failure::temporary(format!("no answer within {} s", limit.as_secs_f32()))),
        }
    }

    pub(crate) fn error(&self, failure: Failure, op: &'static str, target: Target<'_>) -> StoreError {
        failure.into_error(op, target, &self.inner.location)
    }

    /// Refuses an existing key where the store itself cannot be relied on to do so. Two writers at the same moment can
    /// both pass; the capabilities say it.
    pub(crate) async fn refuse_existing(&self, key: &Key) -> Result<(), StoreError> {
        match self.head(key).await {
            Ok(_) => Err(StoreError::AlreadyExists { key: key.clone() }),
            Err(StoreError::Absent { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn refuse_changed(&self, key: &Key, expected: &ETag) -> Result<(), StoreError> {
        match self.head(key).await {
            Ok(meta) if meta.etag.as_ref() == Some(expected) => Ok(()),
            Ok(_) | Err(StoreError::Absent { .. }) => Err(StoreError::Conflict { key: key.clone() }),
            Err(error) => Err(error),
        }
    }

    async fn open_body(&self, key: &Key, range: Option<&Range<u64>>) -> Result<GetResult, Failure> {
        let mut call =
            self.inner.client.get_object().bucket(&self.inner.options.bucket).key(self.full_key(key));
        match range {
            Some(range) => call = call.range(range_header(range)),
            // Only for whole objects: some services answer a range with the checksum of the whole.
            None if self.inner.options.checksums != Checksums::Compatible => {
                call = call.checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled);
            }
            None => {}
        }
        let reply = self.call(0, call.send()).await?;
        let len = length(reply.content_length())?;
        let (start, size) = match reply.content_range() {
            Some(text) => content_range(text)
                .ok_or_else(|| Failure::broken("the store answered with an unreadable Content-Range"))?,
            None if range.is_some_and(|range| range.start > 0) => {
                return Err(Failure::broken("the store ignored the byte range that was asked for"));
            }
            None => (0, len),
        };
        let meta = object_meta(key, size, reply.last_modified(), reply.e_tag())?;
        // A store that ignores the range's end sends the rest as well; the seam promises the range alone.
        let wanted = range.map_or(len, |range| range.end.min(size).saturating_sub(start).min(len));
        let body = body_stream(key.clone(), reply.body, len, self.inner.options.timeouts.idle);
        let body = if wanted < len { first_bytes(body, wanted) } else { body };
        Ok(GetResult { meta, range: start..start + wanted, body })
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn location(&self) -> String {
        self.inner.location.clone()
    }

    fn capabilities(&self) -> Capabilities {
        let conditional = self.inner.options.conditional_writes;
        Capabilities {
            create_only: conditional,
            compare_and_swap: conditional,
            min_part: MIN_PART,
            max_parts: MAX_PARTS,
        }
    }

    async fn put(
        &self,
        key: &Key,
        body: Bytes,
        mode: PutMode,
        attributes: &Attributes,
    ) -> Result<ObjectMeta, StoreError> {
        const OP: &str = "store";
        let inner = &self.inner;
        let size = body.len() as u64;
        let headers = WriteHeaders::new(&inner.options, attributes);
        let mut call = inner
            .client
            .put_object()
            .bucket(&inner.options.bucket)
            .key(self.full_key(key))
            .set_checksum_algorithm(headers.checksum.clone())
            .body(ByteStream::from(body));
        call = match (&mode, inner.options.conditional_writes) {
            (PutMode::Create, true) => call.if_none_match("*"),
            (PutMode::Replace(ETag(tag)), true) => call.if_match(tag),
            (PutMode::Create, false) => {
                self.refuse_existing(key).await?;
                call
            }
            (PutMode::Replace(tag), false) => {
                self.refuse_changed(key, tag).await?;
                call
            }
        };
        let date = ServerDate::default();
        let mut call = dress!(call, headers).customize().interceptor(date.clone());
        if let Some(conf) = checksum_override(&inner.options) {
            call = call.config_override(conf);
        }
        if inner.unsigned_payload {
            call = call.disable_payload_signing();
        }
        match self.call(size, call.send()).await {
            Ok(reply) => {
                let etag = reply.e_tag().map(|tag| ETag(tag.to_owned()));
                self.written(key, size, etag, date.get()).await
            }
            Err(failure) => Err(match (failure.kind, mode) {
                (Kind::Precondition, PutMode::Create) => StoreError::AlreadyExists { key: key.clone() },
                (Kind::Precondition | Kind::NoKey, PutMode::Replace(_)) => {
                    StoreError::Conflict { key: key.clone() }
                }
                _ => self.error(failure, OP, Target::Key(key)),
            }),
        }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<GetResult, StoreError> {
        // The protocol has no empty range, and answers 416 for one that begins at the end or behind it.
        if range.as_ref().is_some_and(|range| range.is_empty()) {
            return Ok(nothing(self.head(key).await?, range));
        }
        match self.open_body(key, range.as_ref()).await {
            Ok(result) => Ok(result),
            Err(failure) if failure.kind == Kind::BadRange => {
                let meta = self.head(key).await?;
                if range.as_ref().is_some_and(|range| range.start < meta.size) {
                    return Err(self.error(failure, "read", Target::Key(key)));
                }
                Ok(nothing(meta, range))
            }
            Err(failure) => Err(self.error(failure, "read", Target::Key(key))),
        }
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        const OP: &str = "look up";
        let inner = &self.inner;
        let call = inner.client.head_object().bucket(&inner.options.bucket).key(self.full_key(key));
        let failure = match self.call(0, call.send()).await {
            Ok(reply) => {
                let meta = length(reply.content_length())
                    .and_then(|size| object_meta(key, size, reply.last_modified(), reply.e_tag()));
                return meta.map_err(|failure| self.error(failure, OP, Target::Key(key)));
            }
            Err(failure) => failure,
        };
        // An answer to HEAD has no body: 404 may be the key or the bucket, 400 anything. GET says which.
        if !failure.status.is_some_and(|status| (400..500).contains(&status)) {
            return Err(self.error(failure, OP, Target::Key(key)));
        }
        match self.open_body(key, Some(&(0..1))).await {
            Ok(result) => Ok(result.meta),
            Err(reason) if reason.kind == Kind::BadRange => Err(self.error(failure, OP, Target::Key(key))),
            Err(reason) => Err(self.error(reason, OP, Target::Key(key))),
        }
    }

    fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        self.pages(prefix.clone(), after)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let inner = &self.inner;
        let call = inner.client.delete_object().bucket(&inner.options.bucket).key(self.full_key(key));
        match self.call(0, call.send()).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind == Kind::NoKey => Ok(()),
            Err(failure) => Err(self.error(failure, "delete", Target::Key(key))),
        }
    }
}

impl S3Store {
    /// Facts of an object just written, with the time of the reply; asks only when the reply had none.
    pub(crate) async fn written(
        &self,
        key: &Key,
        size: u64,
        etag: Option<ETag>,
        date: Option<Timestamp>,
    ) -> Result<ObjectMeta, StoreError> {
        match date {
            Some(modified) => Ok(ObjectMeta { key: key.clone(), size, modified, etag }),
            None => self.head(key).await,
        }
    }
}

fn location(options: &S3Options) -> String {
    let name = format!("s3://{}/{}", options.bucket, options.prefix.as_str());
    let name = name.trim_end_matches('/');
    match &options.endpoint {
        Some(endpoint) => format!("{name} at {}", endpoint.trim_end_matches('/')),
        None => name.to_owned(),
    }
}

fn length(content_length: Option<i64>) -> Result<u64, Failure> {
    content_length
        .and_then(|len| u64::try_from(len).ok())
        .ok_or_else(|| Failure::broken("the store did not say how long the object is"))
}

fn object_meta(
    key: &Key,
    size: u64,
    modified: Option<&aws_smithy_types::DateTime>,
    etag: Option<&str>,
) -> Result<ObjectMeta, Failure> {
    let modified = modified
        .and_then(from_sdk)
        .ok_or_else(|| Failure::broken("the store did not say when the object was written"))?;
    Ok(ObjectMeta { key: key.clone(), size, modified, etag: etag.map(|tag| ETag(tag.to_owned())) })
}

fn nothing(meta: ObjectMeta, range: Option<Range<u64>>) -> GetResult {
    GetResult { range: cut_range(range, meta.size), meta, body: stream::empty().boxed() }
}

fn range_header(range: &Range<u64>) -> String {
    // Services parse signed 64-bit numbers; nothing is that long, so the end can be left open.
    if range.end > i64::MAX as u64 {
        return format!("bytes={}-", range.start);
    }
    format!("bytes={}-{}", range.start, range.end - 1)
}

/// First byte and whole size out of `bytes 5-9/20`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, size.trim().parse().ok()?))
}

/// The bytes as they arrive. Ends well only when exactly the announced number came.
fn body_stream(
    key: Key,
    body: ByteStream,
    len: u64,
    idle: Duration,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let cut = |key: &Key, text: String| StoreError::Temporary {
        op: "read",
        what: key.to_string(),
        retry_after: None,
        source: Box::new(Reply::new(text)),
    };
    stream::try_unfold((key, body, len), move |(key, mut body, left)| async move {
        let chunk = match tokio::time::timeout(idle, body.next()).await {
            Err(_) => return Err(cut(&key, format!("nothing arrived for {} s", idle.as_secs_f32()))),
            Ok(None) if left == 0 => return Ok(None),
            Ok(None) => return Err(cut(&key, format!("the connection ended {left} bytes early"))),
            Ok(Some(Err(error))) => {
                let text = chain(&error);
                if text.contains("checksum mismatch") {
                    return Err(StoreError::Checksum { key });
                }
                return Err(cut(&key, format!("the connection broke: {text}")));
            }
            Ok(Some(Ok(chunk))) => chunk,
        };
        match left.checked_sub(chunk.len() as u64) {
            Some(left) => Ok(Some((chunk, (key, body, left)))),
            None => Err(cut(&key, "more bytes arrived than were announced".to_owned())),
        }
    })
    .boxed()
}

fn first_bytes(
    body: BoxStream<'static, Result<Bytes, StoreError>>,
    wanted: u64,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    stream::try_unfold((body, wanted), |(mut body, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        match body.next().await.transpose()? {
            Some(mut chunk) => {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                chunk.truncate(take);
                Ok(Some((chunk, (body, left - take as u64))))
            }
            None => Ok(None),
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_and_read_the_way_of_the_protocol() {
        assert_eq!(range_header(&(5..10)), "bytes=5-9");
        assert_eq!(range_header(&(5..u64::MAX)), "bytes=5-");
        assert_eq!(content_range("bytes 5-9/20"), Some((5, 20)));
        assert_eq!(content_range("bytes */20"), None);
        assert_eq!(content_range("bytes 5-9/*"), None);
    }

    #[test]
    fn a_location_names_bucket_folder_and_service() {
        let options = S3Options::new("b").prefix(Prefix::parse("x/y").unwrap());
        assert_eq!(location(&options), "s3://b/x/y");
        assert_eq!(location(&S3Options::new("b").endpoint("http://h:1/")), "s3://b at http://h:1");
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_an_error() {
        let key = Key::parse("a").unwrap();
        let body = ByteStream::from_static(b"12345");
        let idle = Duration::from_secs(1);
        let chunks: Vec<_> = body_stream(key, body, 6, idle).collect().await;
        assert!(chunks[0].is_ok());
        assert!(chunks[1].as_ref().unwrap_err().is_temporary());
    }
}
