//! A connection for administration.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, Value};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::psync::{greeted, refusal};
use crate::source::Endpoint;

use super::facts::{Info, ServerFacts};

const PATIENCE: Duration = Duration::from_secs(15);
const ASKING: &str = "asking";

/// A logged-in connection.
pub struct Server {
    endpoint: Endpoint,
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server {{ {} }}", self.endpoint)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Server {
    /// Connects and logs in.
    ///
    /// # Errors
    /// As [`crate::psync::connect`].
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        let stream = greeted(endpoint, PATIENCE).await?.stream;
        // Nothing but what is asked for below is said, so that few rights are needed.
        let quiet = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let made = MultiplexedConnection::new_with_config(&quiet, stream, config).await;
        let (connection, driver) = made.map_err(|error| understand(endpoint, "connect", &error))?;
        let driver = tokio::spawn(driver);
        Ok(Self { endpoint: endpoint.clone(), connection, driver })
    }

    /// The server.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The connection itself.
    pub(crate) fn driver(&mut self) -> &mut MultiplexedConnection {
        &mut self.connection
    }

    /// What an error of that connection means.
    pub(crate) fn explain(&self, error: &RedisError, command: &'static str) -> Error {
        understand(&self.endpoint, command, error)
    }

    /// Asks one command.
    ///
    /// # Errors
    /// Its refusal, or a lost connection.
    pub async fn ask(&mut self, words: &[&str], command: &'static str) -> Result<Value, Error> {
        let (name, arguments) = words.split_first().expect("a command has a name");
        let mut asked = redis::cmd(name);
        for argument in arguments {
            asked.arg(*argument);
        }
        let answer: Result<Value, RedisError> = asked.query_async(&mut self.connection).await;
        answer.map_err(|error| understand(&self.endpoint, command, &error))
    }

    /// Asks one command whose answer is a text.
    ///
    /// # Errors
    /// As [`Server::ask`], and [`Error::Protocol`] for any other answer.
    pub async fn text(&mut self, words: &[&str], command: &'static str) -> Result<String, Error> {
        let answer = self.ask(words, command).await?;
        text_of(&answer).ok_or_else(|| self.strange(&answer))
    }

    /// Asks one command whose answer is a list of texts, or pairs of them.
    ///
    /// # Errors
    /// As [`Server::text`].
    pub async fn texts(&mut self, words: &[&str], command: &'static str) -> Result<Vec<String>, Error> {
        let answer = self.ask(words, command).await?;
        let texts: Option<Vec<String>> = match &answer {
            Value::Array(items) | Value::Set(items) => items.iter().map(text_of).collect(),
            Value::Map(pairs) => {
                pairs.iter().flat_map(|(key, value)| [text_of(key), text_of(value)]).collect()
            }
            Value::Nil => Some(Vec::new()),
            _ => None,
        };
        texts.ok_or_else(|| self.strange(&answer))
    }

    /// `INFO`, all sections or one.
    ///
    /// # Errors
    /// As [`Server::text`].
    pub async fn info(&mut self, section: Option<&str>) -> Result<Info, Error> {
        let words: Vec<&str> = std::iter::once("INFO").chain(section).collect();
        Ok(Info::parse(&self.text(&words, "INFO").await?))
    }

    /// What the server is.
    ///
    /// # Errors
    /// As [`Server::text`].
    pub async fn facts(&mut self) -> Result<ServerFacts, Error> {
        Ok(ServerFacts::of(&self.info(None).await?))
    }

    /// Settings of the server that fit the pattern, in pairs.
    ///
    /// # Errors
    /// As [`Server::text`].
    pub async fn settings(&mut self, pattern: &str) -> Result<Vec<(String, String)>, Error> {
        let texts = self.texts(&["CONFIG", "GET", pattern], "CONFIG GET").await?;
        Ok(texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    }

    /// The server's own clock, in seconds since 1970.
    ///
    /// # Errors
    /// As [`Server::text`].
    pub async fn time(&mut self) -> Result<i64, Error> {
        let parts = self.texts(&["TIME"], "TIME").await?;
        let seconds = parts.first().and_then(|seconds| seconds.parse().ok());
        seconds.ok_or_else(|| Error::Protocol {
            address: self.endpoint.address.clone(),
            doing: ASKING,
            found: parts.join(" "),
        })
    }

    fn strange(&self, answer: &Value) -> Error {
        let found = format!("{answer:?}").chars().take(80).collect();
        Error::Protocol { address: self.endpoint.address.clone(), doing: ASKING, found }
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What an error of the driver means.
fn understand(endpoint: &Endpoint, command: &'static str, error: &RedisError) -> Error {
    let address = endpoint.address.clone();
    if let Some(code) = error.code() {
        let line = format!("-{code} {}", error.detail().unwrap_or_default());
        return refusal(endpoint, command, &line);
    }
    if error.is_timeout() {
        return Error::Silent { address, doing: ASKING, after: PATIENCE };
    }
    if error.is_io_error() || error.is_connection_dropped() {
        let source = std::io::Error::other(error.to_string());
        return Error::Lost { address, doing: ASKING, source };
    }
    Error::NotRedis { address, found: error.to_string() }
}
