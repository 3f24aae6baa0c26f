//! What comes from the environment: the AWS chain's credentials, and trusted certificates. Each case runs this program
//! again with an environment of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;
mod tls;

use std::process::{Command, Output};

use backstay_backup_core::key::Prefix;
use backstay_storage_s3::{Credentials, Error, S3Options, S3Store};
use bytes::Bytes;
use common::*;

/// Set in a process that is the child of a case.
const CHILD: &str = "BACKSTAY_TEST_CHILD";
const ENDPOINT: &str = "BACKSTAY_TEST_ENDPOINT";
const PROFILE: &str = "BACKSTAY_TEST_PROFILE";

/// What a process with the environment of a case does.
#[expect(clippy::print_stdout, reason = "the outcome goes to the process that started this one")]
async fn child() {
    let variable = |name| std::env::var(name).ok();
    let mut options = S3Options::new(PLAIN)
        .prefix(Prefix::parse("chain").unwrap())
        .credentials(Credentials::Chain { profile: variable(PROFILE) });
    if let Some(endpoint) = variable(ENDPOINT) {
        options = options.endpoint(endpoint);
    }
    let store = match S3Store::open(options).await {
        Ok(store) => store,
        Err(error @ Error::NoRegion { .. }) => return println!("\nOUTCOME {error}"),
        Err(error) => panic!("{error}"),
    };
    match create(&store, "a", Bytes::from_static(b"x")).await {
        Ok(_) => println!("\nOUTCOME stored"),
        Err(error) => println!("\nOUTCOME {} temporary: {}", words(&error), error.is_temporary()),
    }
}

async fn outcome(environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "credentials_come_from_the_environment", "--nocapture"]);
    command.env_clear().env(CHILD, "1").env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(environment.iter().copied());
    let Output { stdout, stderr, .. } =
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("OUTCOME "));
    line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&stderr))).to_owned()
}

#[tokio::test]
async fn credentials_come_from_the_environment() {
    if std::env::var_os(CHILD).is_some() {
        return child().await;
    }
    let server = server().await;
    let endpoint = server.endpoint();
    let found =
        [(ENDPOINT, endpoint.as_str()), ("AWS_ACCESS_KEY_ID", ADMIN.0), ("AWS_SECRET_ACCESS_KEY", ADMIN.1)];
    assert_eq!(outcome(&found).await, "stored");
    let log = server.access_log();
    let put = log.iter().find(|record| record.operation == "PutObject").unwrap();
    assert_eq!((put.access_key.as_deref(), put.key.as_deref()), (Some(ADMIN.0), Some("chain/a")));
}

#[tokio::test]
async fn credentials_and_region_come_from_a_profile() {
    let server = server().await;
    let scratch = tempfile::tempdir().unwrap();
    let credentials = scratch.path().join("credentials");
    let config = scratch.path().join("config");
    let text = format!("[backup]\naws_access_key_id = {}\naws_secret_access_key = {}\n", WRITER.0, WRITER.1);
    std::fs::write(&credentials, text).unwrap();
    std::fs::write(&config, "[profile backup]\nregion = eu-central-1\n").unwrap();
    let endpoint = server.endpoint();
    let files = [
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()),
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        (ENDPOINT, endpoint.as_str()),
    ];
    let named = [&files[..], &[(PROFILE, "backup")]].concat();
    assert_eq!(outcome(&named).await, "stored");
    assert!(server.access_log().iter().any(|record| record.access_key.as_deref() == Some(WRITER.0)));

    let other = [&files[..], &[(PROFILE, "backpu")]].concat();
    let text = outcome(&other).await;
    assert!(text.contains("credentials") && text.ends_with("temporary: false"), "{text}");
}

#[tokio::test]
async fn missing_credentials_and_regions_are_named() {
    let server = server().await;
    let text = outcome(&[(ENDPOINT, &server.endpoint())]).await;
    assert!(text.starts_with("not allowed to store a: no credentials"), "{text}");
    assert!(server.access_log().is_empty());
    assert_eq!(outcome(&[]).await, "no region is set for bucket plain");
}

#[tokio::test]
async fn a_certificate_is_trusted_when_its_authority_is() {
    let server = server().await;
    let tls = tls::front(server.address()).await;
    let endpoint = format!("https://localhost:{}", tls.port);
    let keys =
        [(ENDPOINT, endpoint.as_str()), ("AWS_ACCESS_KEY_ID", ADMIN.0), ("AWS_SECRET_ACCESS_KEY", ADMIN.1)];
    let trusting = [&keys[..], &[("SSL_CERT_FILE", tls.authority.path().to_str().unwrap())]].concat();
    assert_eq!(outcome(&trusting).await, "stored");

    let text = outcome(&keys).await;
    assert!(text.contains("invalid peer certificate") && text.contains("SSL_CERT_FILE"), "{text}");
    assert!(text.ends_with("temporary: false"), "{text}");
}

#[tokio::test]
async fn a_store_without_tls_needs_no_certificates() {
    let server = server().await;
    let endpoint = server.endpoint();
    // The usual client stops there, in a debug build, when it is asked for anything.
    let keys = [
        (ENDPOINT, endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", ADMIN.0),
        ("AWS_SECRET_ACCESS_KEY", ADMIN.1),
        ("SSL_CERT_FILE", "/nonexistent"),
    ];
    assert_eq!(outcome(&keys).await, "stored");
}

#[tokio::test]
async fn a_store_without_tls_is_reached_through_a_proxy() {
    let server = server().await;
    let proxy = server.endpoint();
    let keys = [
        (ENDPOINT, "http://store.invalid"),
        ("AWS_ACCESS_KEY_ID", ADMIN.0),
        ("AWS_SECRET_ACCESS_KEY", ADMIN.1),
        ("HTTP_PROXY", proxy.as_str()),
    ];
    assert_eq!(outcome(&keys).await, "stored");
}

#[tokio::test]
async fn tls_to_a_plain_port_is_named() {
    let server = server().await;
    let endpoint = server.endpoint().replace("http://", "https://");
    let keys =
        [(ENDPOINT, endpoint.as_str()), ("AWS_ACCESS_KEY_ID", ADMIN.0), ("AWS_SECRET_ACCESS_KEY", ADMIN.1)];
    let text = outcome(&keys).await;
    assert!(text.contains("http://") && text.ends_with("temporary: false"), "{text}");
}
