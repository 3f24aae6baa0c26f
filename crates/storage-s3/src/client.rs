//! From options to a client of the SDK, which does one attempt per call and nothing behind our back.
//!
//! Switched off on purpose: the SDK's retries (`backstay_backup_core::retry` does them, with one deadline for all
//! stores), its correction of the clock (a machine with a wrong clock must be seen, not carried through), its
//! minimum throughput check (a reader that pauses is no stalled connection; see [`crate::Timeouts`]) and its
//! validation of responses (some services answer a ranged read with the checksum of the whole object).

use std::ffi::OsString;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials as AwsCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder as HttpBuilder;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use url::Url;

use crate::options::{Checksums, Credentials, PayloadSigning, S3Options};

/// Region for services that have none but whose protocol wants one.
pub(crate) const ANY_REGION: &str = "us-east-1";
/// Most tags that S3 takes for one object.
const MAX_TAGS: usize = 10;

/// Options that cannot work; found before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has an impossible value.
    #[error("the option {option} {problem}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is wrong, without any secret.
        problem: String,
    },
    /// No region was given, and the credential chain knows none.
    #[error("no region is set for {what}")]
    NoRegion {
        /// The bucket or service.
        what: String,
    },
}

/// A client and what was decided while it was made.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// Bodies are left out of the signature.
    pub(crate) unsigned_payload: bool,
}

/// Builds the client. Reads the environment and profile files only for [`Credentials::Chain`].
pub(crate) async fn connect(options: &S3Options) -> Result<Connection, Error> {
    let endpoint = check(options)?;
    let mut builder = match static_credentials(&options.credentials)? {
        Some(credentials) => Builder::new().credentials_provider(credentials),
        None => Builder::from(
            &load_chain(&options.credentials, options.region.as_deref(), endpoint.is_some()).await,
        ),
    };
    if let Some(region) = &options.region {
        builder = builder.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.endpoint_url(endpoint.trim_end_matches('/'));
    }
    if endpoint.as_ref().is_some_and(|url| url.scheme() == "http")
        && !names_proxy(|name| std::env::var_os(name))
    {
        builder = builder.http_client(without_certificates()?);
    }
    let conf = harden(builder, options).build();
    if conf.region().is_some() {
        return Ok(Connection {
            client: Client::from_conf(conf),
            unsigned_payload: unsigned(options, endpoint.as_ref()),
        });
    }
    if options.endpoint.is_none() {
        return Err(Error::NoRegion { what: format!("bucket {}", options.bucket) });
    }
    let conf = conf.to_builder().region(Region::from_static(ANY_REGION)).build();
    Ok(Connection { client: Client::from_conf(conf), unsigned_payload: unsigned(options, endpoint.as_ref()) })
}

/// The SDK's form of credentials given as values; nothing for those that the chain has to find.
pub(crate) fn static_credentials(credentials: &Credentials) -> Result<Option<AwsCredentials>, Error> {
    let Credentials::Static { access_key_id, secret_access_key, session_token } = credentials else {
        return Ok(None);
    };
    if access_key_id.is_empty() || secret_access_key.expose().is_empty() {
        let problem = "has an empty access key id or secret access key".to_owned();
        return Err(Error::Option { option: "credentials", problem });
    }
    let token = session_token.as_ref().map(|token| token.expose().clone());
    Ok(Some(AwsCredentials::new(access_key_id, secret_access_key.expose(), token, None, "backstay")))
}

/// What the environment, profile files and metadata services say. The machine's own region is asked for only where it
/// can matter: on AWS, when none is given.
pub(crate) async fn load_chain(
    credentials: &Credentials,
    region: Option<&str>,
    own_endpoint: bool,
) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
    let mut profile_region = ProfileFileRegionProvider::builder();
    if let Credentials::Chain { profile: Some(profile) } = credentials {
        loader = loader.profile_name(profile);
        profile_region = profile_region.profile_name(profile);
    }
    if names_keys(|name| std::env::var(name).ok()) {
        loader = loader.credentials_provider(EnvironmentVariableCredentialsProvider::new());
    }
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    } else if own_endpoint {
        let configured = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(profile_region.build())
            .or_else(Region::from_static(ANY_REGION));
        loader = loader.region(configured);
    }
    loader.load().await
}

/// A client that trusts nobody, for stores without TLS. The usual one reads all certificates of the machine before its first
/// request, which programs that make one request and end would feel.
fn without_certificates() -> Result<SharedHttpClient, Error> {
    let context = TlsContext::builder().with_trust_store(TrustStore::empty()).build();
    let context =
        context.map_err(|error| Error::Option { option: "endpoint", problem: error.to_string() })?;
    let mode = rustls_provider::CryptoMode::AwsLc;
    Ok(HttpBuilder::new().tls_provider(Provider::Rustls(mode)).tls_context(context).build_https())
}

/// Whether requests go through a proxy, which the usual client sees to.
fn names_proxy(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let names = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    names.iter().any(|name| variable(name).is_some_and(|value| !value.is_empty()))
}

/// Whether the environment has keys, which the chain takes before it looks anywhere else. Then it need not be made: its other
/// links are clients that read the machine's certificates.
fn names_keys(variable: impl Fn(&str) -> Option<String>) -> bool {
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    names.iter().all(|name| variable(name).is_some_and(|value| !value.trim().is_empty()))
}

fn harden(builder: Builder, options: &S3Options) -> Builder {
    let request_checksums = match options.checksums {
        Checksums::Compatible => RequestChecksumCalculation::WhenRequired,
        Checksums::Crc64Nvme | Checksums::Crc32 => RequestChecksumCalculation::WhenSupported,
    };
    builder
        .behavior_version(BehaviorVersion::v2026_01_12())
        .retry_config(RetryConfig::disabled())
        .disable_clock_skew_correction(true)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(options.timeouts.connect).build())
        .request_checksum_calculation(request_checksums)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(options.path_style)
}

/// Whether nobody could change an unsigned body on its way, or the caller said so.
fn unsigned(options: &S3Options, endpoint: Option<&Url>) -> bool {
    match options.payload_signing {
        PayloadSigning::Always => false,
        PayloadSigning::Never => true,
        PayloadSigning::Auto => {
            options.checksums != Checksums::Compatible
                && endpoint.is_none_or(|url| url.scheme() == "https" || is_loopback(url))
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn check(options: &S3Options) -> Result<Option<Url>, Error> {
    let wrong = |option, problem: &str| Err(Error::Option { option, problem: problem.to_owned() });
    if options.bucket.is_empty() || options.bucket.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return wrong("bucket", "is no bucket name");
    }
    if options.bucket.contains('/') && !options.bucket.starts_with("arn:") {
        return wrong("bucket", "contains a slash; folders belong into the prefix");
    }
    if options.tags.len() > MAX_TAGS {
        return wrong("tags", "has more than the 10 tags that S3 allows");
    }
    if options.storage_class.as_deref().is_some_and(|class| !is_class(class)) {
        return wrong("storage-class", "is no storage class (they look like STANDARD_IA)");
    }
    options.endpoint.as_deref().map(check_endpoint).transpose()
}

fn is_class(class: &str) -> bool {
    !class.is_empty()
        && class.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

pub(crate) fn check_endpoint(text: &str) -> Result<Url, Error> {
    // The text itself stays out of the message: it may hold a password.
    let wrong = |problem: &str| Error::Option { option: "endpoint", problem: problem.to_owned() };
    let url = Url::parse(text).map_err(|_| wrong("is no URL (it looks like https://host:port)"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not contain a user name or password; give credentials separately"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must not have a query or fragment"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use backstay_backup_core::secret::Secret;

    use super::*;

    fn options() -> S3Options {
        S3Options::new("bucket").region("eu-central-1").credentials(Credentials::Static {
            access_key_id: "id".into(),
            secret_access_key: Secret::new("hush".into()),
            session_token: None,
        })
    }

    #[test]
    fn impossible_options_are_named_and_show_no_password() {
        let problem = |options: S3Options| check(&options).unwrap_err().to_string();
        assert!(problem(S3Options::new("")).contains("bucket"));
        assert!(problem(S3Options::new("a/b")).contains("prefix"));
        assert!(problem(options().storage_class("cheap")).contains("storage-class"));
        assert!(problem(options().endpoint("ftp://host")).contains("http://"));
        let with_password = problem(options().endpoint("http://user:hush@host"));
        assert!(with_password.contains("endpoint") && !with_password.contains("hush"), "{with_password}");
    }

    #[test]
    fn bodies_stay_signed_where_nothing_else_protects_them() {
        let decide = |options: S3Options| unsigned(&options, check(&options).unwrap().as_ref());
        assert!(decide(options()));
        assert!(decide(options().endpoint("https://minio.example")));
        assert!(decide(options().endpoint("http://127.0.0.1:9000")));
        assert!(!decide(options().endpoint("http://minio.example:9000")));
        assert!(!decide(options().checksums(Checksums::Compatible)));
        assert!(!decide(options().payload_signing(PayloadSigning::Always)));
    }

    #[test]
    fn any_proxy_that_could_be_meant_for_the_store_counts() {
        let set = |wanted: &'static str, value: &'static str| {
            names_proxy(move |name| (name == wanted).then(|| OsString::from(value)))
        };
        assert!(set("http_proxy", "http://proxy:3128") && set("ALL_PROXY", "socks5://proxy"));
        assert!(!set("HTTPS_PROXY", "http://proxy:3128") && !set("HTTP_PROXY", ""));
    }

    #[test]
    fn keys_count_when_both_are_there() {
        let set = |id: &'static str, secret: &'static str| {
            names_keys(move |name| Some(if name == "AWS_ACCESS_KEY_ID" { id } else { secret }.to_owned()))
        };
        assert!(set("id", "secret"));
        assert!(!set("id", " ") && !set("", "secret") && !names_keys(|_| None));
    }

    #[tokio::test]
    async fn the_secret_is_in_no_debug_output() {
        let options = options();
        let connection = connect(&options).await.unwrap();
        assert!(!format!("{options:?} {connection:?}").contains("hush"));
    }
}
