//! Three Sentinels, a primary that dies, a replica that takes over, and an archiver that was told nothing but the Sentinels.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use backstay_testkit::{Account, RedisOptions, ScratchDir, TestRedis};

use crate::scene::{PATIENCE, Scene, Writer};

/// What they call the primary.
const NAME: &str = "shop";

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A server is a Sentinel when it is called by that name.
fn sentinel_program(folder: &ScratchDir) -> PathBuf {
    let program = folder.path().join("redis-sentinel");
    symlink("/usr/bin/redis-server", &program).unwrap();
    symlink("/usr/bin/redis-cli", folder.path().join("redis-cli")).unwrap();
    program
}

struct Watched {
    scene: Scene,
    /// Behind the server of the scene.
    replica: TestRedis,
    sentinels: Vec<TestRedis>,
    _programs: ScratchDir,
}

impl Watched {
    async fn start() -> Self {
        let scene = Scene::start(&[("repl-backlog-size", "16mb")]).await;
        let password = scene.redis.password().unwrap().to_owned();
        let (port, account) = (scene.redis.port(), Account::for_servers().unwrap());
        let replica = RedisOptions::default().setting("repl-diskless-sync-delay", "0").password_of(&password);
        let replica = replica.setting("replicaof", &format!("127.0.0.1 {port}"));
        let replica = TestRedis::start(replica).await.unwrap();
        wait("the replica", || info(&replica, "replication").contains("master_link_status:up"));
        let programs = ScratchDir::create("sentinel", account.as_ref()).unwrap();
        let options = RedisOptions::default()
            .password(false)
            .program(sentinel_program(&programs))
            .setting("sentinel", &format!("monitor {NAME} 127.0.0.1 {port} 2"))
            .setting("sentinel", &format!("auth-pass {NAME} {password}"))
            .setting("sentinel", &format!("down-after-milliseconds {NAME} 1000"))
            .setting("sentinel", &format!("failover-timeout {NAME} 2000"));
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(TestRedis::start(options.clone()).await.unwrap());
        }
        let watched = Self { scene, replica, sentinels, _programs: programs };
        let say = |field, value| all_say(&watched.sentinels, field, value);
        wait("three Sentinels that know each other", || say("num-other-sentinels", "2"));
        wait("the replica, for the Sentinels", || say("num-slaves", "1"));
        watched
    }

    /// The flags that name the Sentinels; the first of them is given already.
    fn flags(&self) -> Vec<String> {
        let rest = self.sentinels[1..].iter();
        let addresses = rest.flat_map(|it| ["--address".to_owned(), format!("127.0.0.1:{}", it.port())]);
        addresses.chain(["--sentinel".to_owned(), NAME.to_owned()]).collect()
    }
}

fn all_say(sentinels: &[TestRedis], field: &str, value: &str) -> bool {
    sentinels.iter().all(|sentinel| {
        let told = sentinel.cli(&["SENTINEL", "MASTER", NAME]).unwrap_or_default();
        let lines: Vec<&str> = told.lines().collect();
        lines.chunks(2).any(|pair| pair == [field, value])
    })
}

fn info(server: &TestRedis, section: &str) -> String {
    server.cli(&["INFO", section]).unwrap_or_default()
}

fn offset(server: &TestRedis) -> u64 {
    let told = info(server, "replication");
    let line = told.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).unwrap();
    line.trim().parse().unwrap()
}

/// Follows the replica or the primary, over two failovers, there and back.
async fn failovers(attach: &str) {
    let mut watched = Watched::start().await;
    let flags = watched.flags();
    let mut arguments = vec!["--attach", attach];
    arguments.extend(flags.iter().map(String::as_str));
    let archiver = watched.scene.archive_from(watched.sentinels[0].port(), &arguments);
    watched.scene.wait_for_base();
    let mut last = 0;
    for round in 0..2 {
        let from_first = round == 0;
        let (old, new) = if from_first {
            (&mut watched.scene.redis, &mut watched.replica)
        } else {
            (&mut watched.replica, &mut watched.scene.redis)
        };
        let writer = Writer::start(old, last);
        std::thread::sleep(Duration::from_millis(1200));
        last = writer.stop();
        // What a replica never got is lost with its primary, whoever archives; what the Sentinels publish there, too.
        watched.sentinels.iter().for_each(|sentinel| sentinel.process().unwrap().freeze());
        wait("the replica's data", || offset(new) == offset(old));
        old.kill9();
        watched.sentinels.iter().for_each(|sentinel| sentinel.process().unwrap().thaw());
        wait("a new primary", || info(new, "replication").contains("role:master"));
        // Until then they name the old one, which comes back empty.
        let port = new.port().to_string();
        wait("Sentinels that name the new one", || all_say(&watched.sentinels, "port", &port));
        let writer = Writer::start(new, last);
        std::thread::sleep(Duration::from_millis(600));
        last = writer.stop();
        // The old one comes back as a replica of the new one, at once; Sentinels take their time.
        old.restart().unwrap();
        old.cli(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]).unwrap();
        wait("the old primary as a replica", || info(old, "replication").contains("master_link_status:up"));
        let end = offset(new);
        let scene = &watched.scene;
        scene.wait("the writes to the new primary", |status| {
            status["durable"]["offset"].as_u64() >= status["last-write"].as_u64()
                && status["received"]["offset"].as_u64() >= Some(end)
        });
    }
    let status = watched.scene.status().unwrap();
    assert_eq!(archiver.stop(), Some(0));
    let look = watched.scene.look().await;
    look.assert_whole(last);
    assert_eq!(look.survey.histories.len(), 3, "three replication ids, one line");
    assert_eq!((&status["full-syncs"], &status["losses"]), (&1.into(), &serde_json::json!([])), "{status}");
    eprintln!("attached to the {attach}: two failovers, {last} writes, one line, no gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_that_knows_only_sentinels_follows_two_failovers_as_one_line() {
    failovers("replica").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_attached_to_the_primary_does_so_too() {
    failovers("primary").await;
}
