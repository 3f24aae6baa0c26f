//! What is refused, and what encryption refuses.

use std::process::Stdio;

use backstay_testkit::{PortLease, RedisOptions};

use crate::certificates::make_certificates;
use crate::scene::{LOCAL, PROGRAM, back_up, bench, fill, quick, start};
use crate::support::{Bench, files, until};

#[test]
fn bad_input_ends_in_one_clear_error_and_nothing_is_written() {
    let server = start(&RedisOptions::default());
    let port = server.port();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let web = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let cases = [
        (format!("redis://:wrong@127.0.0.1:{port}"), 2, "does not let default in: WRONGPASS"),
        (format!("redis://127.0.0.1:{port}"), 2, "does not let default in: NOAUTH"),
        ("redis://127.0.0.1:1".to_owned(), 5, "cannot connect to 127.0.0.1:1"),
        (format!("redis://127.0.0.1:{web}"), 2, "is not a Redis"),
        (format!("rediss://127.0.0.1:{port}"), 2, "cannot make an encrypted connection"),
        ("http://127.0.0.1".to_owned(), 2, "write it as redis://user@host:port"),
    ];
    for (url, exit, words) in cases {
        let mut bench = Bench::new();
        bench.set("BACKSTAY_REDIS_URL", &url);
        let ended = bench.run(PROGRAM, &LOCAL).expect(exit);
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains(words),
            "{url}: {}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("wrong@") && ended.stdout.is_empty());
        assert!(!bench.path("local").exists(), "{url} made a repository");
    }
}

#[test]
fn a_full_disk_and_a_server_that_dies_leave_no_set() {
    let mut server = start(&quick());
    for _ in 0..40 {
        let key = format!("key{}", rand::random::<u64>());
        let noise: String = (0..60_000).map(|_| char::from(rand::random_range(33_u8..127))).collect();
        server.cli(&["SET", &key, &noise]).unwrap();
    }
    let mut full = bench(&server);
    full.make_full("local");
    let ended = full.run(PROGRAM, &LOCAL).expect(5);
    assert!(
        ended.stderr.contains("no space left") || ended.stderr.contains("File too large"),
        "{}",
        ended.stderr
    );
    // A child that writes slowly, and a server that is gone before it is done.
    let bench = bench(&server);
    server.cli(&["CONFIG", "SET", "rdb-key-save-delay", "100000"]).unwrap();
    let mut running = bench.command(PROGRAM, &LOCAL).stderr(Stdio::null()).spawn().unwrap();
    until(|| server.cli(&["INFO", "replication"]).unwrap().contains("slave0:"));
    server.kill9();
    let status = running.wait().unwrap();
    assert_eq!(status.code(), Some(5));
    assert!(files(&bench.path("local")).iter().all(|path| !path.ends_with("manifest.json")));
}

#[test]
fn an_encrypted_connection_is_made_to_the_right_server_only() {
    let bench = Bench::new();
    make_certificates(&bench.path(""));
    let port = PortLease::reserve().unwrap();
    let file = |name: &str| bench.path(name).display().to_string();
    let options = quick()
        .password(false)
        .setting("tls-port", &port.port().to_string())
        .setting("tls-cert-file", &file("server.crt"))
        .setting("tls-key-file", &file("server.key"))
        .setting("tls-ca-cert-file", &file("ca.crt"))
        .setting("tls-auth-clients", "no");
    let server = start(&options);
    fill(&server);
    let address = format!("127.0.0.1:{}", port.port());
    let known = ["--address", &address, "--tls", "--tls-ca", "ca.crt"];
    assert_eq!(back_up(&bench, &known)["keys"], 40);
    let stranger = [&LOCAL[..], &["--address", &address, "--tls"]].concat();
    let refused = bench.run(PROGRAM, &stranger).expect(2).stderr;
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    let other = [&LOCAL[..], &known, &["--option", "redis.tls-server-name=other.example"]].concat();
    let refused = bench.run(PROGRAM, &other).expect(2).stderr;
    assert!(refused.contains("not valid for name"), "{refused}");
    server.cli(&["CONFIG", "SET", "tls-auth-clients", "yes"]).unwrap();
    let refused = bench.run(PROGRAM, &[&LOCAL[..], &known].concat()).expect(2).stderr;
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let ours = ["--option", "redis.tls-certificate=server.crt", "--option", "redis.tls-key=server.key"];
    assert_eq!(back_up(&bench, &[&known[..], &ours].concat())["keys"], 40);
}
