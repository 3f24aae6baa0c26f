//! A server full of sessions and carts, the same in every run.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use backstay_testkit::{RedisOptions, TestRedis};

/// Keys at 100 percent, about 1 GB of memory; a fifth of them are hashes.
const KEYS: u64 = 3_250_000;

/// A server of the distribution with that much in it.
pub(crate) fn filled(percent: u64) -> TestRedis {
    let server = empty();
    pipe(&server, (0..KEYS * percent / 100).map(key_of));
    server
}

/// A server of the distribution.
pub(crate) fn empty() -> TestRedis {
    TestRedis::start_blocking(&RedisOptions::default().password(false)).expect("Redis starts")
}

/// A server with a few values of 100 MB each, which do not compress.
pub(crate) fn with_huge_values() -> TestRedis {
    let server = empty();
    let mut state = 1_u64;
    let mut value = |length: usize| {
        let mut text = String::with_capacity(length);
        while text.len() < length {
            state = mixed(state);
            let _ = write!(text, "{state:016x}");
        }
        text
    };
    pipe(
        &server,
        (0..6).map(|number| command(&["SET".to_owned(), format!("huge:{number}"), value(100 << 20)])),
    );
    server
}

fn pipe(server: &TestRedis, commands: impl Iterator<Item = String>) {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &server.port().to_string(), "--pipe"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut pipe = command.spawn().expect("redis-cli is there");
    let mut input = std::io::BufWriter::with_capacity(1 << 20, pipe.stdin.take().expect("it was asked for"));
    for command in commands {
        input.write_all(command.as_bytes()).expect("redis-cli reads");
    }
    drop(input);
    assert!(pipe.wait().expect("it is ours").success());
}

/// A step of a linear congruential generator: values that differ, and are not noise.
fn mixed(number: u64) -> u64 {
    number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

/// The command that makes one key.
fn key_of(number: u64) -> String {
    let mixed = mixed(number);
    let mut words = Vec::new();
    if number.is_multiple_of(5) {
        words.extend(["HSET".to_owned(), format!("cart:{number}")]);
        for field in 0..10_u64 {
            let turned = mixed.rotate_left(u32::try_from(field).unwrap_or(0));
            words.extend([format!("field{field}"), format!("item-{}", turned % 100_000)]);
        }
    } else {
        let session = format!(
            "{{\"user\":{},\"token\":\"{mixed:016x}{:016x}\",\"roles\":[\"reader\",\"editor\"],\"language\":\"en\",\
             \"agent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\",\"seen\":{}}}",
            mixed % 1_000_000,
            self::mixed(mixed),
            1_700_000_000 + mixed % 10_000_000
        );
        words.extend(["SET".to_owned(), format!("session:{number}"), session]);
    }
    command(&words)
}

fn command(words: &[String]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        let _ = write!(text, "${}\r\n{word}\r\n", word.len());
    }
    text
}
