//! An HTTP service that takes what it is sent and answers as a script says.
//!
//! For everything that posts to hooks and APIs: every request is kept with its headers and body, and a function decides
//! the answer, which may be none at all. One request a connection, plain HTTP/1.1, on a thread of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Longest body that is read.
const MAX_BODY: u64 = 8 << 20;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers, their names in small letters.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// When it was complete.
    pub at: Instant,
    /// What the test's own clock showed, see [`HttpSink::set_mark`].
    pub mark: i64,
}

impl Received {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or(serde_json::Value::Null)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status, headers, a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Nothing: the request was taken, and the connection stays open without a word.
    Silence,
    /// The connection is closed without a word.
    Close,
}

impl Answer {
    /// 200 with a body.
    pub fn ok(body: impl Into<String>) -> Self {
        Self::Status(200, Vec::new(), body.into())
    }

    /// A status without a body.
    pub fn status(code: u16) -> Self {
        Self::Status(code, Vec::new(), String::new())
    }

    /// 429, with the seconds to wait.
    pub fn limited(seconds: u64) -> Self {
        Self::Status(429, vec![("Retry-After", seconds.to_string())], "slow down".to_owned())
    }
}

type Script = Box<dyn Fn(&Received, usize) -> Answer + Send + Sync>;

struct Shared {
    received: Mutex<Vec<Received>>,
    script: Mutex<Script>,
    mark: Mutex<i64>,
    stopped: AtomicBool,
}

/// A running service; gone when dropped.
pub struct HttpSink {
    shared: Arc<Shared>,
    port: u16,
}

impl std::fmt::Debug for HttpSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSink").field("port", &self.port).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpSink {
    /// Starts one on a free loopback port. The script sees each request and its number, from 0.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(script: impl Fn(&Received, usize) -> Answer + Send + Sync + 'static) -> Result<Self> {
        Self::start_on(0, script)
    }

    /// Starts one on a port of its own, as a service that comes back.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start_on(
        port: u16,
        script: impl Fn(&Received, usize) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let place = std::path::Path::new("a loopback port");
        let listener = TcpListener::bind(("127.0.0.1", port)).map_err(Error::io("listen on", place))?;
        let port = listener.local_addr().map_err(Error::io("ask for", place))?.port();
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            script: Mutex::new(Box::new(script)),
            mark: Mutex::new(0),
            stopped: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&of_thread);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Ok(Self { shared, port })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address with a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Everything that came, in order.
    pub fn received(&self) -> Vec<Received> {
        locked(&self.shared.received).clone()
    }

    /// Forgets what came.
    pub fn forget(&self) {
        locked(&self.shared.received).clear();
    }

    /// Answers otherwise from now on.
    pub fn answer(&self, script: impl Fn(&Received, usize) -> Answer + Send + Sync + 'static) {
        *locked(&self.shared.script) = Box::new(script);
    }

    /// Notes this with every request from now on: the moment by a virtual clock, for example.
    pub fn set_mark(&self, mark: i64) {
        *locked(&self.shared.mark) = mark;
    }
}

impl Drop for HttpSink {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let Some(mut request) = read(&stream) else { return };
    request.mark = *locked(&shared.mark);
    let number = {
        let mut received = locked(&shared.received);
        received.push(request.clone());
        received.len() - 1
    };
    let answer = locked(&shared.script)(&request, number);
    match answer {
        Answer::Close => {}
        Answer::Silence => {
            // Until the other side gives up, or this process ends.
            let mut rest = [0; 64];
            while matches!(stream.read(&mut rest), Ok(1..)) {}
        }
        Answer::Status(code, headers, body) => {
            let mut head = format!(
                "HTTP/1.1 {code} Scripted\r\nContent-Length: {}\r\nConnection: close\r\n",
                body.len()
            );
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn read(stream: &TcpStream) -> Option<Received> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length =
        headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = Vec::new();
    reader.take(length.unwrap_or(0).min(MAX_BODY)).read_to_end(&mut body).ok()?;
    Some(Received { method, path, headers, body, at: Instant::now(), mark: 0 })
}
