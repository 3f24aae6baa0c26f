//! A webhook signed as Standard Webhooks has it: the same id on every repetition, so that the receiver tells them apart.
//!
//! `webhook-id`, `webhook-timestamp` and `webhook-signature`, which is `v1,` and the HMAC-SHA256 of `id.timestamp.body`
//! in base64, once for each secret, so that keys can be changed without a gap.

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderName};
use jiff::Timestamp;
use serde_json::json;
use sha2::Sha256;
use url::Url;

use super::http::{Call, Client};
use super::{Channel, Draft, Message};
use crate::outbox::Outcome;
use crate::render::{Unit, clean_line, fit};

/// Largest body in bytes that receivers are told to expect.
const BODY: usize = 20_000;
const TEXT: usize = 8000;

/// A signed webhook.
#[derive(Debug)]
pub struct Webhook {
    client: Client,
    url: Secret<Url>,
    keys: Vec<Secret<Vec<u8>>>,
}

impl Webhook {
    /// The webhook at an address, signed with every secret (`whsec_…`, separated by blanks); unsigned without one.
    ///
    /// # Errors
    /// A secret that is none.
    pub fn new(client: Client, url: Secret<Url>, secrets: Option<&Secret<String>>) -> Result<Self, String> {
        let words = secrets.map(|secrets| secrets.expose().split_whitespace()).into_iter().flatten();
        let keys = words.map(key).collect::<Result<_, _>>()?;
        Ok(Self { client, url, keys })
    }
}

/// A secret: `whsec_` and 24 to 64 bytes in base64.
fn key(text: &str) -> Result<Secret<Vec<u8>>, String> {
    let wrong = "the secret is no whsec_ followed by 24 to 64 bytes in base64";
    let bytes = STANDARD.decode(text.strip_prefix("whsec_").ok_or(wrong)?).map_err(|_| wrong)?;
    if (24..=64).contains(&bytes.len()) { Ok(Secret::new(bytes)) } else { Err(wrong.to_owned()) }
}

/// The signatures of a message.
fn signature(keys: &[Secret<Vec<u8>>], id: &str, at: Timestamp, body: &[u8]) -> String {
    let one = |key: &Secret<Vec<u8>>| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{}.", at.as_second()).as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    keys.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn payload(message: &Message<'_>) -> String {
    let notice = message.notice;
    let mut room = TEXT;
    loop {
        let line = |text: &str| fit(&clean_line(text), room.min(1000), Unit::Bytes);
        let body = json!({
            "type": format!("backstay.{}", notice.kind),
            "timestamp": notice.created.to_string(),
            "data": {
                "id": notice.id,
                "thread": notice.thread,
                "severity": notice.severity,
                "status": notice.status,
                "title": line(&notice.title),
                "subject": line(&message.letter.subject),
                "text": fit(&message.letter.body, room, Unit::Bytes),
                "impact": line(&notice.impact),
                "commander": notice.commander.as_deref().map(line),
                "source": line(&notice.source),
                "tells-updates": message.letter.merged,
            },
        })
        .to_string();
        if body.len() <= BODY || room == 0 {
            return body;
        }
        room /= 2;
    }
}

#[async_trait]
impl Channel for Webhook {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Webhook
    }

    fn is_idempotent(&self) -> bool {
        true
    }

    fn per_minute(&self) -> u32 {
        600
    }

    async fn reach(&self) -> Result<(), String> {
        self.client.reach(self.url.expose()).await
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        vec![Draft::new("POST", payload(message))]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        let body = payload(message).into_bytes();
        let id = &message.notice.id;
        let signature = signature(&self.keys, id, message.now, &body);
        let mut call = Call::new(Method::POST, &self.url, body)
            .header(CONTENT_TYPE, "application/json")
            .header(HeaderName::from_static("webhook-id"), id)
            .header(HeaderName::from_static("webhook-timestamp"), message.now.as_second().to_string());
        if !signature.is_empty() {
            call = call.header(HeaderName::from_static("webhook-signature"), signature);
        }
        match self.client.send(call).await {
            Ok(answer) => answer.outcome(),
            Err(broken) => broken.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let at = Timestamp::from_second(1_614_265_330).unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_that_are_none_are_refused_without_being_told() {
        for text in ["x", "whsec_", "whsec_AAAA", "whsec_!!!"] {
            let problem = key(text).unwrap_err();
            assert!(!problem.contains("AAAA"), "{problem}");
        }
    }
}
