//! Signs a request as AWS wants it (Signature Version 4): a form that is posted to the root of a service.
//!
//! ```text
//! request in a normal form ─SHA-256─▶ text to sign ─HMAC with the key of day, region and service─▶ Authorization
//! ```

use backstay_backup_core::manifest::Sha256Hex;
use backstay_backup_core::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::Sha256;

/// Keys of an account of AWS, for a while or for good.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: Secret<String>,
    /// Of keys that are given for a while.
    pub(super) session: Option<Secret<String>>,
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    /// Names and values in order of their names, encoded.
    pub(super) query: &'a str,
    pub(super) content_type: &'a str,
    pub(super) body: &'a [u8],
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) at: Timestamp,
}

/// The headers that a signed request has besides its host and content type.
pub(super) struct Signed {
    pub(super) date: String,
    pub(super) authorization: String,
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256Hex::of(bytes).0)
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Signs a request.
pub(super) fn sign(request: &Request<'_>, keys: &Keys) -> Signed {
    let Request { method, host, query, content_type, body, region, service, at } = *request;
    let date = at.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
    let day = &date[..8];
    let (mut headers, mut names) = (
        format!("content-type:{content_type}\nhost:{host}\nx-amz-date:{date}\n"),
        "content-type;host;x-amz-date".to_owned(),
    );
    if let Some(session) = &keys.session {
        headers.push_str(&format!("x-amz-security-token:{}\n", session.expose()));
        names.push_str(";x-amz-security-token");
    }
    let normal = format!("{method}\n/\n{query}\n{headers}\n{names}\n{}", hash(body));
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hash(normal.as_bytes()));
    let secret = format!("AWS4{}", keys.secret.expose());
    let key =
        [day, region, service, "aws4_request"].iter().fold(secret.into_bytes(), |key, part| hmac(&key, part));
    let signature = hex::encode(hmac(&key, &text));
    let id = &keys.id;
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
    Signed { date, authorization }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of AWS's own documentation.
    #[test]
    fn signatures_are_those_of_the_documentation() {
        let keys = Keys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session: None,
        };
        let request = Request {
            method: "GET",
            host: "iam.amazonaws.com",
            query: "Action=ListUsers&Version=2010-05-08",
            content_type: "application/x-www-form-urlencoded; charset=utf-8",
            body: b"",
            region: "us-east-1",
            service: "iam",
            at: "2015-08-30T12:36:00Z".parse().unwrap(),
        };
        let signed = sign(&request, &keys);
        assert_eq!(signed.date, "20150830T123600Z");
        assert_eq!(
            signed.authorization,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }
}
