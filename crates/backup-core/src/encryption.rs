//! Who can read a backup: age recipients on the writing side, age identities on the reading side.
//!
//! The host that makes backups holds [`Recipients`] only, which are public; it cannot read what it wrote (P6).
//! [`Identities`] are private keys: they redact themselves in every `Debug` and never appear in an error. Encrypted
//! objects are plain age files, so `age -d -i key.txt` opens them without us (P5).

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use age::x25519;
use age::{DecryptError, Decryptor, Encryptor};

use crate::error::Error;
use crate::sealed::Header;

/// What private keys begin with.
const PRIVATE_KEY: &str = "AGE-SECRET-KEY-";

/// Public keys that a backup is encrypted to; empty means that it is not encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// No encryption.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Parses recipients (`age1…`); one named twice counts once.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] for anything else; a private key given by mistake is not repeated in it.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let mut recipients = Vec::new();
        for text in texts {
            let recipient = parse_recipient(text.trim())?;
            if !recipients.contains(&recipient) {
                recipients.push(recipient);
            }
        }
        Ok(Self(recipients))
    }

    /// Whether nothing is encrypted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Their canonical texts, as a manifest records them.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Wraps a writer so that what is written becomes one age file.
    pub(crate) fn encrypt<W: Write>(&self, output: W) -> io::Result<age::stream::StreamWriter<W>> {
        self.encrypt_with(None, output)
    }

    /// The same, with more stanzas at the beginning of its header.
    pub(crate) fn encrypt_sealed<W: Write>(
        &self,
        header: &Header<'_>,
        output: W,
    ) -> io::Result<age::stream::StreamWriter<W>> {
        self.encrypt_with(Some(header), output)
    }

    fn encrypt_with<W: Write>(
        &self,
        header: Option<&Header<'_>>,
        output: W,
    ) -> io::Result<age::stream::StreamWriter<W>> {
        let first = header.map(|header| header as &dyn age::Recipient);
        let others = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        let recipients = first.into_iter().chain(others);
        Encryptor::with_recipients(recipients).map_err(io::Error::other)?.wrap_output(output)
    }
}

fn parse_recipient(text: &str) -> Result<x25519::Recipient, Error> {
    let problem = if text.to_ascii_uppercase().starts_with(PRIVATE_KEY) {
        "a private key stands where a recipient (age1…) belongs".to_owned()
    } else {
        match x25519::Recipient::from_str(text) {
            Ok(recipient) => return Ok(recipient),
            Err(reason) => format!("{text:?} is no age recipient (age1…): {reason}"),
        }
    };
    Err(Error::InvalidKey { problem })
}

/// Private keys that can open encrypted backups.
#[derive(Clone, Default)]
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// None: only backups without encryption can be read.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Parses the content of an identity file as `age-keygen` writes it: one key a line, `#` begins a comment.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] with the number of the line, never its content.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut identities = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match x25519::Identity::from_str(line) {
                Ok(identity) => identities.push(identity),
                Err(reason) => {
                    let problem = format!("line {number} is no age identity ({PRIVATE_KEY}…): {reason}");
                    return Err(Error::InvalidKey { problem });
                }
            }
        }
        if identities.is_empty() {
            let problem = format!("there is no age identity ({PRIVATE_KEY}…) in it");
            return Err(Error::InvalidKey { problem });
        }
        Ok(Self(identities))
    }

    /// Adds the keys of another list.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The public keys that belong to them.
    #[must_use]
    pub fn recipients(&self) -> Recipients {
        Recipients(self.0.iter().map(x25519::Identity::to_public).collect())
    }

    /// Why none of these keys can open something encrypted to `recipients`; `None` when one can.
    pub(crate) fn problem(&self, recipients: &[String]) -> Option<String> {
        if self.recipients().texts().iter().any(|own| recipients.contains(own)) {
            return None;
        }
        let wanted = recipients.join(" or ");
        Some(if self.is_empty() {
            format!("give the private key of {wanted}")
        } else {
            format!("none of the keys given belongs to {wanted}")
        })
    }

    /// Opens an age file. Reads its header, so it blocks where `input` does.
    pub(crate) fn decrypt<R: io::BufRead>(&self, input: R) -> Result<impl Read + use<R>, DecryptError> {
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        Decryptor::new_buffered(input)?.decrypt(identities)
    }

    /// As [`Identities::decrypt`], of a file in which one can move.
    pub(crate) fn decrypt_seekable<R: io::BufRead + io::Seek>(
        &self,
        input: R,
    ) -> Result<impl Read + io::Seek + use<R>, DecryptError> {
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        Decryptor::new_buffered(input)?.decrypt(identities)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} private keys]", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret;

    use super::*;

    fn pair() -> (String, String) {
        let identity = x25519::Identity::generate();
        (identity.to_string().expose_secret().to_owned(), identity.to_public().to_string())
    }

    #[test]
    fn what_is_encrypted_to_two_recipients_opens_with_either_key() {
        let ((first, first_public), (second, second_public)) = (pair(), pair());
        let recipients = Recipients::parse([&*first_public, &*second_public, &*first_public]).unwrap();
        assert_eq!(recipients.texts(), [first_public, second_public]);
        let mut writer = recipients.encrypt(Vec::new()).unwrap();
        writer.write_all(b"secret").unwrap();
        let file = writer.finish().unwrap();
        for key in [first, second] {
            let mut plain = String::new();
            let identities = Identities::parse(&format!("# created\n\n{key}\n")).unwrap();
            identities.decrypt(&*file).unwrap().read_to_string(&mut plain).unwrap();
            assert_eq!(plain, "secret");
        }
    }

    #[test]
    fn a_private_key_never_appears_in_an_error() {
        let (private, public) = pair();
        for text in [private.clone(), private.to_lowercase(), format!(" {private}\n")] {
            let error = Recipients::parse([&*text]).unwrap_err().to_string();
            assert!(error.contains("private key") && !error.to_uppercase().contains(&private), "{error}");
        }
        let broken = format!("{public}\n{private}x");
        let error = format!("{:?}", Identities::parse(&broken).unwrap_err());
        assert!(error.contains("line 1") && !error.contains(&private), "{error}");
        assert_eq!(format!("{:?}", Identities::parse(&private).unwrap()), "[1 private keys]");
    }

    #[test]
    fn a_missing_or_wrong_key_is_told_apart() {
        let ((private, _), (_, other)) = (pair(), pair());
        assert!(Identities::none().problem(std::slice::from_ref(&other)).unwrap().starts_with("give"));
        let identities = Identities::parse(&private).unwrap();
        assert!(identities.problem(&[other]).unwrap().starts_with("none"));
        assert_eq!(identities.problem(&identities.recipients().texts()), None);
    }

    #[test]
    fn an_empty_identity_file_is_refused() {
        assert!(Identities::parse("# only a comment\n").is_err());
        assert!(Recipients::parse(["age1nonsense"]).is_err());
        assert!(Recipients::parse([""]).is_err());
    }
}
