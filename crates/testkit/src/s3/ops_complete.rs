//! `CompleteMultipartUpload`: turns parts into an object in one step, without copying a byte.

use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{
    ChecksumType, CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, ETag,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::api::bucket;
use super::attributes::{give_checksum, take_checksums};
use super::conditions::WriteConditions;
use super::core::Core;
use super::digest::{Algorithm, Coverage, StoredChecksum, combine, decode, encode};
use super::model::{Change, Index, Object, Part, Upload};
use super::note::Note;
use super::ops_multipart::{find, part_number};
use super::ops_put::{Draft, Stored, Target, rivalled, store};

pub(super) async fn complete_multipart_upload(
    core: &Core,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let note = Note::of(&request)?;
    let quirks = core.faults.quirks();
    let mut input = request.input;
    let conditions = WriteConditions::new(input.if_none_match.take(), input.if_match.take())?;
    let order = Order {
        listed: input.multipart_upload.take().and_then(|list| list.parts).unwrap_or_default(),
        declared: take_checksums!(input),
        kind: input.checksum_type.take(),
        size: input.mpu_object_size,
        min_part_size: core.min_part_size,
        trusting: quirks.accepts_wrong_checksums,
    };
    let target = Target { bucket: input.bucket, key: input.key };
    let id = input.upload_id;
    // Before the gate: what is wrong with the request is wrong without rivals, too.
    core.store.read(|index| {
        find(index, &target.bucket, &target.key, &id).and_then(|upload| order.assemble(upload))
    })?;
    let rivalled = rivalled(core, &quirks, &target, &conditions).await?;
    let done = core.store.transact(|index: &Index| {
        let upload = find(index, &target.bucket, &target.key, &id)?;
        let assembled = order.assemble(upload)?;
        let object = assembled.object.clone();
        let draft = Draft { object: assembled.object, marks: upload.marks.clone() };
        let bucket = bucket(index, &target.bucket)?;
        let Stored { change, reported, overwrites } =
            store(core, bucket, &quirks, &target, &rivalled.effective, draft)?;
        let (bucket, key, upload) = (target.bucket.clone(), target.key.clone(), id.clone());
        let removal = Change::UploadRemoved { bucket, key, upload, used: assembled.used };
        Ok((vec![change, removal], (object, reported, overwrites)))
    });
    drop(rivalled);
    let (object, version_id, overwrites) = done?;
    {
        let mut facts = note.lock();
        (facts.overwrote, facts.bytes) = (overwrites, object.size);
    }
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", target.bucket, target.key)),
        e_tag: Some(ETag::Strong(object.etag)),
        version_id,
        server_side_encryption: object.attributes.encryption.map(Into::into),
        ssekms_key_id: object.attributes.kms_key,
        ..CompleteMultipartUploadOutput::default()
    };
    if let Some(checksum) = object.checksum {
        output.checksum_type = Some(checksum.coverage.to_dto());
        give_checksum!(output, checksum.algorithm, checksum.value);
    }
    output.bucket = Some(target.bucket);
    output.key = Some(target.key);
    Ok(S3Response::new(output))
}

/// What the client wants to be put together.
struct Order {
    listed: Vec<CompletedPart>,
    declared: [Option<String>; 5],
    kind: Option<ChecksumType>,
    size: Option<i64>,
    min_part_size: u64,
    /// Misbehaviour: checksums are not compared.
    trusting: bool,
}

struct Assembled {
    object: Object,
    used: Vec<u16>,
}

impl Order {
    fn assemble(&self, upload: &Upload) -> S3Result<Assembled> {
        let parts = self.choose(upload)?;
        let size = parts.iter().map(|(_, part)| part.segment.len).sum();
        if self.size.is_some_and(|asked| u64::try_from(asked) != Ok(size)) {
            return Err(s3_error!(
                InvalidRequest,
                "The provided 'x-amz-mp-object-size' header value does not match what was computed: {size}"
            ));
        }
        let mut md5 = Md5::new();
        parts.iter().for_each(|(_, part)| md5.update(&part.md5));
        let checksum = self.checksum(upload, &parts)?;
        let object = Object {
            size,
            etag: format!("{}-{}", hex::encode(md5.finalize()), parts.len()),
            segments: parts.iter().map(|(_, part)| part.segment.clone()).collect(),
            multipart: true,
            checksum: Some(checksum),
            attributes: upload.attributes.clone(),
        };
        Ok(Assembled { object, used: parts.iter().map(|(number, _)| *number).collect() })
    }

    /// The listed parts, each checked against what was uploaded.
    fn choose<'a>(&self, upload: &'a Upload) -> S3Result<Vec<(u16, &'a Part)>> {
        if self.listed.is_empty() {
            return Err(s3_error!(MalformedXML, "You must specify at least one part"));
        }
        let mut chosen: Vec<(u16, &Part)> = Vec::with_capacity(self.listed.len());
        for listed in &self.listed {
            let number = part_number(listed.part_number.unwrap_or_default())?;
            if chosen.last().is_some_and(|(last, _)| *last >= number) {
                return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
            }
            let part = upload.parts.get(&number).ok_or_else(invalid_part)?;
            if listed.e_tag.as_ref().is_some_and(|etag| etag.value() != part.etag) || listed.e_tag.is_none() {
                return Err(invalid_part());
            }
            self.check_part(upload, listed, number, part)?;
            chosen.push((number, part));
        }
        let (_, all_but_last) = chosen.split_last().expect("at least one part was listed");
        if all_but_last.iter().any(|(_, part)| part.segment.len < self.min_part_size) {
            return Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed object size."
            ));
        }
        Ok(chosen)
    }

    fn check_part(&self, upload: &Upload, listed: &CompletedPart, number: u16, part: &Part) -> S3Result<()> {
        let mut stated = 0;
        for (algorithm, value) in Algorithm::ALL.into_iter().zip(part_checksums(listed)) {
            let Some(value) = value else { continue };
            stated += 1;
            let known = match &part.sent {
                _ if algorithm == upload.effective_algorithm() => Some(&part.digest),
                Some((sent, digest)) if *sent == algorithm => Some(digest),
                _ => None,
            };
            let value = decode(algorithm, value)?;
            if known != Some(&value) && !self.trusting {
                return Err(invalid_part());
            }
        }
        match upload.algorithm {
            Some(algorithm) if stated == 0 && upload.coverage == Coverage::Composite => Err(s3_error!(
                InvalidRequest,
                "The upload was created using a {} checksum. The complete request must include the checksum for each \
                 part. It was missing for part {number} in the request.",
                algorithm.name().to_lowercase()
            )),
            _ => Ok(()),
        }
    }

    fn checksum(&self, upload: &Upload, parts: &[(u16, &Part)]) -> S3Result<StoredChecksum> {
        let (algorithm, coverage) = (upload.effective_algorithm(), upload.coverage);
        if self.kind.as_ref().is_some_and(|kind| *kind != coverage.to_dto()) {
            return Err(s3_error!(
                InvalidRequest,
                "The upload was created using the {} checksum mode.",
                coverage.to_dto().as_str()
            ));
        }
        let value = match coverage {
            Coverage::FullObject => {
                let digests: Vec<_> =
                    parts.iter().map(|(_, part)| (part.digest.clone(), part.segment.len)).collect();
                let whole = combine(algorithm, &digests);
                encode(&whole.ok_or_else(|| s3_error!(InternalError, "checksum does not combine"))?)
            }
            Coverage::Composite => {
                let digests: Vec<u8> =
                    parts.iter().flat_map(|(_, part)| part.digest.iter().copied()).collect();
                format!("{}-{}", encode(&algorithm.of(&digests)), parts.len())
            }
        };
        for (declared, stated) in Algorithm::ALL.into_iter().zip(&self.declared) {
            let Some(stated) = stated else { continue };
            if (declared != algorithm || *stated != value) && !self.trusting {
                let name = declared.name();
                return Err(s3_error!(
                    BadDigest,
                    "The {name} you specified did not match the calculated checksum."
                ));
            }
        }
        Ok(StoredChecksum { algorithm, coverage, value })
    }
}

fn part_checksums(part: &CompletedPart) -> [Option<&str>; 5] {
    [
        part.checksum_crc32.as_deref(),
        part.checksum_crc32c.as_deref(),
        part.checksum_crc64nvme.as_deref(),
        part.checksum_sha1.as_deref(),
        part.checksum_sha256.as_deref(),
    ]
}

fn invalid_part() -> s3s::S3Error {
    s3_error!(
        InvalidPart,
        "One or more of the specified parts could not be found. The part might not have been uploaded, or the \
         specified entity tag might not have matched the part's entity tag."
    )
}
