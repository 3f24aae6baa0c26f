//! Listings, page by page.
//!
//! Only keys that [`Key`] accepts are shown: whatever else lies in the bucket (folder markers of consoles, foreign
//! files) is none of ours and must never be touched. Names are asked for in URL encoding, because a foreign key with a
//! control character would otherwise make the page unreadable.

use std::collections::VecDeque;

use aws_sdk_s3::types::{EncodingType, MultipartUpload, Object};
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::store::{ETag, ObjectMeta, PendingUpload, StoreError, UploadId};
use futures::future::ready;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::errors::{Failure, Target};
use crate::store::S3Store;
use crate::time::from_sdk;

/// Where a listing stands.
enum Cursor {
    /// Behind this name, where there is one.
    Start(Option<String>),
    After(String),
    End,
}

impl S3Store {
    /// All objects below the prefix and behind a key; one page of at most 1,000 keys is in memory at a time.
    pub(crate) fn pages(
        &self,
        prefix: Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let start = (VecDeque::new(), Cursor::Start(after.map(|key| self.full_key(key))), prefix);
        let after = after.cloned();
        let pages = stream::try_unfold(start, move |(mut page, mut cursor, prefix)| async move {
            loop {
                if let Some(meta) = page.pop_front() {
                    return Ok(Some((meta, (page, cursor, prefix))));
                }
                if matches!(cursor, Cursor::End) {
                    return Ok(None);
                }
                (page, cursor) = self
                    .page(&prefix, &cursor)
                    .await
                    .map_err(|failure| self.error(failure, "list", Target::Prefix(&prefix)))?;
            }
        });
        // For services that do not know `start-after`.
        pages
            .try_filter(move |meta: &ObjectMeta| ready(after.as_ref().is_none_or(|after| meta.key > *after)))
            .boxed()
    }

    async fn page(
        &self,
        prefix: &Prefix,
        cursor: &Cursor,
    ) -> Result<(VecDeque<ObjectMeta>, Cursor), Failure> {
        let options = &self.inner.options;
        let mut call = self
            .inner
            .client
            .list_objects_v2()
            .bucket(&options.bucket)
            .prefix(format!("{}{}", options.prefix.as_str(), prefix.as_str()))
            .encoding_type(EncodingType::Url);
        call = match cursor {
            Cursor::Start(Some(name)) => call.start_after(name),
            Cursor::After(token) => call.continuation_token(token),
            Cursor::Start(None) | Cursor::End => call,
        };
        let reply = self.call(0, call.send()).await?;
        let encoded = reply.encoding_type() == Some(&EncodingType::Url);
        let page = reply
            .contents()
            .iter()
            .filter_map(|object| self.own_key(object.key()?, encoded).map(|key| listed(key, object)))
            .collect::<Result<_, _>>()?;
        let next = match (reply.is_truncated().unwrap_or(false), reply.next_continuation_token()) {
            (false, _) => Cursor::End,
            (true, Some(token)) => {
                if matches!(cursor, Cursor::After(last) if last == token) {
                    return Err(Failure::broken("the store's listing does not advance"));
                }
                Cursor::After(token.to_owned())
            }
            (true, None) => {
                return Err(Failure::broken("the store cut its listing without saying how to go on"));
            }
        };
        Ok((page, next))
    }

    /// The key below our folder, or nothing when it is not one of ours.
    pub(crate) fn own_key(&self, name: &str, encoded: bool) -> Option<Key> {
        let name = if encoded { decode(name) } else { name.to_owned() };
        Key::parse(name.strip_prefix(self.inner.options.prefix.as_str())?).ok()
    }

    pub(crate) async fn pending_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, Failure> {
        let options = &self.inner.options;
        let mut uploads = Vec::new();
        let mut after: Option<(String, String)> = None;
        loop {
            let mut call = self
                .inner
                .client
                .list_multipart_uploads()
                .bucket(&options.bucket)
                .prefix(format!("{}{}", options.prefix.as_str(), prefix.as_str()))
                .encoding_type(EncodingType::Url);
            if let Some((key, upload)) = &after {
                call = call.key_marker(key).upload_id_marker(upload);
            }
            let reply = self.call(0, call.send()).await?;
            let encoded = reply.encoding_type() == Some(&EncodingType::Url);
            uploads.extend(reply.uploads().iter().filter_map(|upload| self.pending(upload, encoded)));
            if !reply.is_truncated().unwrap_or(false) {
                return Ok(uploads);
            }
            let key = reply.next_key_marker().unwrap_or_default();
            let key = if encoded { decode(key) } else { key.to_owned() };
            let next = Some((key, reply.next_upload_id_marker().unwrap_or_default().to_owned()));
            if next == after || next.as_ref().is_some_and(|(key, _)| key.is_empty()) {
                return Err(Failure::broken("the store's listing of uploads does not advance"));
            }
            after = next;
        }
    }

    fn pending(&self, upload: &MultipartUpload, encoded: bool) -> Option<PendingUpload> {
        Some(PendingUpload {
            key: self.own_key(upload.key()?, encoded)?,
            upload: UploadId(upload.upload_id()?.to_owned()),
            started: upload.initiated().and_then(from_sdk)?,
        })
    }
}

fn listed(key: Key, object: &Object) -> Result<ObjectMeta, Failure> {
    let size = object.size().and_then(|size| u64::try_from(size).ok());
    let modified = object.last_modified().and_then(from_sdk);
    match (size, modified) {
        (Some(size), Some(modified)) => {
            Ok(ObjectMeta { key, size, modified, etag: object.e_tag().map(|tag| ETag(tag.to_owned())) })
        }
        _ => Err(Failure::broken(format!("the store listed {key} without size or time"))),
    }
}

/// Undoes `%2B`; a plus stays a plus, because S3 writes a space as `%20` and some services do not encode at all.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        out.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_plain_ones_stay() {
        assert_eq!(decode("a%2Bb%3Dc/d.e"), "a+b=c/d.e");
        assert_eq!(decode("a+b=c"), "a+b=c");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%C3%A4%zz"), "ä%zz");
    }
}
