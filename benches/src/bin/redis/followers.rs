//! Who follows a server while it is measured, and how each begins.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backstay_benches::processes::cpu_of_tree;
use backstay_testkit::TestRedis;

use crate::{Programs, shell, until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follower {
    Nobody,
    Ours,
    /// What reads at the same pace and throws everything away.
    Reader,
    /// What the server comes with; it throws everything away.
    Theirs,
    /// One that went away again: the server keeps its backlog.
    Gone,
}

pub(crate) const FOLLOWERS: [(Follower, &str); 5] = [
    (Follower::Nobody, "nobody follows"),
    (Follower::Ours, "`archive-redis`"),
    (Follower::Reader, "a replica that only reads"),
    (Follower::Theirs, "`redis-cli --replica >/dev/null`"),
    (Follower::Gone, "nobody any more: its backlog only"),
];

/// Bytes of the stream that the server has sent so far.
pub(crate) fn sent_to_replicas(server: &TestRedis) -> f64 {
    let told = server.cli(&["INFO", "stats"]).expect("it answers");
    let line = told.lines().find_map(|line| line.strip_prefix("total_net_repl_output_bytes:"));
    line.expect("the server counts them").trim().parse().expect("a number")
}

/// Has the server drop the backlog of a follower that is gone.
pub(crate) fn wait_backlog_away(server: &TestRedis) {
    let keep =
        |seconds: &str| server.cli(&["CONFIG", "SET", "repl-backlog-ttl", seconds]).expect("it answers");
    keep("1");
    until("the server keeps its backlog", || has_backlog(server) == Some(false));
    keep("3600");
}

fn has_backlog(server: &TestRedis) -> Option<bool> {
    let told = server.cli(&["INFO", "replication"]).ok()?;
    told.lines().find_map(|line| line.strip_prefix("repl_backlog_active:")).map(|active| active.trim() == "1")
}

/// A follower where it belongs.
fn placed(processor: Option<usize>, program: &str) -> Command {
    let Some(processor) = processor else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", &processor.to_string(), program]);
    command
}

/// A follower that has its base; it ends when this is dropped.
pub(crate) struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Following {
    /// Processor time that it has taken so far.
    pub(crate) fn busy(&self) -> Duration {
        cpu_of_tree(self.0.id())
    }

    /// Starts a follower on a processor, and waits until the server sends it the stream; `None` if nobody follows then.
    pub(crate) fn start(
        processor: Option<usize>,
        server: &TestRedis,
        follower: Follower,
        programs: &Programs,
        folder: &Path,
    ) -> Option<Self> {
        shell(&format!("redis-cli -p {} CONFIG SET repl-diskless-sync-delay 0 >/dev/null", server.port()));
        let mut command = match follower {
            Follower::Nobody => return None,
            Follower::Theirs => {
                let mut command = placed(processor, "redis-cli");
                command.args(["-p", &server.port().to_string(), "--replica"]);
                command
            }
            Follower::Reader | Follower::Gone => {
                let mut command = placed(processor, &programs.path("redis"));
                command.args(["--follow", &server.port().to_string()]);
                command
            }
            Follower::Ours => {
                let mut command = placed(processor, &programs.path("archive-redis"));
                command
                    .arg("--repository")
                    .arg(folder.join("repository"))
                    .arg("--spool")
                    .arg(folder.join("spool"));
                command.args(["--address", &format!("127.0.0.1:{}", server.port())]);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let following = Self(command.spawn().expect("it starts"));
        let is_ready = || match follower {
            Follower::Ours => std::fs::read_to_string(folder.join("spool/status.json"))
                .is_ok_and(|told| told.contains("\"base\":{")),
            _ => server.cli(&["INFO", "replication"]).is_ok_and(|told| told.contains("state=online")),
        };
        until("the follower did not begin", is_ready);
        // A server calls a replica online that it sends nothing before that one has acknowledged its snapshot.
        let sent = sent_to_replicas(server);
        until("the stream did not begin", || {
            server.cli(&["SET", "session:0", "0"]).is_ok() && sent_to_replicas(server) > sent
        });
        if follower != Follower::Gone {
            return Some(following);
        }
        drop(following);
        until("the follower did not go", || {
            server.cli(&["INFO", "replication"]).is_ok_and(|told| told.contains("connected_slaves:0"))
        });
        assert_eq!(has_backlog(server), Some(true), "it is kept");
        None
    }
}
