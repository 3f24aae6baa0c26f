//! A replica in thirty lines, so that the stream of a real server is recorded by something that is not under test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backstay_redis_ops::{Offset, ReplicationId};
use backstay_testkit::TestRedis;
use jiff::Timestamp;

/// A snapshot and what followed it, as it comes.
pub(crate) struct Recorder {
    pub(crate) id: ReplicationId,
    pub(crate) start: Offset,
    pub(crate) taken: Timestamp,
    pub(crate) snapshot: Vec<u8>,
    stream: Arc<Mutex<Stream>>,
}

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    /// How many bytes there were when.
    times: Vec<(usize, Timestamp)>,
}

fn line(reader: &mut impl BufRead) -> String {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line != "\n" {
            return line.trim_end().to_owned();
        }
    }
}

impl Recorder {
    pub(crate) fn attach(server: &TestRedis) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        let mut say = |words: &str| {
            socket.write_all(format!("{words}\r\n").as_bytes()).unwrap();
        };
        if let Some(password) = server.password() {
            say(&format!("AUTH {password}"));
            assert_eq!(line(&mut reader), "+OK");
        }
        say("REPLCONF capa psync2");
        assert_eq!(line(&mut reader), "+OK");
        say("PSYNC ? -1");
        let answer = line(&mut reader);
        let words: Vec<_> = answer.split(' ').collect();
        assert_eq!(words[0], "+FULLRESYNC", "{answer}");
        let length = line(&mut reader).strip_prefix('$').unwrap().parse().unwrap();
        let mut snapshot = vec![0; length];
        reader.read_exact(&mut snapshot).unwrap();
        let stream = Arc::new(Mutex::new(Stream::default()));
        let growing = stream.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read) = reader.read(&mut buffer) {
                if read == 0 {
                    return;
                }
                let mut stream = growing.lock().unwrap();
                stream.bytes.extend_from_slice(&buffer[..read]);
                let length = stream.bytes.len();
                stream.times.push((length, Timestamp::now()));
                drop(stream);
                if socket.write_all(b"REPLCONF ACK 1\r\n").is_err() {
                    return;
                }
            }
        });
        let (id, start) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        Self { id, start, taken: Timestamp::now(), snapshot, stream }
    }

    /// Everything up to an offset, waited for.
    pub(crate) fn until(&self, offset: Offset) -> (Vec<u8>, Vec<(usize, Timestamp)>) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let length = usize::try_from(offset.since(self.start)).unwrap();
        loop {
            let stream = self.stream.lock().unwrap();
            if stream.bytes.len() >= length {
                return (stream.bytes[..length].to_vec(), stream.times.clone());
            }
            drop(stream);
            assert!(Instant::now() < deadline, "the stream did not come");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
