//! A client that writes, and what was acknowledged to it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backstay_testkit::TestRedis;

pub fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Numbers that were written one after another, each with the moment at which it was sent.
pub struct Acknowledged {
    before: u64,
    sent: Vec<u64>,
}

impl Acknowledged {
    /// The last number; that before the first one when nothing was acknowledged.
    pub fn last(&self) -> u64 {
        self.before + self.sent.len() as u64
    }

    /// The first write that is not among those, or not as it was sent; its number.
    pub fn first_lost(&self, writes: &BTreeMap<u64, u64>) -> Option<u64> {
        let numbered = self.sent.iter().zip(self.before + 1..);
        let mut lost = numbered.filter(|(sent, number)| writes.get(number) != Some(*sent));
        lost.next().map(|(_, number)| number)
    }

    /// The time of which acknowledged writes are lost, in milliseconds: from the first one to the last one that was
    /// acknowledged.
    pub fn lost_millis(&self, writes: &BTreeMap<u64, u64>) -> u64 {
        let Some(first) = self.first_lost(writes) else { return 0 };
        let sent = self.sent[(first - self.before - 1) as usize];
        (self.sent[self.sent.len() - 1] - sent).div_ceil(1000)
    }
}

/// A client that writes one number after another as fast as they are acknowledged.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Acknowledged>,
}

impl Writer {
    /// Begins behind `last`.
    pub fn start(redis: &TestRedis, last: u64) -> Self {
        let port = redis.port();
        Self::begin(redis, last, 0, move || {
            let socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
            socket.set_nodelay(true).unwrap();
            Some(socket)
        })
    }

    /// Writes over the server's Unix socket, and with each number so many bytes more.
    pub fn start_beside_the_network(redis: &TestRedis, more: usize) -> Self {
        let path = redis.socket();
        Self::begin(redis, 0, more, move || UnixStream::connect(path).ok())
    }

    fn begin<S: Read + Write>(
        redis: &TestRedis,
        last: u64,
        more: usize,
        connect: impl FnOnce() -> Option<S> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (password, told) = (redis.password().map(str::to_owned), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut acknowledged = Acknowledged { before: last, sent: Vec::new() };
            if let Some(socket) = connect() {
                write(socket, password.as_deref(), &"x".repeat(more), &mut acknowledged, &told);
            }
            acknowledged
        });
        Self { stop, thread }
    }

    /// Ends, and says which write was acknowledged last.
    pub fn stop(self) -> u64 {
        self.finish().last()
    }

    /// Ends, and says what was acknowledged.
    pub fn finish(self) -> Acknowledged {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn ask(link: &mut BufReader<impl Read + Write>, words: &[&str]) -> bool {
    let mut text = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| text.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    let mut answer = String::new();
    link.get_mut().write_all(text.as_bytes()).is_ok()
        && link.read_line(&mut answer).is_ok()
        && answer == "+OK\r\n"
}

/// Writes until told to stop or the server is gone.
fn write(
    socket: impl Read + Write,
    password: Option<&str>,
    more: &str,
    acknowledged: &mut Acknowledged,
    stop: &AtomicBool,
) {
    let mut link = BufReader::new(socket);
    if let Some(password) = password {
        assert!(ask(&mut link, &["AUTH", password]));
    }
    while !stop.load(Ordering::SeqCst) {
        let (next, now) = (acknowledged.last() + 1, micros());
        if !more.is_empty() && !ask(&mut link, &["SET", "more", more]) {
            return;
        }
        if !ask(&mut link, &["SET", &format!("n:{next}"), &now.to_string()]) {
            return;
        }
        acknowledged.sent.push(now);
        // Enough for several thousand writes a second, and room for the others on two processors.
        if next.is_multiple_of(64) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
