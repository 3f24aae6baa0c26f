//! `ListObjectsV2`, `ListObjects` and `ListObjectVersions`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use s3s::dto::{
    CommonPrefix, DeleteMarkerEntry, ETag, EncodingType, ListObjectVersionsInput, ListObjectVersionsOutput,
    ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, Object as ObjectEntry,
    ObjectVersion, Timestamp,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::api::bucket;
use super::core::Core;
use super::model::{Bucket, History, Object, Version};
use super::ops_get::signed;

/// Keys in one reply at most, and when the client names no number.
pub(super) const MAX_KEYS: usize = 1000;

pub(super) async fn list_objects_v2(
    core: &Core,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = request.input;
    let names = Names::new(input.encoding_type.as_ref())?;
    let after = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => After::from_token(token)?,
        (None, Some(key)) => After::Key(key.clone()),
        (None, None) => After::Nothing,
    };
    let query = Query { prefix: input.prefix.as_deref(), delimiter: input.delimiter.as_deref(), after };
    let max = page_size(input.max_keys)?;
    let page = list(core, &input.bucket, &query, max)?;
    let contents: Vec<_> =
        page.entries.iter().filter_map(|(key, version)| names.entry(key, version)).collect();
    let common_prefixes = names.prefixes(&page.prefixes);
    let count = i32::try_from(contents.len() + common_prefixes.len()).unwrap_or(i32::MAX);
    let output = ListObjectsV2Output {
        name: Some(input.bucket),
        max_keys: i32::try_from(max).ok(),
        key_count: Some(count),
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.map(|next| next.to_token()),
        continuation_token: input.continuation_token,
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        prefix: Some(names.name(input.prefix.as_deref().unwrap_or_default())),
        delimiter: input.delimiter.map(|text| names.name(&text)),
        start_after: input.start_after.map(|text| names.name(&text)),
        encoding_type: input.encoding_type,
        ..ListObjectsV2Output::default()
    };
    Ok(S3Response::new(output))
}

pub(super) async fn list_objects(
    core: &Core,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = request.input;
    let names = Names::new(input.encoding_type.as_ref())?;
    let grouped = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    let after = match input.marker.clone().filter(|marker| !marker.is_empty()) {
        Some(marker) if grouped.is_some_and(|delimiter| marker.ends_with(delimiter)) => After::Prefix(marker),
        Some(marker) => After::Key(marker),
        None => After::Nothing,
    };
    let query = Query { prefix: input.prefix.as_deref(), delimiter: input.delimiter.as_deref(), after };
    let max = page_size(input.max_keys)?;
    let page = list(core, &input.bucket, &query, max)?;
    let contents = page.entries.iter().filter_map(|(key, version)| names.entry(key, version)).collect();
    let output = ListObjectsOutput {
        name: Some(input.bucket),
        max_keys: i32::try_from(max).ok(),
        is_truncated: Some(page.next.is_some()),
        next_marker: page.next.map(|next| names.name(next.text())),
        contents: Some(contents),
        common_prefixes: Some(names.prefixes(&page.prefixes)),
        prefix: Some(names.name(input.prefix.as_deref().unwrap_or_default())),
        delimiter: input.delimiter.map(|text| names.name(&text)),
        marker: Some(names.name(input.marker.as_deref().unwrap_or_default())),
        encoding_type: input.encoding_type,
        ..ListObjectsOutput::default()
    };
    Ok(S3Response::new(output))
}

pub(super) async fn list_object_versions(
    core: &Core,
    request: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let input = request.input;
    let names = Names::new(input.encoding_type.as_ref())?;
    let max = page_size(input.max_keys)?;
    let mut walk = VersionWalk::new(&input, max);
    core.store.read(|index| bucket(index, &input.bucket).map(|bucket| walk.run(bucket)))?;
    let mut output = ListObjectVersionsOutput::default();
    let (mut versions, mut markers) = (Vec::new(), Vec::new());
    for (key, version, newest) in &walk.entries {
        match &version.object {
            Some(object) => versions.push(names.version(key, version, object, *newest)),
            None => markers.push(names.marker(key, version, *newest)),
        }
    }
    output.versions = Some(versions);
    output.delete_markers = Some(markers);
    output.common_prefixes = Some(names.prefixes(&walk.prefixes));
    output.is_truncated = Some(walk.next.is_some());
    if let Some((key, id)) = walk.next.take() {
        output.next_key_marker = Some(names.name(&key));
        output.next_version_id_marker = id;
    }
    output.name = Some(input.bucket);
    output.max_keys = i32::try_from(max).ok();
    output.prefix = Some(names.name(input.prefix.as_deref().unwrap_or_default()));
    output.delimiter = input.delimiter.map(|text| names.name(&text));
    output.key_marker = Some(names.name(input.key_marker.as_deref().unwrap_or_default()));
    output.version_id_marker = input.version_id_marker;
    output.encoding_type = input.encoding_type;
    Ok(S3Response::new(output))
}

pub(super) fn page_size(asked: Option<i32>) -> S3Result<usize> {
    match asked {
        None => Ok(MAX_KEYS),
        Some(asked) => usize::try_from(asked)
            .map(|asked| asked.min(MAX_KEYS))
            .map_err(|_| s3_error!(InvalidArgument, "max-keys must not be negative")),
    }
}

/// Writes names the way the client asked for.
pub(super) struct Names {
    encoded: bool,
}

impl Names {
    pub(super) fn new(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self { encoded: false }),
            Some(EncodingType::URL) => Ok(Self { encoded: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    pub(super) fn name(&self, text: &str) -> String {
        const PLAIN: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
            .remove(b'-')
            .remove(b'_')
            .remove(b'.')
            .remove(b'/')
            .remove(b'*');
        if self.encoded {
            percent_encoding::utf8_percent_encode(text, &PLAIN).to_string()
        } else {
            text.to_owned()
        }
    }

    pub(super) fn prefixes(&self, prefixes: &[String]) -> Vec<CommonPrefix> {
        prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(self.name(prefix)) }).collect()
    }

    fn entry(&self, key: &str, version: &Version) -> Option<ObjectEntry> {
        let object = version.object.as_ref()?;
        let class = object.attributes.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned());
        let mut entry = ObjectEntry {
            key: Some(self.name(key)),
            size: Some(signed(object.size)),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(version.modified.clone()),
            storage_class: Some(class.into()),
            ..ObjectEntry::default()
        };
        if let Some(checksum) = &object.checksum {
            entry.checksum_algorithm = Some(vec![checksum.algorithm.name().to_owned().into()]);
            entry.checksum_type = Some(checksum.coverage.to_dto());
        }
        Some(entry)
    }

    fn version(&self, key: &str, version: &Version, object: &Object, newest: bool) -> ObjectVersion {
        let class = object.attributes.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned());

        ObjectVersion {
            key: Some(self.name(key)),
            size: Some(signed(object.size)),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(version.modified.clone()),
            storage_class: Some(class.into()),
            version_id: Some(version.id.clone()),
            is_latest: Some(newest),
            ..ObjectVersion::default()
        }
    }

    fn marker(&self, key: &str, version: &Version, newest: bool) -> DeleteMarkerEntry {
        DeleteMarkerEntry {
            key: Some(self.name(key)),
            last_modified: Some(version.modified.clone()),
            version_id: Some(version.id.clone()),
            is_latest: Some(newest),
            ..DeleteMarkerEntry::default()
        }
    }
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum After {
    Nothing,
    Key(String),
    /// Past everything that starts with this.
    Prefix(String),
}

impl After {
    fn text(&self) -> &str {
        match self {
            Self::Nothing => "",
            Self::Key(text) | Self::Prefix(text) => text,
        }
    }

    fn to_token(&self) -> String {
        let kind = if matches!(self, Self::Prefix(_)) { 'p' } else { 'k' };
        hex::encode(format!("{kind}{}", self.text()))
    }

    fn from_token(token: &str) -> S3Result<Self> {
        let text = hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.split_at_checked(1)) {
            Some(("k", key)) => Ok(Self::Key(key.to_owned())),
            Some(("p", prefix)) => Ok(Self::Prefix(prefix.to_owned())),
            _ => Err(s3_error!(InvalidArgument, "The continuation token provided is incorrect")),
        }
    }

    fn is_past(&self, key: &str) -> bool {
        match self {
            Self::Nothing => true,
            Self::Key(last) => key > last.as_str(),
            Self::Prefix(prefix) => key > prefix.as_str() && !key.starts_with(prefix.as_str()),
        }
    }

    /// Lower end of the range of keys worth looking at.
    fn bound(&self, prefix: &str) -> Bound<String> {
        match self {
            Self::Key(last) if last.as_str() >= prefix => Bound::Excluded(last.clone()),
            // Keys with a common prefix are skipped in one step; the few that hold this very character one by one.
            Self::Prefix(last) if last.as_str() >= prefix => Bound::Excluded(format!("{last}\u{10ffff}")),
            _ => Bound::Included(prefix.to_owned()),
        }
    }
}

struct Query<'a> {
    prefix: Option<&'a str>,
    delimiter: Option<&'a str>,
    after: After,
}

struct Page {
    entries: Vec<(String, Arc<Version>)>,
    prefixes: Vec<String>,
    next: Option<After>,
}

/// The group a key falls into: everything up to the first delimiter after the prefix.
pub(super) fn group<'a>(key: &'a str, prefix: &str, delimiter: Option<&str>) -> Option<&'a str> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let at = key.get(prefix.len()..)?.find(delimiter)?;
    key.get(..prefix.len() + at + delimiter.len())
}

fn list(core: &Core, bucket_name: &str, query: &Query<'_>, max: usize) -> S3Result<Page> {
    let quirks = core.faults.quirks();
    let horizon =
        quirks.stale_listing.and_then(|delay| core.faults.now().checked_sub(delay)).map(Timestamp::from);
    core.store.read(|index| {
        let bucket = bucket(index, bucket_name)?;
        Ok(page(&bucket.keys, query, max, |history| {
            let version = history.latest()?;
            let shown = horizon.as_ref().is_none_or(|horizon| version.modified <= *horizon);
            Some(version).filter(|version| shown && version.object.is_some())
        }))
    })
}

fn page(
    keys: &BTreeMap<String, History>,
    query: &Query<'_>,
    max: usize,
    visible: impl Fn(&History) -> Option<&Arc<Version>>,
) -> Page {
    let prefix = query.prefix.unwrap_or_default();
    let mut page = Page { entries: Vec::new(), prefixes: Vec::new(), next: None };
    let mut after = query.after.clone();
    if max == 0 {
        return page;
    }
    loop {
        let rest = keys.range::<String, _>((after.bound(prefix), Bound::Unbounded));
        let mut rest =
            rest.take_while(|(key, _)| key.starts_with(prefix)).filter(|(key, _)| after.is_past(key));
        let Some((key, version)) = rest.find_map(|(key, history)| visible(history).map(|found| (key, found)))
        else {
            return page;
        };
        if page.entries.len() + page.prefixes.len() == max {
            page.next = Some(after);
            return page;
        }
        match group(key, prefix, query.delimiter) {
            Some(group) => {
                page.prefixes.push(group.to_owned());
                after = After::Prefix(group.to_owned());
            }
            None => {
                after = After::Key(key.clone());
                page.entries.push((key.clone(), Arc::clone(version)));
            }
        }
    }
}

/// Walks over all versions of all keys, newest version first.
struct VersionWalk {
    prefix: String,
    delimiter: Option<String>,
    key_marker: Option<String>,
    id_marker: Option<String>,
    max: usize,
    entries: Vec<(String, Arc<Version>, bool)>,
    prefixes: Vec<String>,
    next: Option<(String, Option<String>)>,
}

impl VersionWalk {
    fn new(input: &ListObjectVersionsInput, max: usize) -> Self {
        Self {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            key_marker: input.key_marker.clone().filter(|key| !key.is_empty()),
            id_marker: input.version_id_marker.clone().filter(|id| !id.is_empty()),
            max,
            entries: Vec::new(),
            prefixes: Vec::new(),
            next: None,
        }
    }

    fn run(&mut self, bucket: &Bucket) {
        let from = self.key_marker.clone().unwrap_or_default().max(self.prefix.clone());
        let mut last: Option<(String, Option<String>)> = None;
        for (key, history) in bucket.keys.range(from..) {
            if !key.starts_with(&self.prefix) {
                break;
            }
            if let Some(group) = group(key, &self.prefix, self.delimiter.as_deref()) {
                if self.prefixes.last().is_some_and(|known| known == group)
                    || self.key_marker.as_deref().is_some_and(|marker| marker >= group)
                {
                    continue;
                }
                if self.is_full() {
                    self.next = last;
                    return;
                }
                self.prefixes.push(group.to_owned());
                last = Some((group.to_owned(), None));
                continue;
            }
            for (position, version) in self.pending(key, history) {
                if self.is_full() {
                    self.next = last;
                    return;
                }
                last = Some((key.clone(), Some(version.id.clone())));
                self.entries.push((key.clone(), version, position == 0));
            }
        }
    }

    /// Versions of the key that come after the markers, with their distance from the newest.
    fn pending(&self, key: &str, history: &History) -> Vec<(usize, Arc<Version>)> {
        let all = history.newest_first().cloned().enumerate();
        if self.key_marker.as_deref() != Some(key) {
            return all.collect();
        }
        match &self.id_marker {
            None => Vec::new(),
            Some(id) => all.skip_while(|(_, version)| version.id != *id).skip(1).collect(),
        }
    }

    fn is_full(&self) -> bool {
        self.entries.len() + self.prefixes.len() >= self.max
    }
}
