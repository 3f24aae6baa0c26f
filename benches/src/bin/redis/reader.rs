//! A replica that reads at the archiver's pace and throws everything away: the least that any follower costs a server.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long it rests when it has read everything.
const REST: Duration = Duration::from_millis(5);
/// How often it says that it is there.
const TOLD: Duration = Duration::from_secs(1);

/// Follows the server until that one ends.
pub(crate) fn follow(port: u16) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    let mut buffer = vec![0; 256 << 10];
    for words in ["REPLCONF capa eof capa psync2", "PSYNC ? -1"] {
        server.write_all(format!("{words}\r\n").as_bytes()).expect("the server takes it");
        if words.starts_with("REPLCONF") {
            let read = server.read(&mut buffer).expect("it answers");
            assert_eq!(&buffer[..read], b"+OK\r\n");
        }
    }
    server.set_nonblocking(true).expect("it is a socket");
    let mut told = Instant::now();
    loop {
        match server.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(REST),
            Err(error) => panic!("the server broke off: {error}"),
        }
        if told.elapsed() >= TOLD {
            told = Instant::now();
            server.write_all(b"REPLCONF ACK 0\r\n").expect("the server takes it");
        }
    }
}
