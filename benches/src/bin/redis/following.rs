//! What a server gets done while something follows it.
//!
//! A server that has a replica is archived from that one, which is the default. One that is alone pays for its only follower.
//!
//! Three parties share two processors here, which nobody does who can avoid it. So there are three ways to look. The
//! archiver, and the replica, on a processor of their own, as if they were elsewhere: what is lost then is what the server
//! pays, and the bar is about that. The server on a processor of its own, so that clients and archiver take from each other. And everything
//! where it pleases. What the server itself pays shows in its processor time.
//!
//! A server that was followed once keeps a backlog for an hour (`repl-backlog-ttl`) and writes every command into it too,
//! whether or not anyone reads it. So before nobody follows, the backlog is waited away; and what it costs alone, which no
//! follower can spare the server, is measured as well.

use std::time::Duration;

use backstay_benches::processes::cpu_of_tree;
use backstay_benches::{Bar, Better, median, verdicts};
use backstay_testkit::{ScratchDir, TestRedis};

use crate::followers::{FOLLOWERS, Follower, Following, sent_to_replicas, wait_backlog_away};
use crate::{Programs, data, load, shell, until};

#[derive(Clone, Copy, Debug)]
struct Load {
    name: &'static str,
    /// Commands that a client sends before it waits.
    at_once: usize,
    /// Reads for each write.
    reads: usize,
    commands: usize,
}

const LOADS: [Load; 3] = [
    Load { name: "writes, one at a time", at_once: 1, reads: 0, commands: 600_000 },
    Load { name: "writes, 16 at a time", at_once: 16, reads: 0, commands: 3_000_000 },
    Load { name: "four reads to a write, 16 at a time", at_once: 16, reads: 4, commands: 4_000_000 },
];

/// Who runs where.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: &'static str,
    server: Option<usize>,
    clients: Option<usize>,
    /// Of its replica too.
    follower: Option<usize>,
    /// Whether the server has a replica, which is then what an archiver attaches to.
    has_replica: bool,
    /// Whether the bar is about it.
    is_bar: bool,
}

const PLACES: [Place; 4] = [
    Place {
        name: "the server has a replica",
        server: Some(0),
        clients: Some(0),
        follower: Some(1),
        has_replica: true,
        is_bar: true,
    },
    Place {
        name: "alone, the follower has a processor",
        server: Some(0),
        clients: Some(0),
        follower: Some(1),
        has_replica: false,
        is_bar: true,
    },
    Place {
        name: "alone, the server has a processor",
        server: Some(0),
        clients: Some(1),
        follower: Some(1),
        has_replica: false,
        is_bar: false,
    },
    Place {
        name: "alone, all where they please",
        server: None,
        clients: None,
        follower: None,
        has_replica: false,
        is_bar: false,
    },
];

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Commands in a second.
    rate: f64,
    /// Processor time of the server for each, in microseconds.
    server: f64,
    /// Processors that the follower kept busy.
    follower: f64,
    /// Part of what was written that it was sent. A server drops a follower that is too slow (`client-output-buffer-limit`).
    sent: f64,
}

pub(crate) fn measure(programs: &Programs, rounds: usize, only: &str) -> String {
    let mut text =
        "| place | load | meanwhile | commands/s (min–max) | of undisturbed (rounds) | server µs/command | follower's processors | sent to replicas |\n\
         |---|---|---|---|---|---|---|---|"
            .to_owned();
    let mut bars = Vec::new();
    for place in PLACES {
        for load in LOADS {
            let name = format!("{} | {}", place.name, load.name);
            if !name.contains(only) {
                continue;
            }
            let runs = rounds_of(place, load, programs, rounds);
            for (at, (_, follower)) in FOLLOWERS.iter().enumerate().take(runs.len()) {
                text.push_str(&row(&name, follower, &runs[at], &runs[0]));
            }
            if place.is_bar {
                bars.push(Bar {
                    name: format!("throughput while archived: {name}").replace(" |", ","),
                    peer: "without".to_owned(),
                    ratios: shares(&runs[1], &runs[0]),
                    better: Better::More,
                    wanted: 0.95,
                    aim: 0.98,
                });
            }
            if let Some(reader) = runs.get(2).filter(|_| place.is_bar) {
                bars.push(Bar {
                    name: format!("throughput while archived: {name}").replace(" |", ","),
                    peer: "a replica that only reads".to_owned(),
                    ratios: shares(&runs[1], reader),
                    better: Better::More,
                    wanted: 0.98,
                    aim: 1.0,
                });
            }
        }
    }
    format!("{text}\n\n{}", verdicts(&bars))
}

fn shares(runs: &[Run], alone: &[Run]) -> Vec<f64> {
    runs.iter().zip(alone).map(|(run, alone)| run.rate / alone.rate).collect()
}

fn row(load: &str, follower: &str, runs: &[Run], alone: &[Run]) -> String {
    let of = |field: fn(&Run) -> f64| runs.iter().map(field).collect::<Vec<_>>();
    let (rates, shares) = (of(|run| run.rate), shares(runs, alone));
    let all: Vec<String> = shares.iter().map(|share| format!("{share:.2}")).collect();
    format!(
        "\n| {load} | {follower} | {:.0} ({:.0}–{:.0}) | {:.3} ({}) | {:.2} | {:.2} | {:.2} |",
        median(&rates),
        rates.iter().copied().fold(f64::INFINITY, f64::min),
        rates.iter().copied().fold(0.0, f64::max),
        median(&shares),
        all.join(" "),
        median(&of(|run| run.server)),
        median(&of(|run| run.follower)),
        median(&of(|run| run.sent)),
    )
}

/// Runs of each follower. Whoever comes before leaves its traces in the server, so in as many rounds as there are followers
/// each comes behind each other one.
fn rounds_of(place: Place, load: Load, programs: &Programs, rounds: usize) -> Vec<Vec<Run>> {
    let server = data::empty();
    pin(&server, place.server);
    let replica = place.has_replica.then(data::empty);
    if let Some(replica) = &replica {
        pin(replica, place.follower);
        replica.cli(&["REPLICAOF", "127.0.0.1", &server.port().to_string()]).expect("it answers");
        until("the replica did not begin", || {
            replica.cli(&["INFO", "replication"]).is_ok_and(|told| told.contains("master_link_status:up"))
        });
    }
    // The others follow the server itself.
    let followers = if place.has_replica { &FOLLOWERS[..2] } else { &FOLLOWERS[..] };
    let _ = run(place, load, &server, Follower::Nobody, programs);
    let mut runs = vec![Vec::new(); followers.len()];
    for round in 0..rounds {
        for next in turns(followers.len(), round) {
            runs[next].push(run(place, load, &server, followers[next].0, programs));
        }
    }
    runs
}

/// The order of so many in a round: rows of a square in which everyone is behind everyone else equally often, for an even
/// number in as many rounds, for an odd one in twice as many (E. J. Williams, 1949).
fn turns(many: usize, round: usize) -> Vec<usize> {
    let zigzag = |turn: usize| if turn % 2 == 1 { turn.div_ceil(2) } else { many - turn / 2 };
    let mut order: Vec<_> = (0..many).map(|turn| (zigzag(turn) + round) % many).collect();
    if many % 2 == 1 && (round / many) % 2 == 1 {
        order.reverse();
    }
    order
}

fn pin(server: &TestRedis, processor: Option<usize>) {
    let process = server.process().expect("it runs").pid();
    if let Some(processor) = processor {
        shell(&format!("taskset -acp {processor} {process} >/dev/null"));
    }
}

fn run(place: Place, load: Load, server: &TestRedis, follower: Follower, programs: &Programs) -> Run {
    server.cli(&["FLUSHALL"]).expect("it answers");
    load::fill(server.port());
    let scratch = ScratchDir::create("bench", None).expect("a scratch folder");
    if follower == Follower::Nobody && !place.has_replica {
        wait_backlog_away(server);
    }
    let following = Following::start(place.follower, server, follower, programs, scratch.path());
    if place.has_replica {
        let told = server.cli(&["INFO", "replication"]).expect("it answers");
        assert!(told.contains("connected_slaves:1"), "whoever follows attaches to the replica: {told}");
    }
    let process = server.process().expect("it runs").pid();
    let busy = |following: &Option<Following>| following.as_ref().map_or(Duration::ZERO, Following::busy);
    let sent_before = sent_to_replicas(server);
    let (server_before, follower_before) = (cpu_of_tree(process), busy(&following));
    let habit = load::Habit {
        at_once: load.at_once,
        reads: load.reads,
        commands: load.commands,
        processor: place.clients,
    };
    let wall = load::run(server.port(), habit).as_secs_f64();
    let (server_busy, follower_busy) =
        (cpu_of_tree(process) - server_before, busy(&following) - follower_before);
    let commands = f64::from(u32::try_from(load.commands).expect("a few millions"));
    let written = commands / f64::from(u32::try_from(load.reads + 1).expect("a few")) * load::WRITTEN;
    let sent = || (sent_to_replicas(server) - sent_before) / written;
    if matches!(follower, Follower::Ours | Follower::Reader) {
        until("the follower was not sent what was written", || sent() >= 1.0);
    }
    Run {
        rate: commands / wall,
        server: server_busy.as_secs_f64() * 1e6 / commands,
        follower: follower_busy.as_secs_f64() / wall,
        sent: sent().min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::turns;

    #[test]
    fn everyone_comes_behind_everyone_else_equally_often() {
        for (many, rounds) in [(2, 2), (3, 6), (4, 4), (5, 10)] {
            let mut pairs = BTreeMap::new();
            for round in 0..rounds {
                let order = turns(many, round);
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..many).collect::<Vec<_>>());
                order.windows(2).for_each(|pair| *pairs.entry((pair[0], pair[1])).or_insert(0) += 1);
            }
            assert_eq!(pairs.len(), many * (many - 1), "{pairs:?}");
            let often = rounds / many;
            assert!(pairs.values().all(|times| *times == often), "{many}: {pairs:?}");
        }
    }
}
