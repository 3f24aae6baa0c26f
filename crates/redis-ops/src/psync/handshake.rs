//! The words that make a server take us for a replica.

use std::time::Duration;

use crate::error::Error;
use crate::position::{Offset, ReplicationId};
use crate::source::Endpoint;

use super::options::{Position, PsyncOptions, RULES};
use super::replication::Replication;
use super::snapshot::FullSync;
use super::wire::{Wire, quote};

const GREETING: &str = "being greeted";
const ATTACHING: &str = "attaching";
/// Bytes are kept as they come, so no version is too new.
const ANY_VERSION: &[u8] = b"255.255.255";
/// Rules of the access list for a user that may ask what is asked here.
const QUESTIONS: &str = "+info +time +config|get +acl|list +module|list +cluster|nodes";
/// Rules for a user that may change settings.
const CHANGES: &str = "+config|get +config|set";

/// What the server offers.
#[derive(Debug)]
pub enum Answer {
    /// A snapshot, and the stream behind it.
    Full(Box<FullSync>),
    /// The stream from where one was. Its id may be a new one: the server was promoted since, and the stream up to here is
    /// the same under both.
    Continue(Box<Replication>),
}

/// Attaches to a server as a replica.
///
/// # Errors
/// [`Error::Login`], [`Error::Denied`] and [`Error::NotReady`] say what the server says; [`Error::NotRedis`] when it is
/// something else; [`Error::Refused`] when it does not serve replicas at all.
///
/// # Cancel safety
/// A dropped call closes the connection; the server forgets the replica.
pub async fn connect(
    endpoint: &Endpoint,
    position: Position,
    options: &PsyncOptions,
) -> Result<Answer, Error> {
    introduced(endpoint, options).await?.ask(position).await?.answer().await
}

/// The first half of [`connect`]: the server knows whom it talks to, and was asked for nothing.
pub(crate) async fn introduced<'a>(
    endpoint: &'a Endpoint,
    options: &'a PsyncOptions,
) -> Result<Introduced<'a>, Error> {
    let mut wire = greeted(endpoint, options.answer).await?;
    Talk { wire: &mut wire, endpoint }.introduce(options).await?;
    Ok(Introduced { wire, endpoint, options })
}

/// A connection of a replica that has not asked yet.
pub(crate) struct Introduced<'a> {
    wire: Wire,
    endpoint: &'a Endpoint,
    options: &'a PsyncOptions,
}

impl<'a> Introduced<'a> {
    /// Asks for a snapshot, or for the stream from there. Once this returns a snapshot is being written, with the
    /// settings that the server had by then, but need not have begun to come.
    pub(crate) async fn ask(mut self, position: Position) -> Result<Asked<'a>, Error> {
        let mut talk = Talk { wire: &mut self.wire, endpoint: self.endpoint };
        let line = talk.attach(position, self.options).await?;
        self.wire.silence = self.options.silence;
        Ok(Asked { wire: self.wire, line, position, options: self.options })
    }
}

/// A connection on which the server has said what it will do.
pub(crate) struct Asked<'a> {
    wire: Wire,
    line: String,
    position: Position,
    options: &'a PsyncOptions,
}

impl Asked<'_> {
    /// Waits until it does.
    pub(crate) async fn answer(self) -> Result<Answer, Error> {
        understand(self.wire, &self.line, self.position, self.options).await
    }
}

/// A connection to a server that is a Redis and let us in.
pub(crate) async fn greeted(endpoint: &Endpoint, patience: Duration) -> Result<Wire, Error> {
    let mut wire = Wire::open(endpoint, patience).await?;
    Talk { wire: &mut wire, endpoint }.greet().await?;
    Ok(wire)
}

struct Talk<'a> {
    wire: &'a mut Wire,
    endpoint: &'a Endpoint,
}

impl Talk<'_> {
    /// Logs in, where there is a password, and makes sure that a Redis is there.
    async fn greet(&mut self) -> Result<(), Error> {
        let login = &self.endpoint.login;
        if let Some(password) = &login.password {
            let password = password.expose().as_bytes();
            let words: &[&[u8]] = match &login.user {
                Some(user) => &[b"AUTH", user.as_bytes(), password],
                None => &[b"AUTH", password],
            };
            self.wire.send(words, GREETING).await?;
            let line = self.wire.line(GREETING).await?;
            // A server that asks for no password says so, and lets everybody in.
            let needless = line.starts_with("-ERR AUTH") && line.contains("without any password");
            if !needless {
                self.accept("log in", &line)?;
            }
        }
        self.wire.send(&[b"PING"], GREETING).await?;
        let line = self.wire.line(GREETING).await?;
        match line.as_str() {
            "+PONG" => Ok(()),
            _ => self.accept("PING", &line),
        }
    }

    async fn introduce(&mut self, options: &PsyncOptions) -> Result<(), Error> {
        self.wire.send(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"], GREETING).await?;
        let line = self.wire.line(GREETING).await?;
        self.accept("REPLCONF", &line)?;
        // Valkey 9 gives a replica that announces no version a format in which fields that expire cannot be written.
        self.offer(&[b"REPLCONF", b"version", ANY_VERSION]).await?;
        if options.snapshot_only {
            self.offer(&[b"REPLCONF", b"rdb-only", b"1"]).await?;
        }
        Ok(())
    }

    /// Says what older servers do not understand, and do without.
    async fn offer(&mut self, words: &[&[u8]]) -> Result<(), Error> {
        self.wire.send(words, GREETING).await?;
        self.wire.line(GREETING).await?;
        Ok(())
    }

    async fn attach(&mut self, position: Position, options: &PsyncOptions) -> Result<String, Error> {
        let (id, number) = match position {
            Position::New => ("?".to_owned(), "-1".to_owned()),
            // PSYNC asks for the number of the next byte, counted from 1.
            Position::At { id, offset, .. } => (id.to_string(), offset.plus(1).to_string()),
        };
        self.wire.send(&[b"PSYNC", id.as_bytes(), number.as_bytes()], ATTACHING).await?;
        let deadline = tokio::time::Instant::now() + options.preparation;
        loop {
            let line = self.wire.line(ATTACHING).await?;
            if !line.is_empty() {
                return if line.starts_with('+') { Ok(line) } else { Err(self.refusal("PSYNC", &line)) };
            }
            // Newlines keep the connection alive while the server is busy.
            if tokio::time::Instant::now() >= deadline {
                let (address, after) = (self.endpoint.address.clone(), options.preparation);
                return Err(Error::Silent { address, doing: ATTACHING, after });
            }
        }
    }

    fn accept(&self, command: &'static str, line: &str) -> Result<(), Error> {
        if line.starts_with('+') && (command != "PING" || line == "+PONG") {
            return Ok(());
        }
        Err(self.refusal(command, line))
    }

    /// What an answer means that is no success.
    fn refusal(&self, command: &'static str, line: &str) -> Error {
        refusal(self.endpoint, command, line)
    }
}

/// What an answer means that is no success.
pub(crate) fn refusal(endpoint: &Endpoint, command: &'static str, line: &str) -> Error {
    let address = endpoint.address.clone();
    let user = endpoint.login.user.clone().unwrap_or_else(|| "default".to_owned());
    let Some(words) = line.strip_prefix('-') else {
        return Error::NotRedis { address, found: quote(line.as_bytes()) };
    };
    let words = quote(words.as_bytes());
    let code = words.split(' ').next().unwrap_or_default();
    match code {
        "WRONGPASS" | "NOAUTH" => Error::Login { address, user, words },
        "ERR" if command == "log in" => Error::Login { address, user, words },
        "NOPERM" => {
            let rules = match command {
                "PSYNC" | "REPLCONF" | "PING" => RULES,
                "CONFIG SET" => CHANGES,
                _ => QUESTIONS,
            };
            Error::Denied { address, user, command, words, rules }
        }
        "LOADING" | "NOMASTERLINK" | "MASTERDOWN" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" => {
            Error::NotReady { address, words }
        }
        "ERR"
            if words.contains("not connected with my master") || words.contains("max number of clients") =>
        {
            Error::NotReady { address, words }
        }
        _ => Error::Refused { address, command, words },
    }
}

async fn understand(
    wire: Wire,
    line: &str,
    position: Position,
    options: &PsyncOptions,
) -> Result<Answer, Error> {
    let mut words = line.split_ascii_whitespace();
    match (words.next(), position) {
        (Some("+FULLRESYNC"), _) => {
            let id = words.next().and_then(|id| ReplicationId::parse(id).ok());
            // No server counts beyond what a signed number holds.
            let offset = words.next().and_then(|offset| offset.parse::<i64>().ok());
            let offset = offset.and_then(|offset| u64::try_from(offset).ok());
            match (id, offset) {
                (Some(id), Some(offset)) => {
                    let full = FullSync::begin(wire, id, Offset(offset), options).await?;
                    Ok(Answer::Full(Box::new(full)))
                }
                _ => Err(wire.strange(ATTACHING, line.as_bytes())),
            }
        }
        (Some("+CONTINUE"), Position::At { id, offset, state }) => {
            let id = match words.next() {
                None => id,
                Some(new) => match ReplicationId::parse(new) {
                    Ok(new) => new,
                    Err(_) => return Err(wire.strange(ATTACHING, line.as_bytes())),
                },
            };
            let durable = options.acknowledged.unwrap_or(offset);
            let stream = Replication::begin(wire, id, offset, state, durable, options);
            Ok(Answer::Continue(Box::new(stream)))
        }
        _ => Err(wire.strange(ATTACHING, line.as_bytes())),
    }
}
