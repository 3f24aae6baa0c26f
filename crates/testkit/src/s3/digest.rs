//! Checksums of object bodies: what the client declared, what really arrived.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::ChecksumType;
use s3s::{S3Result, TrailingHeaders, s3_error};
use serde::{Deserialize, Serialize};

use super::api::custom_error;

/// Checksum algorithms S3 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub(super) const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// Name as in `x-amz-checksum-algorithm`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    pub(super) fn parse(name: &str) -> S3Result<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported: {name}"))
    }

    fn digest_len(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// Digest of a short text in memory.
    pub(super) fn of(self, data: &[u8]) -> Vec<u8> {
        let mut hasher = Hasher::new(self);
        hasher.update(data);
        hasher.finish()
    }
}

/// How the checksum of a multipart object covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Coverage {
    /// Over all bytes.
    FullObject,
    /// Over the checksums of the parts.
    Composite,
}

impl Coverage {
    pub(super) fn to_dto(self) -> ChecksumType {
        ChecksumType::from_static(match self {
            Self::FullObject => ChecksumType::FULL_OBJECT,
            Self::Composite => ChecksumType::COMPOSITE,
        })
    }

    /// What a multipart upload gets: the type asked for if the algorithm has it, else the algorithm's usual one.
    pub(super) fn choose(algorithm: Option<Algorithm>, asked: Option<&ChecksumType>) -> S3Result<Self> {
        let asked = match asked.map(ChecksumType::as_str) {
            None => None,
            Some(ChecksumType::FULL_OBJECT) => Some(Self::FullObject),
            Some(ChecksumType::COMPOSITE) => Some(Self::Composite),
            Some(other) => {
                return Err(s3_error!(InvalidRequest, "Value for x-amz-checksum-type is invalid: {other}"));
            }
        };
        match (algorithm, asked) {
            (None | Some(Algorithm::Crc64Nvme), Some(Self::Composite))
            | (Some(Algorithm::Sha1 | Algorithm::Sha256), Some(Self::FullObject)) => Err(s3_error!(
                InvalidRequest,
                "The checksum type cannot be used with the checksum algorithm."
            )),
            (_, Some(asked)) => Ok(asked),
            (None | Some(Algorithm::Crc64Nvme), None) => Ok(Self::FullObject),
            (Some(_), None) => Ok(Self::Composite),
        }
    }
}

/// Checksum kept with an object, in the form it is sent in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredChecksum {
    pub(super) algorithm: Algorithm,
    pub(super) coverage: Coverage,
    pub(super) value: String,
}

enum Hasher {
    Crc32(Crc32),
    Crc32c(Crc32c),
    Crc64Nvme(Crc64Nvme),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32 => Self::Crc32(Crc32::new()),
            Algorithm::Crc32c => Self::Crc32c(Crc32c::new()),
            Algorithm::Crc64Nvme => Self::Crc64Nvme(Crc64Nvme::new()),
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, data: &[u8]) {
        match self {
            Self::Crc32(hasher) => hasher.update(data),
            Self::Crc32c(hasher) => hasher.update(data),
            Self::Crc64Nvme(hasher) => hasher.update(data),
            Self::Sha1(hasher) => hasher.update(data),
            Self::Sha256(hasher) => hasher.update(data),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc32(hasher) => hasher.finalize().to_vec(),
            Self::Crc32c(hasher) => hasher.finalize().to_vec(),
            Self::Crc64Nvme(hasher) => hasher.finalize().to_vec(),
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
        }
    }
}

/// Computes everything needed from a body in one pass.
pub(super) struct Hashers {
    md5: Option<Md5>,
    sums: Vec<(Algorithm, Hasher)>,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Digests {
    pub(super) md5: Option<[u8; 16]>,
    sums: Vec<(Algorithm, Vec<u8>)>,
}

impl Hashers {
    pub(super) fn new(md5: bool, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let mut sums: Vec<(Algorithm, Hasher)> = Vec::new();
        for algorithm in algorithms {
            if sums.iter().all(|(known, _)| *known != algorithm) {
                sums.push((algorithm, Hasher::new(algorithm)));
            }
        }
        Self { md5: md5.then(Md5::new), sums }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(data);
        }
        for (_, hasher) in &mut self.sums {
            hasher.update(data);
        }
    }

    pub(super) fn finish(self) -> Digests {
        let sums = self.sums.into_iter().map(|(algorithm, hasher)| (algorithm, hasher.finish())).collect();
        Digests { md5: self.md5.map(Md5::finalize), sums }
    }
}

impl Digests {
    pub(super) fn get(&self, algorithm: Algorithm) -> Option<&[u8]> {
        self.sums.iter().find(|(known, _)| *known == algorithm).map(|(_, digest)| digest.as_slice())
    }

    pub(super) fn encoded(&self, algorithm: Algorithm) -> Option<String> {
        self.get(algorithm).map(encode)
    }
}

/// What the client says about the body it sends.
#[derive(Debug, Default)]
pub(super) struct Declared {
    md5: Option<Vec<u8>>,
    algorithm: Option<Algorithm>,
    value: Option<Vec<u8>>,
    trailers: Option<TrailingHeaders>,
}

impl Declared {
    /// Reads the checksum headers; `values` are those of the request, in the order of [`Algorithm::ALL`].
    pub(super) fn new(
        content_md5: Option<&str>,
        values: [Option<String>; 5],
        trailer_names: Option<&str>,
        trailers: Option<&TrailingHeaders>,
    ) -> S3Result<Self> {
        let md5 = content_md5.map(|text| BASE64.decode(text).ok().filter(|md5| md5.len() == 16));
        if md5 == Some(None) {
            return Err(s3_error!(InvalidDigest, "The Content-MD5 you specified was invalid."));
        }
        let mut declared = Self { md5: md5.flatten(), ..Self::default() };
        for (algorithm, value) in Algorithm::ALL.into_iter().zip(values) {
            if let Some(value) = value {
                declared.add(algorithm)?;
                declared.value = Some(decode(algorithm, &value)?);
            }
        }
        for name in trailer_names.into_iter().flat_map(|names| names.split(',')) {
            if let Some(name) = name.trim().to_ascii_lowercase().strip_prefix("x-amz-checksum-") {
                declared.add(Algorithm::parse(name)?)?;
                declared.trailers = trailers.cloned();
            }
        }
        Ok(declared)
    }

    fn add(&mut self, algorithm: Algorithm) -> S3Result<()> {
        if self.algorithm.replace(algorithm).is_some() {
            return Err(s3_error!(
                InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple were found."
            ));
        }
        Ok(())
    }

    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    pub(super) fn has_md5(&self) -> bool {
        self.md5.is_some()
    }

    /// Compares with what arrived; to be called once the whole body, trailers included, was read.
    pub(super) fn verify(&self, digests: &Digests) -> S3Result<()> {
        if let (Some(expected), Some(actual)) = (&self.md5, &digests.md5)
            && expected.as_slice() != actual
        {
            return Err(s3_error!(
                BadDigest,
                "The Content-MD5 you specified did not match what we received."
            ));
        }
        let Some(algorithm) = self.algorithm else { return Ok(()) };
        let expected = match &self.value {
            Some(value) => value.clone(),
            None => self.trailer(algorithm)?,
        };
        if digests.get(algorithm) == Some(expected.as_slice()) {
            return Ok(());
        }
        let name = algorithm.name();
        Err(s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum."))
    }

    fn trailer(&self, algorithm: Algorithm) -> S3Result<Vec<u8>> {
        let header = format!("x-amz-checksum-{}", algorithm.name().to_ascii_lowercase());
        let value = self.trailers.as_ref().and_then(|trailers| {
            trailers
                .read(|map| map.get(&header).and_then(|value| value.to_str().ok()).map(str::to_owned))
                .flatten()
        });
        match value {
            Some(value) => decode(algorithm, &value),
            None => {
                let message = "The request lacks the trailer it announced.";
                Err(custom_error("MalformedTrailerError", hyper::StatusCode::BAD_REQUEST, message))
            }
        }
    }
}

pub(super) fn encode(digest: &[u8]) -> String {
    BASE64.encode(digest)
}

/// Reads a checksum in the form clients send it.
pub(super) fn decode(algorithm: Algorithm, text: &str) -> S3Result<Vec<u8>> {
    BASE64.decode(text).ok().filter(|digest| digest.len() == algorithm.digest_len()).ok_or_else(|| {
        let name = algorithm.name().to_ascii_lowercase();
        s3_error!(InvalidRequest, "Value for x-amz-checksum-{name} header is invalid.")
    })
}

/// CRC of the concatenation of parts given as digest and length; `None` for algorithms that cannot do that.
pub(super) fn combine(algorithm: Algorithm, parts: &[(Vec<u8>, u64)]) -> Option<Vec<u8>> {
    let crc = algorithm.crc()?;
    let number = |digest: &[u8]| digest.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let mut whole = parts.iter().map(|(digest, len)| (number(digest), *len));
    let (first, _) = whole.next()?;
    let combined = whole.fold(first, |sum, (part, len)| crc_fast::checksum_combine(crc, sum, part, len));
    Some(combined.to_be_bytes()[8 - algorithm.digest_len()..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // Check values of the algorithms' own catalogues for the text 123456789.
        let hex = |algorithm: Algorithm| hex::encode(algorithm.of(b"123456789"));
        assert_eq!(hex(Algorithm::Crc32), "cbf43926");
        assert_eq!(hex(Algorithm::Crc32c), "e3069283");
        assert_eq!(hex(Algorithm::Crc64Nvme), "ae8b14860a799888");
        assert_eq!(hex(Algorithm::Sha1), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
    }

    #[test]
    fn combined_crc_equals_the_crc_of_the_whole() {
        let data: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts: Vec<_> =
                data.chunks(33_333).map(|part| (algorithm.of(part), part.len() as u64)).collect();
            assert_eq!(combine(algorithm, &parts), Some(algorithm.of(&data)), "{}", algorithm.name());
        }
        assert_eq!(combine(Algorithm::Sha256, &[(vec![0; 32], 1)]), None);
    }

    #[test]
    fn two_checksums_are_one_too_many() {
        let zero = || Some(encode(&[0; 4]));
        assert!(Declared::new(None, [zero(), zero(), None, None, None], None, None).is_err());
        assert!(
            Declared::new(None, [zero(), None, None, None, None], Some("x-amz-checksum-sha1"), None).is_err()
        );
        assert!(Declared::new(Some("not base64"), Default::default(), None, None).is_err());
    }
}
