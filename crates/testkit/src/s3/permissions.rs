//! Who is asking, whether they may, and whether a fault hits them; runs after the signature was checked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::{HeaderMap, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::core::Core;
use super::faults::Effect;
use super::note::{Note, ReplyFault, missing};
use super::options::{Credential, Role};

/// How far a request's clock may be from the server's.
const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

const READS: [&str; 16] = [
    "GetBucketLocation",
    "GetBucketVersioning",
    "GetObject",
    "GetObjectLegalHold",
    "GetObjectLockConfiguration",
    "GetObjectRetention",
    "GetObjectTagging",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListMultipartUploads",
    "ListObjectVersions",
    "ListObjects",
    "ListObjectsV2",
    "ListParts",
    "GetObjectAttributes",
];
const WRITES: [&str; 6] = [
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CreateMultipartUpload",
    "PutObject",
    "PutObjectRetention",
    "UploadPart",
];

/// Looks up secrets.
pub(super) struct Secrets(pub(super) Arc<Core>);

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.credential(access_key) {
            Some(credential) => Ok(SecretKey::from(credential.secret_key.as_str())),
            None => Err(s3_error!(
                InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records."
            )),
        }
    }
}

/// Applies roles, the clock window and the fault rules, in this order.
pub(super) struct Gatekeeper(pub(super) Arc<Core>);

#[async_trait::async_trait]
impl S3Access for Gatekeeper {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = context.s3_op().name().to_owned();
        let key = context.s3_path().get_object_key().map(str::to_owned);
        let access_key = context.credentials().map(|credentials| credentials.access_key.clone());
        let note = context.extensions_mut().get::<Note>().cloned().ok_or_else(missing)?;
        let credential = access_key.as_deref().and_then(|access_key| self.0.credential(access_key));
        {
            let mut facts = note.lock();
            facts.operation = Some(operation.clone());
            facts.access_key = access_key.clone();
            facts.bypass_allowed = credential.is_some_and(|credential| credential.role == Role::Admin);
        }
        let Some(credential) = credential else {
            return Err(s3_error!(AccessDenied, "Access Denied: the request is not signed"));
        };
        check_role(credential, &operation, key.as_deref(), context.headers())?;
        check_clock(context.headers(), [self.0.faults.now(), self.0.faults.date()])?;
        match self.0.faults.decide(&operation, key.as_deref()) {
            None => Ok(()),
            Some(effect) => act(effect, &note).await,
        }
    }
}

fn check_role(
    credential: &Credential,
    operation: &str,
    key: Option<&str>,
    headers: &HeaderMap,
) -> S3Result<()> {
    let reads = READS.contains(&operation);
    match credential.role {
        Role::Admin => Ok(()),
        Role::Reader if reads => Ok(()),
        Role::Writer if reads => Ok(()),
        Role::Writer if WRITES.contains(&operation) => check_create_only(credential, operation, key, headers),
        Role::Reader | Role::Writer => {
            Err(s3_error!(AccessDenied, "Access Denied: this role may not call {operation}"))
        }
    }
}

fn check_create_only(
    credential: &Credential,
    operation: &str,
    key: Option<&str>,
    headers: &HeaderMap,
) -> S3Result<()> {
    if !matches!(operation, "PutObject" | "CompleteMultipartUpload") {
        return Ok(());
    }
    let creates = headers.get("if-none-match").is_some_and(|value| value == "*");
    let swaps = headers.contains_key("if-match") && key.is_some_and(|key| credential.is_replaceable(key));
    if creates || swaps {
        return Ok(());
    }
    Err(s3_error!(AccessDenied, "Access Denied: this role writes only with If-None-Match: *"))
}

/// Refuses requests signed far from the server's clock; who believes a wrong `Date` header is not punished for it.
fn check_clock(headers: &HeaderMap, clocks: [SystemTime; 2]) -> S3Result<()> {
    let Some(signed) = headers.get("x-amz-date").and_then(|value| parse_amz_date(value.to_str().ok()?))
    else {
        return Ok(());
    };
    let distance = |clock: SystemTime| clock.duration_since(signed).unwrap_or_else(|error| error.duration());
    if clocks.into_iter().any(|clock| distance(clock) <= MAX_SKEW) {
        return Ok(());
    }
    Err(s3_error!(
        RequestTimeTooSkewed,
        "The difference between the request time and the current time is too large."
    ))
}

/// `20261122T143000Z`.
fn parse_amz_date(text: &str) -> Option<SystemTime> {
    let parsed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    Some(parsed.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().into())
}

async fn act(effect: Effect, note: &Note) -> S3Result<()> {
    let spoil = |fault| note.lock().reply = Some(fault);
    match effect {
        Effect::InternalError => Err(internal_error()),
        Effect::ServiceUnavailable => {
            Err(s3_error!(ServiceUnavailable, "Service is unable to handle request."))
        }
        Effect::SlowDown => Err(s3_error!(SlowDown, "Please reduce your request rate.")),
        Effect::AccessDenied => Err(s3_error!(AccessDenied, "Access Denied")),
        Effect::Conflict => Err(s3_error!(
            ConditionalRequestConflict,
            "The conditional request cannot succeed due to a conflicting operation against this resource."
        )),
        Effect::ErrorInside200 => {
            spoil(ReplyFault::Inside200);
            Err(internal_error())
        }
        Effect::Error { status, code } => {
            let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), "An injected error");
            error.set_status_code(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
            Err(error)
        }
        Effect::Delay(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Effect::DropRequest => {
            spoil(ReplyFault::Lost);
            Err(internal_error())
        }
        Effect::LoseReply => {
            spoil(ReplyFault::Lost);
            Ok(())
        }
        Effect::CutUpload(bytes) => {
            let mut facts = note.lock();
            facts.reply = Some(ReplyFault::Lost);
            facts.upload_limit = Some(bytes);
            Ok(())
        }
        Effect::CutReply(bytes) => {
            spoil(ReplyFault::Cut(bytes));
            Ok(())
        }
        Effect::StallReply { after, pause } => {
            spoil(ReplyFault::Stalled(after, pause));
            Ok(())
        }
        Effect::FlipReplyBit(byte) => {
            spoil(ReplyFault::Flipped(byte));
            Ok(())
        }
    }
}

fn internal_error() -> S3Error {
    s3_error!(InternalError, "We encountered an internal error. Please try again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(
        credential: &Credential,
        operation: &str,
        key: &str,
        header: Option<(&'static str, &str)>,
    ) -> bool {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().unwrap());
        }
        check_role(credential, operation, Some(key), &headers).is_ok()
    }

    #[test]
    fn a_writer_creates_and_swaps_leases_and_nothing_else() {
        let writer = Credential::writer("a", "s");
        let create = Some(("if-none-match", "*"));
        let swap = Some(("if-match", "\"e\""));
        assert!(allowed(&writer, "PutObject", "s/sets/x", create));
        assert!(!allowed(&writer, "PutObject", "s/sets/x", None));
        assert!(!allowed(&writer, "PutObject", "s/sets/x", Some(("if-none-match", "\"e\""))));
        assert!(!allowed(&writer, "CompleteMultipartUpload", "s/sets/x", swap));
        assert!(allowed(&writer, "PutObject", "s/leases/x", swap));
        assert!(!allowed(&writer, "PutObject", "s/leases/x", None));
        assert!(!allowed(&writer, "PutObject", "s/releases/x", swap));
        assert!(allowed(&writer, "UploadPart", "s/sets/x", None));
        for operation in
            ["DeleteObject", "DeleteObjects", "PutBucketVersioning", "PutObjectTagging", "PostObject"]
        {
            assert!(!allowed(&writer, operation, "s/leases/x", create), "{operation}");
        }
    }

    #[test]
    fn a_reader_only_reads() {
        let reader = Credential::reader("a", "s");
        assert!(allowed(&reader, "GetObject", "x", None));
        assert!(allowed(&reader, "ListObjectsV2", "x", None));
        assert!(!allowed(&reader, "PutObject", "x", Some(("if-none-match", "*"))));
        assert!(!allowed(&reader, "AbortMultipartUpload", "x", None));
    }

    #[test]
    fn amz_dates_are_read() {
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_357_800);
        assert_eq!(parse_amz_date("20261122T143000Z"), Some(expected));
        assert_eq!(parse_amz_date("yesterday"), None);
    }
}
