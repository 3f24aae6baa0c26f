//! `ListMultipartUploads` and `ListParts`.

use std::ops::Bound;

use s3s::dto::{
    ChecksumAlgorithm, ETag, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput,
    ListPartsOutput, MultipartUpload, Part as PartEntry,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::api::bucket;
use super::attributes::give_checksum;
use super::core::Core;
use super::digest::encode;
use super::model::{Bucket, Part, Upload};
use super::ops_get::signed;
use super::ops_list::{Names, group, page_size};
use super::ops_multipart::find;

pub(super) async fn list_multipart_uploads(
    core: &Core,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    let names = Names::new(input.encoding_type.as_ref())?;
    let max = page_size(input.max_uploads)?;
    let page = core
        .store
        .read(|index| bucket(index, &input.bucket).map(|bucket| walk(bucket, &input, &names, max)))?;
    let mut output = ListMultipartUploadsOutput {
        is_truncated: Some(page.next.is_some()),
        ..ListMultipartUploadsOutput::default()
    };
    if let Some((key, id)) = page.next {
        output.next_key_marker = Some(names.name(&key));
        output.next_upload_id_marker = Some(id);
    }
    output.uploads = Some(page.uploads);
    output.common_prefixes = Some(names.prefixes(&page.prefixes));
    output.bucket = Some(input.bucket);
    output.max_uploads = i32::try_from(max).ok();
    output.prefix = Some(names.name(input.prefix.as_deref().unwrap_or_default()));
    output.delimiter = input.delimiter.map(|text| names.name(&text));
    output.key_marker = Some(names.name(input.key_marker.as_deref().unwrap_or_default()));
    output.upload_id_marker = input.upload_id_marker;
    output.encoding_type = input.encoding_type;
    Ok(S3Response::new(output))
}

#[derive(Default)]
struct Page {
    uploads: Vec<MultipartUpload>,
    prefixes: Vec<String>,
    next: Option<(String, String)>,
}

fn walk(bucket: &Bucket, input: &ListMultipartUploadsInput, names: &Names, max: usize) -> Page {
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let marker = input.key_marker.as_deref().filter(|marker| !marker.is_empty());
    let id_marker = input.upload_id_marker.as_deref().filter(|id| !id.is_empty());
    let is_past = |key: &str, id: &str| match (marker, id_marker) {
        (None, _) => true,
        (Some(marker), None) => key > marker,
        (Some(marker), Some(last)) => (key, id) > (marker, last),
    };
    let mut page = Page::default();
    let mut last = None;
    for ((key, id), upload) in &bucket.uploads {
        if !key.starts_with(prefix) || !is_past(key, id) {
            continue;
        }
        let group = group(key, prefix, input.delimiter.as_deref());
        if group.is_some_and(|group| page.prefixes.last().is_some_and(|known| known == group)) {
            last = Some((key.clone(), id.clone()));
            continue;
        }
        if page.uploads.len() + page.prefixes.len() >= max {
            page.next = last;
            return page;
        }
        match group {
            Some(group) => page.prefixes.push(group.to_owned()),
            None => page.uploads.push(entry(upload, names)),
        }
        last = Some((key.clone(), id.clone()));
    }
    page
}

fn entry(upload: &Upload, names: &Names) -> MultipartUpload {
    let class = upload.attributes.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned());
    let mut entry = MultipartUpload {
        key: Some(names.name(&upload.key)),
        upload_id: Some(upload.id.clone()),
        initiated: Some(upload.initiated.clone()),
        storage_class: Some(class.into()),
        ..MultipartUpload::default()
    };
    entry.checksum_algorithm =
        upload.algorithm.map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name()));
    entry.checksum_type = upload.algorithm.map(|_| upload.coverage.to_dto());
    entry
}

pub(super) async fn list_parts(
    core: &Core,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    let max = page_size(input.max_parts)?;
    let after = match input.part_number_marker {
        None => 0,
        Some(marker) => u16::try_from(marker)
            .map_err(|_| s3_error!(InvalidArgument, "part-number-marker must be between 0 and 65535"))?,
    };
    let upload =
        core.store.read(|index| find(index, &input.bucket, &input.key, &input.upload_id).cloned())?;
    let mut rest = upload.parts.range((Bound::Excluded(after), Bound::Unbounded));
    let shown: Vec<(u16, &Part)> = rest.by_ref().take(max).map(|(number, part)| (*number, part)).collect();
    let mut output = ListPartsOutput {
        is_truncated: Some(rest.next().is_some()),
        next_part_number_marker: shown.last().map(|(number, _)| i32::from(*number)),
        part_number_marker: input.part_number_marker,
        parts: Some(shown.into_iter().map(|(number, part)| part_entry(&upload, number, part)).collect()),
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        max_parts: i32::try_from(max).ok(),
        ..ListPartsOutput::default()
    };
    output.checksum_algorithm =
        upload.algorithm.map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name()));
    output.checksum_type = upload.algorithm.map(|_| upload.coverage.to_dto());
    let class = upload.attributes.storage_class.unwrap_or_else(|| "STANDARD".to_owned());
    output.storage_class = Some(class.into());
    Ok(S3Response::new(output))
}

fn part_entry(upload: &Upload, number: u16, part: &Part) -> PartEntry {
    let mut entry = PartEntry {
        part_number: Some(i32::from(number)),
        e_tag: Some(ETag::Strong(part.etag.clone())),
        size: Some(signed(part.segment.len)),
        last_modified: Some(part.modified.clone()),
        ..PartEntry::default()
    };
    if let Some(algorithm) = upload.algorithm {
        give_checksum!(entry, algorithm, encode(&part.digest));
    }
    entry
}
