//! What a running server has, and from where.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue, RedisError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::server::Server;

/// How often a loading server is asked.
const POLL: Duration = Duration::from_millis(20);
/// A loading server that has read no more of its files for so long is not waited for any longer.
const STALLED: Duration = Duration::from_secs(60);

/// Keys of one database, as a server counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCount {
    /// Keys.
    pub keys: u64,
    /// Those that expire.
    pub expires: u64,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct LiveFacts {
    /// Keys by database; those without any are left out.
    pub databases: BTreeMap<u32, KeyCount>,
    /// Names of function libraries, sorted; `None` where the server has none, or does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub functions: Option<Vec<String>>,
    /// Whether it writes append-only files.
    pub append_only: bool,
    /// Bytes of the snapshot that its append-only files began with at its start.
    pub append_base_bytes: Option<u64>,
    /// Bytes of its append-only files now.
    pub append_bytes: Option<u64>,
    /// Times that it has rewritten its append-only files since its start, begun ones included; sizes say nothing then.
    pub append_rewrites: u64,
    /// Its version.
    pub version: String,
    /// Settings that decide what it loads, where it tells them.
    pub settings: BTreeMap<String, String>,
}

impl LiveFacts {
    /// Keys of all databases.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.databases.values().fold(0, |sum, count| sum.saturating_add(count.keys))
    }

    /// As [`LiveFacts::ask`], over a connection for administration.
    ///
    /// # Errors
    /// [`crate::Error`], when it cannot be asked for its keys.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing.
    pub async fn of(server: &mut Server) -> Result<Self, crate::Error> {
        let asked = Self::ask(server.driver()).await;
        asked.map_err(|error| server.explain(&error, "INFO"))
    }

    /// Asks a server, and waits while it loads: until then it says that it has few keys and no append-only file. What it
    /// refuses to tell stays unknown, except how many keys it has.
    ///
    /// # Errors
    /// It cannot be asked for its keys, or loads and gets no further for a minute.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing.
    pub async fn ask(connection: &mut impl ConnectionLike) -> Result<Self, RedisError> {
        let persistence = loaded(connection).await?;
        let keyspace: String = query(connection, &["INFO", "keyspace"]).await?;
        let server: String = query(connection, &["INFO", "server"]).await.unwrap_or_default();
        let functions = query::<redis::Value>(connection, &["FUNCTION", "LIST"]).await.ok();
        let settings = settings(connection).await;
        let server = fields(&server);
        let number = |name: &str| persistence.get(name).and_then(|value| value.parse().ok());
        let rewriting = number("aof_rewrite_in_progress").unwrap_or(0);
        let rewrites = number("aof_rewrites").unwrap_or(0_u64).saturating_add(rewriting);
        let version = server.get("valkey_version").or(server.get("redis_version")).cloned();
        Ok(Self {
            databases: databases(&keyspace),
            functions: functions.map(|found| library_names(&found)),
            append_only: persistence.get("aof_enabled").is_some_and(|value| value == "1"),
            append_base_bytes: number("aof_base_size"),
            append_bytes: number("aof_current_size"),
            append_rewrites: rewrites,
            version: version.unwrap_or_default(),
            settings,
        })
    }
}

/// What a server says of its files, once it has loaded them. It may take its time, but not stand still.
async fn loaded(connection: &mut impl ConnectionLike) -> Result<BTreeMap<String, String>, RedisError> {
    let (mut reached, mut since) = (None, Instant::now());
    loop {
        let text: String = query(connection, &["INFO", "persistence"]).await.unwrap_or_default();
        let persistence = fields(&text);
        if persistence.get("loading").is_none_or(|value| value == "0") {
            return Ok(persistence);
        }
        let bytes: Option<u64> = persistence.get("loading_loaded_bytes").and_then(|value| value.parse().ok());
        if bytes != reached {
            (reached, since) = (bytes, Instant::now());
        }
        if since.elapsed() >= STALLED {
            let seconds = STALLED.as_secs();
            let problem = format!("it loads its files, and has got no further for {seconds} s");
            return Err(std::io::Error::other(problem).into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Settings that decide what a server loads.
const SETTINGS: [&str; 6] = ["dir", "appendonly", "appenddirname", "appendfilename", "dbfilename", "save"];

/// One question for each: versions before 7 take no more.
pub(super) async fn settings(connection: &mut impl ConnectionLike) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in SETTINGS {
        let answer = query::<Vec<String>>(connection, &["CONFIG", "GET", name]).await;
        if let Ok([name, value]) = answer.as_deref() {
            found.insert(name.clone(), value.clone());
        }
    }
    found
}

pub(super) async fn query<T: FromRedisValue>(
    connection: &mut impl ConnectionLike,
    words: &[&str],
) -> Result<T, RedisError> {
    let mut command = Cmd::new();
    words.iter().for_each(|word| {
        command.arg(*word);
    });
    command.query_async(connection).await
}

/// The lines `name:value` of an answer to `INFO`.
pub(super) fn fields(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn databases(keyspace: &str) -> BTreeMap<u32, KeyCount> {
    let parse = |(name, value): (String, String)| {
        let number = name.strip_prefix("db")?.parse().ok()?;
        let counts: BTreeMap<_, _> = value.split(',').filter_map(|pair| pair.split_once('=')).collect();
        let count = |name| counts.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        Some((number, KeyCount { keys: count("keys"), expires: count("expires") }))
    };
    fields(keyspace).into_iter().filter_map(parse).collect()
}

/// The names in an answer to `FUNCTION LIST`: lists of names and values, or maps.
fn library_names(answer: &redis::Value) -> Vec<String> {
    fn text(value: &redis::Value) -> Option<String> {
        String::from_redis_value(value.clone()).ok()
    }
    fn name_of(library: &redis::Value) -> Option<String> {
        match library {
            redis::Value::Array(words) => words
                .chunks(2)
                .find(|pair| text(&pair[0]).as_deref() == Some("library_name"))
                .and_then(|pair| text(pair.get(1)?)),
            redis::Value::Map(pairs) => pairs
                .iter()
                .find(|(name, _)| text(name).as_deref() == Some("library_name"))
                .and_then(|(_, value)| text(value)),
            _ => None,
        }
    }
    let redis::Value::Array(libraries) = answer else { return Vec::new() };
    let mut names: Vec<_> = libraries.iter().filter_map(name_of).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use redis::{Pipeline, RedisFuture, Value};

    use super::*;

    /// A server that says the same to every question, and that it has loaded more each time.
    struct Loading {
        asked: u64,
        /// Times of asking after which it has loaded everything.
        until: u64,
        /// Bytes that it loads between two of them.
        pace: u64,
    }

    impl ConnectionLike for Loading {
        fn req_packed_command<'a>(&'a mut self, _: &'a Cmd) -> RedisFuture<'a, Value> {
            self.asked += 1;
            let (loading, bytes) = (u8::from(self.asked < self.until), self.asked * self.pace);
            let text = format!(
                "loading:{loading}\r\nloading_loaded_bytes:{bytes}\r\naof_rewrites:{}\r\n\
                 aof_rewrite_in_progress:1\r\ndb0:keys={}\r\ndb1:keys=1\r\n",
                u64::MAX,
                u64::MAX,
            );
            Box::pin(async { Ok(Value::BulkString(text.into_bytes())) })
        }

        fn req_packed_commands<'a>(
            &'a mut self,
            _: &'a Pipeline,
            _: usize,
            _: usize,
        ) -> RedisFuture<'a, Vec<Value>> {
            unreachable!("one question at a time")
        }

        fn get_db(&self) -> i64 {
            0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_loads_for_an_hour_is_waited_for() {
        let begun = Instant::now();
        let mut server = Loading { asked: 0, until: 180_000, pace: 1 };
        let persistence = loaded(&mut server).await.unwrap();
        assert_eq!(persistence["loading"], "0");
        assert!(begun.elapsed() >= Duration::from_secs(3599), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stands_still_is_given_up() {
        let begun = Instant::now();
        let mut server = Loading { asked: 0, until: u64::MAX, pace: 0 };
        let error = LiveFacts::ask(&mut server).await.unwrap_err();
        assert!(error.to_string().contains("got no further for 60 s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(62), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn impossible_numbers_are_no_panic() {
        let found = LiveFacts::ask(&mut Loading { asked: 0, until: 0, pace: 0 }).await.unwrap();
        assert_eq!((found.append_rewrites, found.keys()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn keys_are_read_from_what_info_says() {
        let text =
            "# Keyspace\r\ndb0:keys=5,expires=2,avg_ttl=0\r\ndb15:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\n";
        let found = databases(text);
        assert_eq!(found[&0], KeyCount { keys: 5, expires: 2 });
        assert_eq!(found[&15], KeyCount { keys: 1, expires: 0 });
        assert_eq!(found.len(), 2);
        assert!(databases("# Keyspace\r\n").is_empty());
    }

    #[test]
    fn libraries_are_found_by_their_names() {
        let word = |text: &str| redis::Value::BulkString(text.as_bytes().to_vec());
        let library = |name: &str| {
            redis::Value::Array(vec![word("engine"), word("LUA"), word("library_name"), word(name)])
        };
        let answer = redis::Value::Array(vec![library("b"), library("a")]);
        assert_eq!(library_names(&answer), ["a", "b"]);
    }
}
