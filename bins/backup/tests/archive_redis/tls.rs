//! Over an encrypted connection.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use backstay_testkit::PortLease;

use crate::certificates::make_certificates;
use crate::scene::{Scene, Writer};

/// Values that fill many records of TLS, between small writes; then a kill of either side.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_archived_over_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    // The server runs as somebody else.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    make_certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let port = PortLease::reserve().unwrap();
    let settings = [
        ("tls-port", &*port.port().to_string()),
        ("tls-cert-file", &file("server.crt")),
        ("tls-key-file", &file("server.key")),
        ("tls-ca-cert-file", &file("ca.crt")),
        ("tls-auth-clients", "no"),
        ("repl-backlog-size", "64mb"),
    ];
    let mut scene = Scene::start(&settings).await;
    let encrypted = ["--tls", "--tls-ca", &file("ca.crt")];
    let archiver = scene.archive_from(port.port(), &encrypted);
    scene.wait_for_base();
    let writer = Writer::start(&scene.redis, 0);
    for round in 0..8 {
        // Each is longer than what is read at once.
        scene.redis.cli(&["eval", "redis.call('set', KEYS[1], string.rep('x', 3000000))", "1", "k"]).unwrap();
        std::thread::sleep(Duration::from_millis(30 * round));
    }
    scene.wait_for_segment();
    archiver.kill9();
    let archiver = scene.archive_from(port.port(), &encrypted);
    scene.wait("a connection", |status| status["continued"].as_u64() > Some(0));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(scene.info("sync_full"), "1");
    scene.redis.kill9();
    let acknowledged = writer.finish();
    scene.wait("the end of the stream", |status| status["server"].is_null());
    assert_eq!(archiver.stop(), Some(0), "everything is stored");
    assert!(acknowledged.last() > 100, "only {} writes", acknowledged.last());
    scene.look().await.assert_has(&acknowledged);
}
