//! What the tests of the S3 server share.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its own part")]

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use backstay_testkit::s3::{BucketOptions, Credential, S3Options, S3Server};

pub(crate) const BUCKET: &str = "bucket";
pub(crate) const ADMIN: (&str, &str) = ("admin", "admin-secret");
pub(crate) const WRITER: (&str, &str) = ("writer", "writer-secret");
pub(crate) const READER: (&str, &str) = ("reader", "reader-secret");

pub(crate) fn with_roles(options: S3Options) -> S3Options {
    options
        .credential(Credential::admin(ADMIN.0, ADMIN.1))
        .credential(Credential::writer(WRITER.0, WRITER.1))
        .credential(Credential::reader(READER.0, READER.1))
}

/// A server in memory with one plain bucket and the three roles.
pub(crate) async fn start() -> S3Server {
    start_with(BucketOptions::new(BUCKET)).await
}

pub(crate) async fn start_with(bucket: BucketOptions) -> S3Server {
    S3Server::start(with_roles(S3Options::memory()).bucket(bucket)).await.unwrap()
}

pub(crate) fn config(endpoint: &str, (access, secret): (&str, &str)) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .credentials_provider(Credentials::new(access, secret, None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

/// A client that tries once.
pub(crate) fn client(server: &S3Server, keys: (&str, &str)) -> Client {
    Client::from_conf(config(&server.endpoint(), keys).build())
}

pub(crate) fn admin(server: &S3Server) -> Client {
    client(server, ADMIN)
}

/// A client that neither adds nor looks at checksums by itself.
pub(crate) fn plain(server: &S3Server) -> Client {
    let config = config(&server.endpoint(), ADMIN);
    Client::from_conf(
        config
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build(),
    )
}

pub(crate) async fn put(client: &Client, key: &str, body: impl Into<Vec<u8>>) {
    client.put_object().bucket(BUCKET).key(key).body(ByteStream::from(body.into())).send().await.unwrap();
}

pub(crate) async fn read(client: &Client, key: &str) -> Vec<u8> {
    let reply = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    reply.body.collect().await.unwrap().to_vec()
}

/// Status and code of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(
    result: Result<T, SdkError<E>>,
) -> (u16, String) {
    match result.unwrap_err() {
        SdkError::ServiceError(error) => {
            (error.raw().status().as_u16(), error.err().code().unwrap_or_default().to_owned())
        }
        other => panic!("not an answer of the server: {other:?}"),
    }
}

/// Asserts that the call was refused with this status and code.
macro_rules! assert_refused {
    ($call:expr, $status:expr, $code:expr) => {
        assert_eq!($crate::s3_client::refusal($call), ($status, $code.to_owned()))
    };
}
pub(crate) use assert_refused;

/// Bytes that differ from one place to the next.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
