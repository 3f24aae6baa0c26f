use aws_sdk_s3::error::ErrorMetadata;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;

use super::*;

fn response(status: u16, body: &str) -> Response {
    Response::new(status.try_into().unwrap(), SdkBody::from(body))
}

fn service_error(status: u16, code: &str, message: &str) -> SdkError<GetObjectError, Response> {
    let meta = ErrorMetadata::builder().code(code).message(message).build();
    SdkError::service_error(GetObjectError::generic(meta), response(status, ""))
}

fn mapped(error: &SdkError<GetObjectError, Response>) -> StoreError {
    let key = Key::parse("a/b").unwrap();
    failure(error).into_error("read", Target::Key(&key), "s3://bucket")
}

#[test]
fn only_a_missing_key_is_absence() {
    assert!(mapped(&service_error(404, "NoSuchKey", "gone")).is_absent());
    assert!(matches!(mapped(&service_error(404, "NoSuchBucket", "gone")), StoreError::Missing { .. }));
    for code in ["NotFound", "NoSuchUpload", "Nonsense", ""] {
        assert!(matches!(mapped(&service_error(404, code, "?")), StoreError::Failed { .. }), "{code}");
    }
    assert!(matches!(
        mapped(&SdkError::response_error("?", response(404, "<html>"))),
        StoreError::Failed { .. }
    ));
}

#[test]
fn what_may_pass_is_temporary() {
    for (status, code) in [
        (503, "SlowDown"),
        (500, "InternalError"),
        (200, "InternalError"),
        (502, "BadGateway"),
        (429, "x"),
        (409, "ConditionalRequestConflict"),
        (400, "RequestTimeout"),
    ] {
        assert!(mapped(&service_error(status, code, "?")).is_temporary(), "{status} {code}");
    }
    let dispatch = SdkError::dispatch_failure(ConnectorError::io("connection refused".into()));
    assert!(mapped(&dispatch).is_temporary());
    assert!(mapped(&SdkError::timeout_error("slow")).is_temporary());
    assert!(mapped(&SdkError::response_error("cut", response(200, "<List"))).is_temporary());
}

#[test]
fn what_cannot_pass_is_not_repeated() {
    assert!(matches!(mapped(&service_error(403, "AccessDenied", "no")), StoreError::Denied { .. }));
    assert!(matches!(mapped(&service_error(403, "InvalidObjectState", "cold")), StoreError::Failed { .. }));
    assert!(matches!(mapped(&service_error(501, "NotImplemented", "no")), StoreError::Failed { .. }));
    assert!(matches!(mapped(&service_error(507, "XMinioStorageFull", "no")), StoreError::Full { .. }));
    assert!(matches!(mapped(&service_error(400, "InvalidRequest", "no")), StoreError::Failed { .. }));
}

#[test]
fn the_store_says_when_to_come_back() {
    let mut raw = response(503, "");
    raw.headers_mut().insert("retry-after", "7");
    let meta = ErrorMetadata::builder().code("SlowDown").build();
    match mapped(&SdkError::service_error(GetObjectError::generic(meta), raw)) {
        StoreError::Temporary { retry_after, .. } => assert_eq!(retry_after, Some(Duration::from_secs(7))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_clock_is_told_with_both_times() {
    let body = "<Error><Code>RequestTimeTooSkewed</Code><RequestTime>20260102T030405Z</RequestTime>\
                <ServerTime>2027-01-02T03:04:05Z</ServerTime></Error>";
    let meta = ErrorMetadata::builder().code("RequestTimeTooSkewed").message("too far").build();
    let error = mapped(&SdkError::service_error(GetObjectError::generic(meta), response(403, body)));
    let text = error.source().unwrap().to_string();
    assert!(matches!(error, StoreError::Clock { .. }));
    assert!(text.contains("2026-01-02T03:04:05Z") && text.contains("2027-01-02T03:04:05Z"), "{text}");
}

#[test]
fn messages_carry_no_signature() {
    let error = mapped(&service_error(403, "SignatureDoesNotMatch", "for https://h/k?X-Amz-Signature=feed"));
    assert!(!error.source().unwrap().to_string().contains("feed"));
}
