//! AWS SNS: a topic, whose subscribers get mail, queues or calls, or the telephone of one person by SMS.
//!
//! One signed form for each message; no SDK, because the outbox has to know whether a request left. Keys come from the
//! configuration, or from where AWS's own tools look for them: environment, profile files, the role of the machine.
//!
//! | | topic | telephone |
//! |---|---|---|
//! | message | 256 KiB; cut at 200,000 bytes | 1,600 bytes; half as many units where letters are not all ASCII |
//! | subject | below 100 characters of ASCII | none; it is the first line |
//!
//! A FIFO topic drops a repetition for five minutes, which is shorter than an outage: no topic counts as idempotent.

mod sign;

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::secret::Secret;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use jiff::Timestamp;
use url::Url;
use url::form_urlencoded::Serializer;

use super::http::{Answer, Broken, Call, Client};
use super::{Channel, Draft, Message};
use crate::notice::Notice;
use crate::outbox::Outcome;
use crate::render::{Letter, Unit, fit, length};
use sign::{Keys, Request, sign};

/// Longest message of a topic in bytes; AWS takes 262,144 with everything around it.
const MESSAGE: usize = 200_000;
/// Longest subject.
const SUBJECT: usize = 99;
/// Longest SMS in bytes, all parts together.
const SMS: usize = 1600;
/// Longest name that groups or tells apart messages of a FIFO topic.
const NAME: usize = 128;
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A topic, by its ARN.
    Topic(String),
    /// A telephone, as `+491701234567`.
    Phone(String),
}

impl Target {
    /// Parses an ARN of a topic, or a telephone number.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        if let ["arn", partition, "sns", region, account, topic] = parts.as_slice()
            && partition.starts_with("aws")
            && is_word(region)
            && is_word(account)
            && !topic.is_empty()
            && topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        {
            return Ok(Self::Topic(text.to_owned()));
        }
        match text.strip_prefix('+') {
            Some(digits)
                if (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) =>
            {
                Ok(Self::Phone(text.to_owned()))
            }
            _ => Err(format!(
                "{text:?} is neither a topic (arn:aws:sns:eu-central-1:123456789012:name) nor a telephone (+491701234567)"
            )),
        }
    }

    /// The region of a topic.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        match self {
            Self::Topic(arn) => arn.split(':').nth(3),
            Self::Phone(_) => None,
        }
    }

    /// The service of a region.
    #[must_use]
    pub fn service(&self, region: &str) -> String {
        let end = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("https://sns.{region}.{end}/")
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Where the keys are from.
#[derive(Clone, Debug)]
enum KeySource {
    Given(Keys),
    Chain(SharedCredentialsProvider),
}

/// A topic or a telephone.
#[derive(Debug)]
pub struct Sns {
    client: Client,
    url: Secret<Url>,
    target: Target,
    region: String,
    keys: KeySource,
}

impl Sns {
    /// A target behind the service at an address, with keys (id and secret), or with those that AWS's own tools would
    /// find, for which environment and profile files are read.
    ///
    /// # Errors
    /// The region is none; nobody knows keys.
    pub async fn new(
        client: Client,
        url: Secret<Url>,
        (target, region): (Target, &str),
        keys: Option<(&str, &Secret<String>)>,
    ) -> Result<Self, String> {
        if !is_word(region) {
            return Err(format!("{region:?} is no region"));
        }
        let keys = match keys {
            Some((id, secret)) => {
                KeySource::Given(Keys { id: id.to_owned(), secret: secret.clone(), session: None })
            }
            None => KeySource::Chain(chain(region).await?),
        };
        Ok(Self { client, url, target, region: region.to_owned(), keys })
    }

    async fn keys(&self) -> Result<Keys, String> {
        match &self.keys {
            KeySource::Given(keys) => Ok(keys.clone()),
            KeySource::Chain(provider) => {
                let found = provider.provide_credentials().await;
                let found = found
                    .map_err(|error| format!("no keys: {}", backstay_backup_core::error::describe(&error)))?;
                Ok(Keys {
                    id: found.access_key_id().to_owned(),
                    secret: Secret::new(found.secret_access_key().to_owned()),
                    session: found.session_token().map(|token| Secret::new(token.to_owned())),
                })
            }
        }
    }

    fn form(&self, message: &Message<'_>) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("Action", "Publish").append_pair("Version", "2010-03-31");
        let mut attributes = vec![
            ("severity", message.notice.severity.name().to_owned()),
            ("kind", message.notice.kind.name().to_owned()),
        ];
        match &self.target {
            Target::Topic(arn) => {
                let body = fit(&message.letter.body, MESSAGE, Unit::Bytes);
                form.append_pair("TopicArn", arn)
                    .append_pair("Subject", &subject(message.letter))
                    .append_pair("Message", if body.is_empty() { &message.letter.subject } else { &body });
                if arn.ends_with(".fifo") {
                    form.append_pair("MessageGroupId", &name(&message.notice.thread))
                        .append_pair("MessageDeduplicationId", &name(&message.notice.id));
                }
            }
            Target::Phone(number) => {
                form.append_pair("PhoneNumber", number).append_pair("Message", &sms(message.letter));
                attributes = vec![("AWS.SNS.SMS.SMSType", "Transactional".to_owned())];
            }
        }
        for (number, (name, value)) in (1..).zip(&attributes) {
            let entry = format!("MessageAttributes.entry.{number}");
            form.append_pair(&format!("{entry}.Name"), name)
                .append_pair(&format!("{entry}.Value.DataType"), "String")
                .append_pair(&format!("{entry}.Value.StringValue"), value);
        }
        form.finish()
    }

    async fn publish(&self, message: &Message<'_>, keys: &Keys) -> Result<Answer, Broken> {
        let body = self.form(message).into_bytes();
        let url = self.url.expose();
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let signed = sign(
            &Request {
                method: "POST",
                host: &host,
                query: "",
                content_type: FORM,
                body: &body,
                region: &self.region,
                service: "sns",
                // The service compares it with its own clock: the moment of the request, not one of a test.
                at: Timestamp::now(),
            },
            keys,
        );
        let mut root = url.clone();
        root.set_path("/");
        let mut call = Call::new(Method::POST, &Secret::new(root), body)
            .header(CONTENT_TYPE, FORM)
            .header(HeaderName::from_static("x-amz-date"), signed.date)
            .header(AUTHORIZATION, signed.authorization);
        if let Some(session) = &keys.session {
            call = call.header(HeaderName::from_static("x-amz-security-token"), session.expose());
        }
        self.client.send(call).await
    }
}

/// What AWS's own tools would use.
async fn chain(region: &str) -> Result<SharedCredentialsProvider, String> {
    let region = aws_config::Region::new(region.to_owned());
    let loaded = aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12()).region(region).load().await;
    loaded.credentials_provider().ok_or_else(|| "nobody knows keys of AWS".to_owned())
}

/// A subject of ASCII, as SNS wants it.
fn subject(letter: &Letter) -> String {
    let plain: String =
        letter.subject.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    let plain = plain.trim();
    match plain.chars().next() {
        None => "Notification".to_owned(),
        Some(_) if plain.len() <= SUBJECT => plain.to_owned(),
        Some(_) => format!("{}...", plain[..SUBJECT - 3].trim_end()),
    }
}

/// All that fits an SMS: a letter that is not of ASCII makes every letter twice as long.
fn sms(letter: &Letter) -> String {
    let body = if letter.body == letter.subject { "" } else { letter.body.as_str() };
    let text = format!("{}\n{body}", letter.subject);
    let text = text.trim();
    if text.is_ascii() {
        // The mark of a cut is none.
        let cut = if text.len() > SMS { format!("{}...", &text[..SMS - 3]) } else { text.to_owned() };
        return cut;
    }
    let by_units = fit(text, SMS / 2, Unit::Utf16);
    debug_assert!(length(&by_units, Unit::Utf16) <= SMS / 2);
    fit(&by_units, SMS, Unit::Bytes)
}

/// What SNS takes as a name: letters, digits and punctuation, and no more than 128 of them.
fn name(text: &str) -> String {
    let clean: String = text.chars().filter(char::is_ascii_graphic).take(NAME).collect();
    if clean.is_empty() { "backstay".to_owned() } else { clean }
}

/// The text inside of the first element of that name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

/// What an answer means.
fn verdict(answer: &Answer) -> Outcome {
    let xml = String::from_utf8_lossy(&answer.body);
    let code = element(&xml, "Code").unwrap_or_default();
    if answer.is_success() {
        return match element(&xml, "MessageId") {
            Some(_) => Outcome::Accepted { reference: None },
            None => answer.without_answer_of("SNS"),
        };
    }
    let said = element(&xml, "Message").unwrap_or_default();
    let problem = if code.is_empty() {
        answer.words()
    } else {
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        let code: String = code.chars().filter(|c| !c.is_control()).take(60).collect();
        format!("SNS says {code}: {said}")
    };
    match code {
        // A status of 400 goes with these.
        "Throttling" | "ThrottlingException" | "Throttled" | "KMSThrottling" | "TooManyRequestsException" => {
            Outcome::Limited { retry_after: answer.retry_after, problem }
        }
        // Keys for a while that ended, or a clock that is wrong: the next attempt has others.
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Outcome::Later { problem },
        "SignatureDoesNotMatch" if said.contains("expired") || said.contains("not yet current") => {
            Outcome::Later { problem }
        }
        _ => match answer.outcome() {
            Outcome::Refused { .. } => Outcome::Refused { problem },
            other => other,
        },
    }
}

#[async_trait]
impl Channel for Sns {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Sns
    }

    fn is_idempotent(&self) -> bool {
        false
    }

    /// A topic takes hundreds a second; a person does not, and an account's SMS have a price and a limit.
    fn per_minute(&self) -> u32 {
        match self.target {
            Target::Topic(_) => 600,
            Target::Phone(_) => 20,
        }
    }

    /// A telephone rings for what begins, is over, or was forgotten.
    fn takes(&self, notice: &Notice) -> bool {
        use crate::notice::Kind;
        match self.target {
            Target::Topic(_) => true,
            Target::Phone(_) => !matches!(notice.kind, Kind::DrillReport | Kind::Acknowledged),
        }
    }

    async fn reach(&self) -> Result<(), String> {
        self.client.reach(self.url.expose()).await
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        vec![Draft::new("POST Publish", self.form(message))]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        let keys = match self.keys().await {
            Ok(keys) => keys,
            Err(problem) => return Outcome::Later { problem },
        };
        match self.publish(message, &keys).await {
            Ok(answer) => verdict(&answer),
            Err(broken) => broken.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_topics_and_telephones() {
        let topic = Target::parse("arn:aws-cn:sns:cn-north-1:123456789012:on-call.fifo").unwrap();
        assert_eq!(topic.region(), Some("cn-north-1"));
        assert_eq!(topic.service("cn-north-1"), "https://sns.cn-north-1.amazonaws.com.cn/");
        assert_eq!(Target::parse("+491701234567"), Ok(Target::Phone("+491701234567".to_owned())));
        for strange in
            ["", "0170123", "+49 170", "arn:aws:sqs:eu-west-1:1:x", "arn:aws:sns:eu-west-1:1:", "+1"]
        {
            assert!(Target::parse(strange).is_err(), "{strange}");
        }
    }

    #[test]
    fn subjects_are_ascii_and_short_messages_keep_their_size() {
        let letter = Letter::new(&format!("[P0] Störung {}", "x".repeat(200)), &"Zeile ä\n".repeat(500));
        let subject = subject(&letter);
        assert!(
            subject.is_ascii() && subject.len() < 100 && subject.starts_with("[P0] St?rung "),
            "{subject}"
        );
        let text = sms(&letter);
        assert!(length(&text, Unit::Utf16) <= 800 && text.len() <= 1600, "{}", text.len());
        let plain = sms(&Letter::new("[P0] down", &"line\n".repeat(1000)));
        assert!(plain.len() <= 1600 && plain.starts_with("[P0] down\nline"), "{}", plain.len());
        assert_eq!(sms(&Letter::new("down", "down")), "down");
    }
}
