//! A network that breaks off, stalls, garbles and loses packets.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::rounds;
use crate::scene::{Scene, Writer};

/// Hands bytes on, in pieces of odd sizes, and does to all connections what it is told.
struct Proxy {
    port: u16,
    will: Arc<Will>,
}

struct Will {
    /// Connections of an earlier number are cut.
    era: AtomicUsize,
    stalled: AtomicBool,
    /// How the next piece from the server is garbled; 0 for not at all.
    garble: AtomicUsize,
    /// Turns a bit over in the middle of the next piece that is full and no text, as pieces of a snapshot are.
    flip: AtomicBool,
    /// So many bytes from the server are handed on at most.
    left: AtomicUsize,
}

impl Default for Will {
    fn default() -> Self {
        Self {
            era: AtomicUsize::default(),
            stalled: AtomicBool::default(),
            garble: AtomicUsize::default(),
            flip: AtomicBool::default(),
            left: AtomicUsize::new(usize::MAX),
        }
    }
}

impl Proxy {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let will = Arc::new(Will::default());
        let told = will.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                tokio::spawn(hand_on(client, server, told.clone()));
            }
        });
        Self { port, will }
    }

    fn cut(&self) {
        self.will.era.fetch_add(1, Ordering::SeqCst);
    }
}

async fn hand_on(client: TcpStream, server: TcpStream, will: Arc<Will>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let era = will.era.load(Ordering::SeqCst);
    let is_cut = || will.era.load(Ordering::SeqCst) != era;
    let up = tokio::spawn(async move { _ = tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = [0; 1733];
    loop {
        let read = tokio::time::timeout(Duration::from_millis(20), from_server.read(&mut buffer)).await;
        while will.stalled.load(Ordering::SeqCst) && !is_cut() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if is_cut() {
            break;
        }
        let Ok(read) = read else { continue };
        let Ok(length @ 1..) = read else { break };
        while will.left.load(Ordering::SeqCst) < length && !is_cut() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        will.left.fetch_sub(length, Ordering::SeqCst);
        let mut piece = buffer[..length].to_vec();
        garble(&mut piece, &will.garble);
        let is_text = piece.windows(2).any(|bytes| bytes == b"\r\n");
        if length == buffer.len() && !is_text && will.flip.swap(false, Ordering::SeqCst) {
            piece[length / 2] ^= 1;
        }
        if to_client.write_all(&piece).await.is_err() {
            break;
        }
    }
    up.abort();
}

/// Bytes that get lost, that nobody sent, or that are others: what a checksum of TCP does not notice.
fn garble(piece: &mut Vec<u8>, how: &AtomicUsize) {
    // All of a command, so that there is something to do it to.
    let Some(header) = piece.iter().position(|byte| *byte == b'$').filter(|_| piece.len() > 60) else {
        return;
    };
    match how.swap(0, Ordering::SeqCst) {
        0 => {}
        1 => _ = piece.remove(piece.len() / 2),
        2 => piece.insert(piece.len() / 2, b'7'),
        3 => piece[header] = b'*',
        // Not a whole command: that nobody would miss.
        4 => piece.truncate(piece.len() / 2 - 5),
        _ => piece.drain(..7).for_each(drop),
    }
}

fn continued(scene: &Scene) -> u64 {
    scene.status().map_or(0, |status| status["continued"].as_u64().unwrap())
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
        let before = continued(&scene);
        tokio::time::sleep(Duration::from_millis(120 + 53 * (round as u64 % 5))).await;
        proxy.will.stalled.store(round % 3 == 0, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(60)).await;
        proxy.cut();
        proxy.will.stalled.store(false, Ordering::SeqCst);
        // After several short connections it would wait for longer and longer.
        scene.wait("another connection", |status| {
            status["continued"].as_u64() > Some(before) && !status["server"].is_null()
        });
    }
    let acknowledged = writer.finish();
    scene.wait_until_stored();
    let continued = continued(&scene);
    assert!(continued >= cuts as u64, "{continued} of {cuts} cuts were noticed");
    drop(archiver);
    assert_eq!(scene.info("sync_full"), "1");
    scene.look().await.assert_has(&acknowledged);
    eprintln!("{cuts} cuts, {continued} connections that went on, {} writes", acknowledged.last());
}

/// Each time it notices, attaches again, and takes what was garbled once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_garbles_is_noticed_and_costs_nothing() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let proxy = Proxy::start(scene.redis.port()).await;
    let archiver = scene.archive_from(proxy.port, &["--attach", "named"]);
    scene.wait_for_base();
    let writer = Writer::start(&scene.redis, 0);
    scene.wait_for_segment();
    let times = rounds(5, 100);
    for round in 0..times {
        let before = continued(&scene);
        proxy.will.garble.store(1 + round % 5, Ordering::SeqCst);
        scene.wait("another connection", |status| {
            status["continued"].as_u64() > Some(before) && !status["server"].is_null()
        });
        assert_eq!(proxy.will.garble.load(Ordering::SeqCst), 0);
    }
    let acknowledged = writer.finish();
    scene.wait_until_stored();
    scene.assert_logged("WARN", "the connection ended; attaching again");
    assert_eq!(archiver.stop(), Some(0));
    assert_eq!(scene.info("sync_full"), "1");
    scene.look().await.assert_has(&acknowledged);
    eprintln!("{times} times garbled, {} writes", acknowledged.last());
}

/// The checksum finds it, and another snapshot takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_garbled_never_becomes_a_base() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    // Nothing that a server could compress.
    let fill = "for at = 1, 200 do local value = '' for n = 1, 25 do value = value .. redis.sha1hex(at .. n) end \
        redis.call('SET', 'key:' .. at, value) end";
    scene.redis.cli(&["eval", fill, "0"]).unwrap();
    let proxy = Proxy::start(scene.redis.port()).await;
    proxy.will.flip.store(true, Ordering::SeqCst);
    let archiver = scene.archive_from(proxy.port, &["--attach", "named"]);
    scene.wait_for_base();
    scene.assert_logged("ERROR", "a snapshot is damaged; another one is taken");
    assert_eq!(scene.info("sync_full"), "2");
    scene.redis.cli(&["set", "n:1", "1"]).unwrap();
    scene.wait_until_stored();
    assert_eq!(archiver.stop(), Some(0));
    let look = scene.look().await;
    look.assert_whole(1);
    let line = look.line.unwrap();
    assert_eq!(line.windows[0].bases.len(), 1, "{line:?}");
}

/// It is longer than several segments, and the archiver dies in the middle of it. What the next one asks for is in the backlog.
#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_killed_within_a_huge_value_goes_on_with_it() {
    let scene = Scene::start(&[("repl-backlog-size", "256mb")]).await;
    let proxy = Proxy::start(scene.redis.port()).await;
    for (round, store_is_out) in [(0, false), (1, true)] {
        let archiver = scene.archive_from(proxy.port, &["--attach", "named"]);
        scene.wait_for_base();
        scene.redis.cli(&["set", &format!("n:{}", 2 * round + 1), "1"]).unwrap();
        scene.wait_until_stored();
        if store_is_out {
            scene.take_away();
        }
        let end: u64 = scene.info("master_repl_offset").parse().unwrap();
        proxy.will.left.store(40 << 20, Ordering::SeqCst);
        let huge = "redis.call('SET', 'huge', string.rep('x', 48 * 1024 * 1024))";
        scene.redis.cli(&["eval", huge, "0"]).unwrap();
        scene.wait("most of it", |status| {
            let within = status["received"]["offset"].as_u64() > Some(end + (36 << 20));
            within && (store_is_out || status["waiting"] == 0)
        });
        archiver.kill9();
        proxy.will.left.store(usize::MAX, Ordering::SeqCst);
        if store_is_out {
            scene.put_back();
        }
        let archiver = scene.archive_from(proxy.port, &["--attach", "named"]);
        scene.redis.cli(&["set", &format!("n:{}", 2 * round + 2), "1"]).unwrap();
        scene.wait_until_stored();
        assert_eq!(archiver.stop(), Some(0), "{}", scene.log());
        assert_eq!(scene.info("sync_full"), "1", "round {round}: {}", scene.log());
    }
    scene.look().await.assert_whole(4);
}

/// In the environment of a test that runs in a network of its own.
const LOSSY: &str = "BACKSTAY_LOSSY_NETWORK";
/// A network whose queue holds six packets and drops what comes while it is full; TCP sends that again.
const MAKE_LOSSY: &str = "ip link set lo mtu 1500 up && \
    tc qdisc add dev lo root tbf rate 24mbit burst 3000 limit 9000 && exec \"$0\" \"$@\"";

/// Segments of TCP that were sent again, in this network.
fn sent_again() -> u64 {
    let text = std::fs::read_to_string("/proc/self/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut fields = names.split(' ').zip(values.split(' '));
    fields.find(|(name, _)| *name == "RetransSegs").unwrap().1.parse().unwrap()
}

/// Packets that are really lost: runs itself once more, in a network of its own that ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn packets_that_are_lost_cost_nothing() {
    if std::env::var_os(LOSSY).is_some() {
        return lossy().await;
    }
    let program = std::env::current_exe().unwrap();
    let test = "network::packets_that_are_lost_cost_nothing";
    let mut again = Command::new("unshare");
    again.args(["--net", "sh", "-c", MAKE_LOSSY]).arg(program).args(["--exact", test, "--nocapture"]);
    let again = again.env(LOSSY, "1").output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&again.stderr));
    assert!(
        again.status.success() && out.contains("1 passed"),
        "this takes root, util-linux and iproute2:\n{out}\n{errors}"
    );
    errors.lines().filter(|line| line.contains("sent again")).for_each(|line| eprintln!("{line}"));
}

async fn lossy() {
    let scene = Scene::start(&[("repl-backlog-size", "256mb")]).await;
    let archiver = scene.archive(&["--attach", "named"]);
    scene.wait_for_base();
    // More than the network takes, so that its queue is always full.
    let writer = Writer::start_beside_the_network(&scene.redis, 700);
    let seconds = rounds(5, 15) as u64;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let acknowledged = writer.finish();
    scene.wait_until_stored();
    let lost = sent_again();
    assert!(lost > 100, "only {lost} packets were lost");
    assert_eq!(archiver.stop(), Some(0));
    assert_eq!(scene.info("sync_full"), "1");
    scene.look().await.assert_has(&acknowledged);
    eprintln!("{seconds} s, {lost} packets lost and sent again, {} writes", acknowledged.last());
}
