//! A network that breaks off, again and again, at any byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::rounds;
use crate::scene::{Scene, Writer};

/// Hands bytes on, in pieces of odd sizes, and cuts all connections when told to.
struct Proxy {
    port: u16,
    cut: Arc<AtomicUsize>,
    stalled: Arc<AtomicBool>,
}

impl Proxy {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, stalled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (cuts, stalls) = (cut.clone(), stalled.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let era = cuts.load(Ordering::SeqCst);
                let (cuts, stalls) = (cuts.clone(), stalls.clone());
                let up =
                    tokio::spawn(async move { _ = tokio::io::copy(&mut from_client, &mut to_server).await });
                tokio::spawn(async move {
                    let mut buffer = [0; 1733];
                    loop {
                        let read =
                            tokio::time::timeout(Duration::from_millis(20), from_server.read(&mut buffer))
                                .await;
                        if cuts.load(Ordering::SeqCst) != era {
                            break;
                        }
                        while stalls.load(Ordering::SeqCst) && cuts.load(Ordering::SeqCst) == era {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        match read {
                            Err(_) => {}
                            Ok(Ok(length)) if length > 0 => {
                                if to_client.write_all(&buffer[..length]).await.is_err() {
                                    break;
                                }
                            }
                            _ => break,
                        }
                    }
                    up.abort();
                });
            }
        });
        Self { port, cut, stalled }
    }

    fn cut(&self) {
        self.cut.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_breaks_off_costs_nothing() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let proxy = Proxy::start(scene.redis.port()).await;
    let archiver = scene.archive_from(proxy.port, &["--attach", "named"]);
    scene.wait_for_base();
    let writer = Writer::start(&scene.redis, 0);
    let cuts = rounds(8, 100);
    for round in 0..cuts {
        tokio::time::sleep(Duration::from_millis(120 + 53 * (round as u64 % 5))).await;
        proxy.stalled.store(round % 3 == 0, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(60)).await;
        proxy.cut();
        proxy.stalled.store(false, Ordering::SeqCst);
    }
    let last = writer.stop();
    let end: u64 = scene.info("master_repl_offset").parse().unwrap();
    scene.wait("everything", |status| status["durable"]["offset"].as_u64().is_some_and(|at| at + 200 >= end));
    scene.wait("everything stored", |status| status["waiting"] == 0);
    let continued = scene.status().unwrap()["continued"].as_u64().unwrap();
    assert!(continued >= cuts as u64 / 3, "{continued} of {cuts} cuts were noticed");
    drop(archiver);
    assert_eq!(scene.info("sync_full"), "1");
    scene.look().await.assert_whole(last);
    eprintln!("{cuts} cuts, {continued} connections that went on, {last} writes");
}
