//! Headers a client gives with an object, and what is not accepted in them.

use hyper::StatusCode;
use s3s::dto::{ObjectLockLegalHoldStatus, ObjectLockMode, ServerSideEncryption, StorageClass, Timestamp};
use s3s::{S3Result, s3_error};

use super::api::custom_error;
use super::model::{Attributes, LockMode, Marks, Retention};

const STORAGE_CLASSES: [&str; 8] = [
    StorageClass::STANDARD,
    StorageClass::STANDARD_IA,
    StorageClass::ONEZONE_IA,
    StorageClass::INTELLIGENT_TIERING,
    StorageClass::REDUCED_REDUNDANCY,
    StorageClass::GLACIER_IR,
    StorageClass::GLACIER,
    StorageClass::DEEP_ARCHIVE,
];
const ENCRYPTIONS: [&str; 3] = ["AES256", "aws:kms", "aws:kms:dsse"];
const MAX_TAGS: usize = 10;

/// Takes attributes and marks out of the input of a `PutObject` or `CreateMultipartUpload`.
macro_rules! take_attributes {
    ($input:expr) => {{
        let attributes = $crate::s3::model::Attributes {
            cache_control: $input.cache_control.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: $input.content_encoding.take(),
            content_language: $input.content_language.take(),
            content_type: $input.content_type.take(),
            expires: $input.expires.take(),
            metadata: $input.metadata.take().unwrap_or_default().into_iter().collect(),
            storage_class: $input.storage_class.take().map(|class| class.as_str().to_owned()),
            encryption: $input.server_side_encryption.take().map(|name| name.as_str().to_owned()),
            kms_key: $input.ssekms_key_id.take(),
            bucket_key: $input.bucket_key_enabled.take(),
        };
        let marks = $crate::s3::attributes::marks(
            $input.tagging.as_deref(),
            $input.object_lock_mode.as_ref(),
            $input.object_lock_retain_until_date.take(),
            $input.object_lock_legal_hold_status.as_ref(),
        )?;
        if $input.sse_customer_key.is_some() {
            return Err(s3s::s3_error!(NotImplemented, "keys brought by the client are not supported"));
        }
        ($crate::s3::attributes::checked(attributes)?, marks)
    }};
}
pub(super) use take_attributes;

/// Puts the attributes of an object into the output of a `GetObject` or `HeadObject`.
macro_rules! give_attributes {
    ($output:expr, $version:expr, $object:expr) => {{
        let (version, object, output) = ($version, $object, &mut $output);
        let attributes = object.attributes.clone();
        let retention = version.marks.retention.as_ref();
        output.cache_control = attributes.cache_control;
        output.content_disposition = attributes.content_disposition;
        output.content_encoding = attributes.content_encoding;
        output.content_language = attributes.content_language;
        output.content_type = attributes.content_type.or_else(|| Some("binary/octet-stream".to_owned()));
        output.expires = attributes.expires;
        output.metadata = Some(attributes.metadata.into_iter().collect());
        // S3 leaves the header out for the standard class.
        output.storage_class = attributes.storage_class.filter(|class| class != "STANDARD").map(Into::into);
        output.server_side_encryption = attributes.encryption.map(Into::into);
        output.ssekms_key_id = attributes.kms_key;
        output.bucket_key_enabled = attributes.bucket_key;
        output.e_tag = Some(s3s::dto::ETag::Strong(object.etag.clone()));
        output.last_modified = Some(version.modified.clone());
        output.object_lock_mode = retention.map(|retention| retention.mode.name().to_owned().into());
        output.object_lock_retain_until_date = retention.map(|retention| retention.until.clone());
        output.object_lock_legal_hold_status =
            version.marks.legal_hold.then(|| s3s::dto::ObjectLockLegalHoldStatus::from_static("ON"));
        output.accept_ranges = Some("bytes".to_owned());
    }};
}
pub(super) use give_attributes;

/// Fills the checksum fields of any output that has them.
macro_rules! give_checksum {
    ($output:expr, $algorithm:expr, $value:expr) => {{
        let value = Some($value);
        match $algorithm {
            $crate::s3::digest::Algorithm::Crc32 => $output.checksum_crc32 = value,
            $crate::s3::digest::Algorithm::Crc32c => $output.checksum_crc32c = value,
            $crate::s3::digest::Algorithm::Crc64Nvme => $output.checksum_crc64nvme = value,
            $crate::s3::digest::Algorithm::Sha1 => $output.checksum_sha1 = value,
            $crate::s3::digest::Algorithm::Sha256 => $output.checksum_sha256 = value,
        }
    }};
}
pub(super) use give_checksum;

/// Takes the checksum values out of any input that has them, in the order of `Algorithm::ALL`.
macro_rules! take_checksums {
    ($input:expr) => {
        [
            $input.checksum_crc32.take(),
            $input.checksum_crc32c.take(),
            $input.checksum_crc64nvme.take(),
            $input.checksum_sha1.take(),
            $input.checksum_sha256.take(),
        ]
    };
}
pub(super) use take_checksums;

pub(super) fn checked(mut attributes: Attributes) -> S3Result<Attributes> {
    if let Some(class) = &attributes.storage_class
        && !STORAGE_CLASSES.contains(&class.as_str())
    {
        return Err(s3_error!(InvalidStorageClass, "The storage class you specified is not valid"));
    }
    match attributes.encryption.as_deref() {
        Some(name) if !ENCRYPTIONS.contains(&name) => {
            return Err(s3_error!(
                InvalidEncryptionAlgorithmError,
                "The encryption request you specified is not valid. The valid value is AES256."
            ));
        }
        Some(ServerSideEncryption::AES256) | None if attributes.kms_key.is_some() => {
            return Err(s3_error!(InvalidArgument, "A KMS key needs server-side encryption aws:kms"));
        }
        _ => {}
    }
    // The transfer coding is none of the reader's business.
    attributes.content_encoding = attributes.content_encoding.and_then(|text| {
        let codings =
            text.split(',').map(str::trim).filter(|coding| !coding.eq_ignore_ascii_case("aws-chunked"));
        let kept = codings.collect::<Vec<_>>().join(", ");
        (!kept.is_empty()).then_some(kept)
    });
    Ok(attributes)
}

pub(super) fn marks(
    tagging: Option<&str>,
    mode: Option<&ObjectLockMode>,
    until: Option<Timestamp>,
    hold: Option<&ObjectLockLegalHoldStatus>,
) -> S3Result<Marks> {
    let retention = match (mode, until) {
        (None, None) => None,
        (Some(mode), Some(until)) => Some(Retention { mode: LockMode::parse(mode.as_str())?, until }),
        _ => {
            return Err(s3_error!(
                InvalidArgument,
                "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied"
            ));
        }
    };
    let tags = url::form_urlencoded::parse(tagging.unwrap_or_default().as_bytes());
    let tags = checked_tags(tags.into_owned().collect())?;
    Ok(Marks { tags, retention, legal_hold: hold.is_some_and(|hold| hold.as_str() == "ON") })
}

pub(super) fn checked_tags(tags: Vec<(String, String)>) -> S3Result<Vec<(String, String)>> {
    if tags.len() > MAX_TAGS {
        return Err(custom_error(
            "BadRequest",
            StatusCode::BAD_REQUEST,
            "Object tags cannot be greater than 10",
        ));
    }
    for (position, (key, value)) in tags.iter().enumerate() {
        if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            return Err(s3_error!(InvalidTag, "The tag `{key}` is too short or too long"));
        }
        if tags[..position].iter().any(|(earlier, _)| earlier == key) {
            return Err(s3_error!(InvalidTag, "Cannot provide multiple Tags with the same key"));
        }
    }
    Ok(tags)
}

impl LockMode {
    pub(super) fn parse(name: &str) -> S3Result<Self> {
        match name {
            "GOVERNANCE" => Ok(Self::Governance),
            "COMPLIANCE" => Ok(Self::Compliance),
            _ => Err(s3_error!(InvalidArgument, "Unknown wormMode directive")),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}
