//! One HTTP request, with precise knowledge of how far it came.
//!
//! Until the first byte of the request is written nothing can have been accepted; from then on everything may. A
//! client that hides this (pools, redirects, retries of its own) cannot tell "later" from "unknown", so this one opens
//! one connection, sends one request, follows nothing, and reads a bounded answer.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::secret::Secret;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::outbox::Outcome;

/// Longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;
/// Characters of an answer that are told.
const TOLD: usize = 300;
/// Longest wait that a header can ask for; anything longer is as good as never.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 86_400);

/// Sends requests.
#[derive(Clone)]
pub struct Client {
    tls: Arc<ClientConfig>,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Something to send.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Address, which may be a secret.
    pub url: Secret<Url>,
    /// Headers; values may be secrets.
    pub headers: Vec<(HeaderName, Secret<String>)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Call {
    /// A JSON document for an address.
    #[must_use]
    pub fn json(method: Method, url: &Secret<Url>, body: &serde_json::Value) -> Self {
        Self::new(method, url, body.to_string().into_bytes())
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
    }

    /// Bytes for an address.
    #[must_use]
    pub fn new(method: Method, url: &Secret<Url>, body: Vec<u8>) -> Self {
        Self { method, url: url.clone(), headers: Vec::new(), body }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, Secret::new(value.into())));
        self
    }

    /// Adds the header of a bearer token.
    #[must_use]
    pub fn bearer(self, token: &Secret<String>) -> Self {
        self.header(hyper::header::AUTHORIZATION, format!("Bearer {}", token.expose()))
    }
}

/// What came back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// How long to wait, where the service said so.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Bytes,
    /// Whether the body arrived as a whole; what did not is empty.
    pub is_whole: bool,
}

impl Answer {
    /// Whether it is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or(serde_json::Value::Null)
    }

    /// What it means when a service that says more than a status says something else, or nothing: whoever is no such
    /// service took nothing; whose words were lost on the way may have.
    #[must_use]
    pub fn without_answer_of(&self, service: &str) -> Outcome {
        let problem = format!("no answer of {service}: {}", self.words());
        if self.is_whole && !self.body.trim_ascii().is_empty() {
            Outcome::Later { problem }
        } else {
            Outcome::Unknown { problem }
        }
    }

    /// The status and the beginning of the body, for people.
    #[must_use]
    pub fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(4 * TOLD)]).into_owned();
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TOLD).collect();
        if text.trim().is_empty() {
            format!("HTTP {}", self.status)
        } else {
            format!("HTTP {}: {}", self.status, text.trim())
        }
    }

    /// What the status alone says, by the table of [`crate::channel`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let problem = self.words();
        match self.status {
            200..300 => Outcome::Accepted { reference: None },
            429 => Outcome::Limited { retry_after: self.retry_after, problem },
            503 if self.retry_after.is_some() => Outcome::Limited { retry_after: self.retry_after, problem },
            502 | 504 => Outcome::Unknown { problem },
            408 | 425 | 500..600 => Outcome::Later { problem },
            300..400 => {
                Outcome::Refused { problem: format!("it redirects, which no hook should: {problem}") }
            }
            _ => Outcome::Refused { problem },
        }
    }
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Before anything was sent.
    Unsent(String),
    /// Afterwards.
    Unanswered(String),
}

impl From<Broken> for Outcome {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Unsent(problem) => Self::Later { problem },
            Broken::Unanswered(problem) => Self::Unknown { problem },
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {what}: {problem}")]
pub struct TlsError {
    what: String,
    problem: String,
}

/// The authorities of this system, and those of a file.
///
/// # Errors
/// The file cannot be read, or holds no certificate.
pub fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let bad = |problem: String| TlsError { what: path.display().to_string(), problem };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
        let mut any = false;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            any = true;
        }
        if !any {
            return Err(bad("it holds no certificate".to_owned()));
        }
    }
    Ok(roots)
}

impl Client {
    /// A client that trusts the authorities of this system and those of a file, and gives up after `timeout`.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn new(ca_file: Option<&Path>, timeout: Duration) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError { what: "TLS".to_owned(), problem: error.to_string() })?
            .with_root_certificates(roots(ca_file)?)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls), timeout })
    }

    /// Whether somebody listens at the address.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn reach(&self, url: &Url) -> Result<(), String> {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or(443);
        match tokio::time::timeout(self.timeout, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("no connection to {host}:{port}: {error}")),
            Err(_) => Err(format!("no connection to {host}:{port} within {:?}", self.timeout)),
        }
    }

    /// Posts a JSON document and reads the answer.
    ///
    /// # Errors
    /// As [`Client::send`].
    ///
    /// # Cancel safety
    /// As [`Client::send`].
    pub async fn post_json(&self, url: &Secret<Url>, body: Vec<u8>) -> Result<Answer, Broken> {
        self.send(Call::new(Method::POST, url, body).header(CONTENT_TYPE, "application/json; charset=utf-8"))
            .await
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// [`Broken`], which says whether anything was sent.
    ///
    /// # Cancel safety
    /// A dropped call leaves it unknown whether the request arrived.
    pub async fn send(&self, call: Call) -> Result<Answer, Broken> {
        let mut sent = false;
        match tokio::time::timeout(self.timeout, self.exchange(call, &mut sent)).await {
            Ok(answered) => answered,
            Err(_) if sent => Err(Broken::Unanswered(format!("no answer within {:?}", self.timeout))),
            Err(_) => Err(Broken::Unsent(format!("no connection within {:?}", self.timeout))),
        }
    }

    async fn exchange(&self, call: Call, sent: &mut bool) -> Result<Answer, Broken> {
        let url = call.url.expose();
        let host =
            url.host_str().ok_or_else(|| Broken::Unsent("the address has no host".to_owned()))?.to_owned();
        let port = url.port_or_known_default().unwrap_or(443);
        let is_tls = url.scheme() == "https";
        // Numbers of IPv6 stand in brackets in an address and without them everywhere else.
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream = TcpStream::connect((bare.as_str(), port))
            .await
            .map_err(|error| Broken::Unsent(format!("no connection to {host}:{port}: {error}")))?;
        let _ = stream.set_nodelay(true);
        let request = request(&call, &host)?;
        if !is_tls {
            return answered(TokioIo::new(stream), request, sent).await;
        }
        let name = ServerName::try_from(bare).map_err(|error| Broken::Unsent(error.to_string()))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
            .map_err(|error| Broken::Unsent(format!("no trust in {host}:{port}: {error}")))?;
        answered(TokioIo::new(stream), request, sent).await
    }
}

fn request(call: &Call, host: &str) -> Result<Request<Full<Bytes>>, Broken> {
    let unsent = |error: hyper::http::Error| Broken::Unsent(format!("the request cannot be made: {error}"));
    let url = call.url.expose();
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(target)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("backstay-notify/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &call.headers {
        let mut value = HeaderValue::from_str(value.expose())
            .map_err(|_| Broken::Unsent(format!("the value for the header {name} is no header value")))?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::from(call.body.clone()))).map_err(unsent)
}

async fn answered<S>(stream: S, request: Request<Full<Bytes>>, sent: &mut bool) -> Result<Answer, Broken>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let shake = hyper::client::conn::http1::handshake(stream).await;
    let (mut sender, connection) = shake.map_err(|error| Broken::Unsent(error.to_string()))?;
    *sent = true;
    let exchange = async move {
        let response =
            sender.send_request(request).await.map_err(|error| Broken::Unanswered(words(&error)))?;
        let status = response.status().as_u16();
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(|value| retry_after(value, Timestamp::now()));
        // What a service says besides its status is a courtesy: without it the status still counts.
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let is_whole = body.is_ok();
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok(Answer { status, retry_after, body, is_whole })
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            exchange.await
        }
    }
}

fn words(error: &hyper::Error) -> String {
    backstay_backup_core::error::describe(error)
}

/// `Retry-After` in seconds, with or without a fraction, or as a date.
#[must_use]
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        let seconds = seconds.clamp(0.0, LONGEST_WAIT.as_secs_f64());
        return seconds.is_finite().then(|| Duration::from_secs_f64(seconds.ceil()));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    let wait = date.duration_since(now).as_secs();
    Some(Duration::from_secs(u64::try_from(wait).unwrap_or(0)).min(LONGEST_WAIT))
}

/// Parses an address that messages go to.
///
/// # Errors
/// It is none, or would send words over the network in the clear.
pub fn address(text: &str, insecure: bool) -> Result<Secret<Url>, String> {
    // The address itself is often the secret, so no message repeats it.
    let url = Url::parse(text.trim()).map_err(|error| format!("the address is none: {error}"))?;
    let host = url.host_str().ok_or("the address has no host")?;
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match url.scheme() {
        "https" => Ok(Secret::new(url)),
        "http" if insecure || is_here => Ok(Secret::new(url)),
        "http" => Err("the address has no TLS: use https, or set insecure = true".to_owned()),
        other => Err(format!("{other}:// is no address of a web service")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_all_its_forms_and_never_shortened() {
        let now = "2026-11-22T10:00:00Z".parse().unwrap();
        let seconds = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("3"), Some(3));
        assert_eq!(seconds("0.2"), Some(1));
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("Sun, 22 Nov 2026 10:02:00 GMT"), Some(120));
        assert_eq!(seconds("Sun, 22 Nov 2026 09:00:00 GMT"), Some(0));
        assert_eq!(seconds("-5"), Some(0));
        assert_eq!(seconds("1e300"), Some(30 * 86_400));
        for odd in ["", "soon", "NaN", "inf"] {
            let wait = seconds(odd);
            assert!(wait.is_none() || odd == "inf" || odd == "NaN", "{odd}: {wait:?}");
        }
    }

    #[test]
    fn addresses_in_the_clear_are_refused_away_from_home() {
        assert!(address("https://hooks.example/x", false).is_ok());
        assert!(address("http://127.0.0.1:8080/x", false).is_ok());
        assert!(address("http://hooks.example/secret", false).is_err());
        assert!(address("http://hooks.example/secret", true).is_ok());
        for text in ["", "hooks.example", "ftp://x/y", "https://"] {
            assert!(address(text, true).is_err(), "{text}");
        }
    }
}
