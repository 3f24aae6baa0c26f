//! From the SDK's errors to the seam's, without losing what the difference means.
//!
//! The rule that matters most: "absent" is said only for `NoSuchKey`. A missing bucket is [`StoreError::Missing`], a 404
//! without words stays a failure, and everything that may pass (timeouts, broken connections, throttling, 5xx) is
//! [`StoreError::Temporary`], because a reader that takes a failure for absence ends a recovery too early.

use std::error::Error as StdError;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::http::Response;
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::store::StoreError;
use jiff::Timestamp;

use crate::reply::{Reply, chain};
use crate::time::from_http_date;

/// What a failed call was about, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Key(&'a Key),
    Prefix(&'a Prefix),
}

impl Target<'_> {
    fn name(self) -> String {
        match self {
            Self::Key(key) => key.to_string(),
            Self::Prefix(prefix) => prefix.to_string(),
        }
    }
}

/// The meaning of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NoKey,
    NoUpload,
    NoBucket,
    Precondition,
    BadRange,
    Denied,
    Clock,
    Checksum,
    Full,
    Temporary,
    Failed,
}

/// A failed call, not yet in the words of the seam: the caller knows what a failed condition means.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) status: Option<u16>,
    retry_after: Option<Duration>,
    reply: Reply,
}

impl Failure {
    pub(crate) fn temporary(text: impl AsRef<str>) -> Self {
        Self { kind: Kind::Temporary, status: None, retry_after: None, reply: Reply::new(text) }
    }

    /// The store answered with something that makes no sense; asking again will not help.
    pub(crate) fn broken(text: impl AsRef<str>) -> Self {
        Self { kind: Kind::Failed, status: None, retry_after: None, reply: Reply::new(text) }
    }

    /// As an error of the seam; failed conditions that the caller did not expect are plain failures.
    pub(crate) fn into_error(self, op: &'static str, target: Target<'_>, location: &str) -> StoreError {
        let what = target.name();
        let source = Box::new(self.reply);
        match (self.kind, target) {
            (Kind::NoKey, Target::Key(key)) => StoreError::Absent { key: key.clone() },
            (Kind::Checksum, Target::Key(key)) => StoreError::Checksum { key: key.clone() },
            (Kind::NoBucket, _) => StoreError::Missing { location: location.to_owned(), source },
            (Kind::Denied, _) => StoreError::Denied { op, what, source },
            (Kind::Clock, _) => StoreError::Clock { op, what, source },
            (Kind::Full, _) => StoreError::Full { op, what, source },
            (Kind::Temporary | Kind::Checksum, _) => {
                StoreError::Temporary { op, what, retry_after: self.retry_after, source }
            }
            (Kind::Failed | Kind::NoKey | Kind::NoUpload | Kind::Precondition | Kind::BadRange, _) => {
                StoreError::Failed { op, what, source }
            }
        }
    }
}

/// Reads the meaning out of an error of the SDK.
pub(crate) fn failure<E>(error: &SdkError<E, Response>) -> Failure
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ServiceError(inner) => {
            let meta = inner.err().meta();
            refused(meta.code(), meta.message(), inner.raw())
        }
        SdkError::ResponseError(inner) => {
            let raw = inner.raw();
            let status = raw.status().as_u16();
            if status >= 400 {
                return refused(None, None, raw);
            }
            // A reply that does not parse was cut or comes from something that is no S3; only the first may pass.
            Failure::temporary(format!("unreadable reply with status {status}: {}", chain(error)))
        }
        SdkError::TimeoutError(_) => Failure::temporary("no connection or answer in time"),
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => unsent(error),
        _ => Failure { kind: Kind::Failed, status: None, retry_after: None, reply: Reply::new(chain(error)) },
    }
}

/// The store answered with an error.
fn refused(code: Option<&str>, message: Option<&str>, raw: &Response) -> Failure {
    let status = raw.status().as_u16();
    let mut text = match (status, code) {
        (200..300, Some(code)) => code.to_owned(),
        (_, Some(code)) => format!("{status} {code}"),
        (_, None) => format!("status {status}"),
    };
    if let Some(message) = message.filter(|message| Some(*message) != code) {
        text.push_str(": ");
        text.push_str(message.trim_end_matches('.'));
    }
    if let Some(id) = raw.headers().get("x-amz-request-id") {
        text.push_str(", request ");
        text.push_str(id);
    }
    let kind = classify(status, code);
    Failure {
        kind,
        status: Some(status),
        retry_after: raw
            .headers()
            .get("retry-after")
            .and_then(|text| text.trim().parse().ok())
            .map(Duration::from_secs),
        reply: Reply::new(text).hint(hint(code, status, raw)),
    }
}

/// The request never got an answer, or never left.
fn unsent<E>(error: &SdkError<E, Response>) -> Failure
where
    E: StdError + 'static,
{
    let reply = Reply::new(chain(error));
    let failed = |kind, reply| Failure { kind, status: None, retry_after: None, reply };
    if let Some(credentials) = credentials_error(error) {
        let kind = match credentials {
            CredentialsError::CredentialsNotLoaded(_) => Kind::Denied,
            CredentialsError::InvalidConfiguration(_) => Kind::Failed,
            _ if chain(error).contains("AccessDenied") => Kind::Denied,
            _ => Kind::Temporary,
        };
        return failed(kind, Reply::new(format!("no credentials: {}", chain(credentials))));
    }
    match error {
        SdkError::DispatchFailure(inner) if inner.is_user() => failed(Kind::Failed, reply),
        SdkError::DispatchFailure(_) => {
            let text = chain(error);
            match LASTING.iter().find(|(words, ..)| text.contains(words)) {
                Some((_, kind, hint)) => failed(*kind, reply.hint(hint.map(str::to_owned))),
                None => failed(Kind::Temporary, reply),
            }
        }
        _ => failed(Kind::Failed, reply),
    }
}

/// Failed connections that will fail again. The texts are those of the C library (a resolver that is down says
/// something else) and of the TLS library, whose errors the SDK hands on as text only.
const LASTING: [(&str, Kind, Option<&str>); 3] = [
    ("Name or service not known", Kind::NoBucket, None),
    (
        "invalid peer certificate",
        Kind::Failed,
        Some(
            "if the service has a certificate authority of its own, add that to the system's or name it in SSL_CERT_FILE",
        ),
    ),
    (
        "InvalidContentType",
        Kind::Failed,
        Some("the service speaks no TLS there; is the endpoint http:// perhaps?"),
    ),
];

fn credentials_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a CredentialsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The meaning of a status and an error code; pure, so that the table can be tested.
fn classify(status: u16, code: Option<&str>) -> Kind {
    match code.unwrap_or_default() {
        "NoSuchKey" | "NoSuchVersion" => Kind::NoKey,
        "NoSuchUpload" => Kind::NoUpload,
        "NoSuchBucket" => Kind::NoBucket,
        "PreconditionFailed" => Kind::Precondition,
        "InvalidRange" => Kind::BadRange,
        "BadDigest" | "XAmzContentChecksumMismatch" | "XAmzContentSHA256Mismatch" => Kind::Checksum,
        "QuotaExceeded" | "XMinioStorageFull" | "XMinioBackendQuotaExceeded" | "InsufficientStorage" => {
            Kind::Full
        }
        "ConditionalRequestConflict"
        | "OperationAborted"
        | "RequestTimeout"
        | "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "ServiceUnavailable"
        | "InternalError"
        | "Busy"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "KMS.ThrottlingException"
        | "BandwidthLimitExceeded" => Kind::Temporary,
        "InvalidObjectState" | "NotImplemented" | "AuthorizationHeaderMalformed" | "PermanentRedirect" => {
            Kind::Failed
        }
        "RequestTimeTooSkewed" => Kind::Clock,
        "AccessDenied"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "TokenRefreshRequired"
        | "InvalidToken"
        | "InvalidSecurity"
        | "NotSignedUp"
        | "AccessPointNotOwnedByYou"
        | "KMS.AccessDeniedException" => Kind::Denied,
        _ => classify_status(status),
    }
}

/// For codes nobody knows, and for replies without one. A 404 alone proves nothing.
fn classify_status(status: u16) -> Kind {
    match status {
        401 | 403 => Kind::Denied,
        412 => Kind::Precondition,
        416 => Kind::BadRange,
        507 => Kind::Full,
        408 | 425 | 429 => Kind::Temporary,
        501 | 505 => Kind::Failed,
        500.. => Kind::Temporary,
        _ => Kind::Failed,
    }
}

/// What to do about it, where we know.
fn hint(code: Option<&str>, status: u16, raw: &Response) -> Option<String> {
    match code.unwrap_or_default() {
        "RequestTimeTooSkewed" => Some(skew_hint(raw)),
        "NotImplemented" => Some(NOT_IMPLEMENTED.to_owned()),
        "InvalidObjectState" => {
            Some("the object lies in an archive class and must be restored there first".to_owned())
        }
        "ExpiredToken" => Some("the temporary credentials have ended".to_owned()),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            let region = raw.headers().get("x-amz-bucket-region")?;
            Some(format!("the bucket is in region {region}"))
        }
        "" if status == 501 => Some(NOT_IMPLEMENTED.to_owned()),
        _ => None,
    }
}

const NOT_IMPLEMENTED: &str = "the service lacks something that was asked for: a conditional write, a checksum, a lock or \
                               a tag; check-storage finds out which, and each can be switched off";

/// How the hint about a wrong clock begins.
const SKEW_WORDS: &str = "the clock of this machine is wrong";

fn skew_hint(raw: &Response) -> String {
    let body = raw.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
    let field = |name: &str| -> Option<Timestamp> {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once('<')?.0.trim().parse().ok()
    };
    // Where the store does not repeat our time: the SDK signs with the system's clock, so that is what was wrong.
    let ours = field("RequestTime").unwrap_or_else(Timestamp::now);
    let theirs = field("ServerTime").or_else(|| from_http_date(raw.headers().get("date")?));
    match theirs {
        Some(theirs) => format!("{SKEW_WORDS}: it says {ours:.0}, the store says {theirs:.0}"),
        None => format!("{SKEW_WORDS}: it says {ours:.0}, the store disagrees"),
    }
}

#[cfg(test)]
#[path = "errors_tests.rs"]
mod tests;
