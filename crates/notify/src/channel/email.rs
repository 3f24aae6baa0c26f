//! E-mail by SMTP: one thread for each incident, by ids that follow from the incident.
//!
//! `Message-ID` is made of the notice's id, so a message that goes out twice is one message to every mailbox that looks at
//! it; `References` names the first message of the thread. Headers are encoded by the library, and no text of a notice
//! reaches one without passing through [`clean_line`](crate::render::clean_line).

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::manifest::Sha256Hex;
use backstay_backup_core::secret::Secret;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use url::Url;

use super::{Channel, Draft, Message};
use crate::notice::{Kind, Notice};
use crate::outbox::Outcome;
use crate::render::{Unit, fit};
use crate::severity::Severity;

const SUBJECT: usize = 200;
/// Longest body in bytes.
const BODY: usize = 100_000;
/// Domain of the ids; a name of its own, because a host's name may change between two attempts.
const DOMAIN: &str = "notify.backstay.invalid";

/// Recipients behind one server.
#[derive(Debug)]
pub struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    timeout: Duration,
}

/// How to reach a server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Server<'a> {
    /// `smtps://host:465`, or `smtp://host:587`, which insists on STARTTLS.
    pub url: &'a str,
    /// Account and password.
    pub login: Option<(String, Secret<String>)>,
    /// Certificates of authorities to trust besides those of the system.
    pub ca_file: Option<&'a Path>,
    /// Goes on without TLS where the server has none.
    pub insecure: bool,
    /// Time for one attempt.
    pub timeout: Duration,
}

impl<'a> Server<'a> {
    /// A server that is trusted by the authorities of this system.
    #[must_use]
    pub fn new(url: &'a str, timeout: Duration) -> Self {
        Self { url, login: None, ca_file: None, insecure: false, timeout }
    }
}

impl Email {
    /// Mail from one address to several.
    ///
    /// # Errors
    /// An address, or the server's, is none; the certificates cannot be used.
    pub fn new(server: &Server<'_>, from: &str, to: &[String]) -> Result<Self, String> {
        let mailbox =
            |text: &str| text.parse::<Mailbox>().map_err(|error| format!("{text:?} is no address: {error}"));
        let url =
            Url::parse(server.url).map_err(|error| format!("the address of the server is none: {error}"))?;
        let host = url.host_str().ok_or("the address of the server has no host")?.to_owned();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_here = matches!(bare.as_str(), "localhost" | "127.0.0.1" | "::1");
        let mut tls = TlsParameters::builder(bare.clone());
        if let Some(path) = server.ca_file {
            let bad = |problem: String| format!("cannot use {}: {problem}", path.display());
            let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
            tls = tls
                .add_root_certificate(Certificate::from_pem(&pem).map_err(|error| bad(error.to_string()))?);
        }
        let tls = tls.build_rustls().map_err(|error| format!("no TLS: {error}"))?;
        let (tls, port) = match url.scheme() {
            "smtps" => (Tls::Wrapper(tls), 465),
            "smtp" if server.insecure || is_here => (Tls::Opportunistic(tls), 587),
            "smtp" => (Tls::Required(tls), 587),
            other => {
                return Err(format!("{other}:// is no address of a mail server: write smtps:// or smtp://"));
            }
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(bare)
            .port(url.port().unwrap_or(port))
            .tls(tls)
            .timeout(Some(server.timeout))
            .hello_name(ClientId::Domain("localhost".to_owned()));
        if let Some((user, password)) = &server.login {
            transport = transport.credentials(Credentials::new(user.clone(), password.expose().clone()));
        }
        Ok(Self {
            transport: transport.build(),
            timeout: server.timeout,
            from: mailbox(from)?,
            to: to.iter().map(|text| mailbox(text)).collect::<Result<_, _>>()?,
        })
    }

    fn mail(&self, message: &Message<'_>) -> Result<lettre::Message, lettre::error::Error> {
        let notice = message.notice;
        let root = id(&format!("thread {}", notice.thread));
        // An incident that becomes worse is opened once more, and that is another mail.
        let is_first =
            notice.kind == Kind::Opened && message.reference.is_none_or(|first| first == notice.id);
        let own = if is_first { root.clone() } else { id(&format!("notice {}", notice.id)) };
        let date = std::time::SystemTime::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(notice.created.as_second()).unwrap_or(0));
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .subject(fit(&message.letter.subject, SUBJECT, Unit::Chars))
            .message_id(Some(own.clone()))
            .date(date)
            .header(Extra::<0>("auto-generated"))
            .header(Extra::<1>("All"));
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        if own != root {
            builder = builder.in_reply_to(root.clone()).references(root);
        }
        if notice.severity == Severity::P0 {
            builder = builder.header(Extra::<2>("high"));
        }
        let body = fit(&message.letter.body, BODY, Unit::Bytes);
        let html = html(&message.letter.subject, &body);
        builder.multipart(MultiPart::alternative_plain_html(body, html))
    }

    /// Sends to all at once, and one by one where that was refused: one address that left does not silence the others.
    async fn send(&self, mail: &lettre::Message) -> Outcome {
        let raw = mail.formatted();
        let first = self.transport.send_raw(mail.envelope(), &raw).await;
        match first {
            Ok(_) => return Outcome::Accepted { reference: None },
            Err(error) if !error.is_permanent() || self.to.len() < 2 => return outcome(&error),
            Err(_) => {}
        }
        let (mut taken, mut refused) = (0_usize, None);
        for to in &self.to {
            let envelope =
                lettre::address::Envelope::new(Some(self.from.email.clone()), vec![to.email.clone()]);
            let Ok(envelope) = envelope else { continue };
            match self.transport.send_raw(&envelope, &raw).await {
                Ok(_) => taken += 1,
                Err(error) if error.is_permanent() => {
                    tracing::warn!(to = %to.email, %error, "address refused");
                    refused = Some(outcome(&error));
                }
                Err(error) => return outcome(&error),
            }
        }
        match refused {
            Some(refused) if taken == 0 => refused,
            _ => Outcome::Accepted { reference: None },
        }
    }
}

fn id(of: &str) -> String {
    format!("<{}@{DOMAIN}>", hex::encode(&Sha256Hex::of(of.as_bytes()).0[..16]))
}

fn outcome(error: &lettre::transport::smtp::Error) -> Outcome {
    let problem = backstay_backup_core::error::describe(error);
    if error.is_permanent() || error.is_client() {
        return Outcome::Refused { problem };
    }
    if error.is_timeout() { Outcome::Unknown { problem } } else { Outcome::Later { problem } }
}

fn html(subject: &str, body: &str) -> String {
    let escaped = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
            .replace('\'', "&#39;")
    };
    format!(
        "<!doctype html><html><head><meta charset=\"utf-8\"><title>{0}</title></head><body><h3>{0}</h3>\
         <pre style=\"font-family:inherit;white-space:pre-wrap\">{1}</pre></body></html>",
        escaped(subject),
        escaped(body)
    )
}

/// Headers that mail programs look at, by number: whether a machine wrote it, whether a machine may answer, how urgent.
#[derive(Clone, Debug)]
struct Extra<const WHICH: usize>(&'static str);

impl<const WHICH: usize> Header for Extra<WHICH> {
    fn name() -> HeaderName {
        let name = ["Auto-Submitted", "X-Auto-Response-Suppress", "Importance"][WHICH];
        HeaderName::new_from_ascii(name.to_owned()).expect("it is the name of a header")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Err("these headers are only written".into())
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), self.0.to_owned())
    }
}

/// Whether a text is an address that mail can be sent to.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.parse::<Mailbox>().is_ok() || text.parse::<Address>().is_ok()
}

#[async_trait]
impl Channel for Email {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Email
    }

    /// By its `Message-ID`.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn per_minute(&self) -> u32 {
        60
    }

    fn takes(&self, _: &Notice) -> bool {
        true
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        vec![Draft::new("MAIL", self.mail(message).map(|mail| mail.formatted()).unwrap_or_default())]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        match self.mail(message) {
            // The library's own limit is for the connection alone.
            Ok(mail) => match tokio::time::timeout(self.timeout, self.send(&mail)).await {
                // The thread is called after its first notice, which is the same mail when it is sent again.
                Ok(Outcome::Accepted { .. }) => {
                    Outcome::Accepted { reference: Some(message.notice.id.clone()) }
                }
                Ok(outcome) => outcome,
                Err(_) => Outcome::Unknown { problem: format!("no answer within {:?}", self.timeout) },
            },
            Err(error) => Outcome::Refused { problem: format!("the mail cannot be made: {error}") },
        }
    }
}
