//! Clients that write and read as fast as a server answers, at little cost of their own: what is on the same machine must not
//! be what limits the server.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Clients.
const CLIENTS: usize = 50;
/// Keys; each is there before anything is measured.
const KEYS: u64 = 200_000;
/// Length of a value, half of it digits that differ each time.
const VALUE: usize = 192;

/// Least bytes of a write: its value, and 40 around it.
pub(crate) const WRITTEN: f64 = 232.0;

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    /// Commands that a client sends before it waits for their answers.
    pub(crate) at_once: usize,
    /// Reads for each write.
    pub(crate) reads: usize,
    /// Commands in all.
    pub(crate) commands: usize,
    /// The processor that they run on; any, without one.
    pub(crate) processor: Option<usize>,
}

/// Fills the server, so that every read finds a value of the same length.
pub(crate) fn fill(port: u16) {
    let mut clients = Clients::connect(port);
    let habit = Habit { at_once: 100, reads: 0, commands: 0, processor: None };
    for first in (0..KEYS).step_by(habit.at_once) {
        let mut text = String::new();
        (first..first + habit.at_once as u64).for_each(|key| clients.write(&mut text, key));
        let client = &mut clients.sockets[0];
        client.write_all(text.as_bytes()).expect("the server takes it");
        client.read_exact(&mut vec![0; 5 * habit.at_once]).expect("it answers");
    }
}

/// Runs the clients to their end; how long that took.
pub(crate) fn run(port: u16, habit: Habit) -> Duration {
    std::thread::spawn(move || {
        if let Some(processor) = habit.processor {
            let this = std::fs::read_link("/proc/thread-self").expect("a thread has a number");
            let number = this.file_name().expect("and it comes last").to_string_lossy();
            crate::shell(&format!("taskset -cp {processor} {number} >/dev/null"));
        }
        Clients::connect(port).run(habit)
    })
    .join()
    .expect("the clients end")
}

struct Clients {
    sockets: Vec<TcpStream>,
    random: u64,
}

impl Clients {
    fn connect(port: u16) -> Self {
        let connect = |_| {
            let socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
            socket.set_nodelay(true).expect("it is a socket");
            socket
        };
        Self { sockets: (0..CLIENTS).map(connect).collect(), random: 1 }
    }

    /// Each client sends, and sends again when it has its answers.
    fn run(&mut self, habit: Habit) -> Duration {
        let begin = Instant::now();
        let batches = habit.commands / habit.at_once;
        let (mut text, mut answer, mut waiting) = (String::new(), Vec::new(), [0; CLIENTS]);
        let mut sent = 0;
        for batch in 0..batches + CLIENTS {
            let client = batch % CLIENTS;
            if waiting[client] > 0 {
                answer.resize(waiting[client], 0);
                self.sockets[client].read_exact(&mut answer).expect("the server answers");
                assert!(matches!(answer[0], b'+' | b'$'), "no error");
                waiting[client] = 0;
            }
            if batch < batches {
                text.clear();
                for _ in 0..habit.at_once {
                    let key = self.next() % KEYS;
                    waiting[client] += if sent % (habit.reads + 1) == 0 {
                        self.write(&mut text, key);
                        "+OK\r\n".len()
                    } else {
                        read(&mut text, key);
                        "$192\r\n\r\n".len() + VALUE
                    };
                    sent += 1;
                }
                self.sockets[client].write_all(text.as_bytes()).expect("the server takes it");
            }
        }
        begin.elapsed()
    }

    /// A step of a linear congruential generator, turned so that all digits differ.
    fn next(&mut self) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random.rotate_left(29)
    }

    /// A session as it is written.
    fn write(&mut self, text: &mut String, key: u64) {
        let _ = write!(text, "*3\r\n$3\r\nSET\r\n$15\r\nsession:{key:07}\r\n${VALUE}\r\n");
        let value = text.len();
        text.push_str(
            "{\"roles\":[\"reader\",\"editor\"],\"agent\":\"Mozilla/5.0 (X11; Linux x86_64)\",\"seen\":\"",
        );
        while text.len() < value + VALUE {
            hex(text, self.next());
        }
        text.truncate(value + VALUE);
        text.push_str("\r\n");
    }
}

fn read(text: &mut String, key: u64) {
    let _ = write!(text, "*2\r\n$3\r\nGET\r\n$15\r\nsession:{key:07}\r\n");
}

/// Sixteen digits, without the cost of a formatter.
fn hex(text: &mut String, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    (0..16).for_each(|at| text.push(char::from(DIGITS[(number >> (4 * at)) as usize & 15])));
}
