//! What becomes of messages when the network fails: `send-notification` beside Alertmanager and Apprise.
//!
//! Three incidents are opened and end again while nobody listens; the process that knows them is killed with `kill -9`; the
//! service comes back and first says "429, come back in five seconds"; one answer is lost on the way. Then everybody
//! has time, and what arrived is counted. The same services, moments and messages for all.
#![expect(clippy::print_stdout, reason = "a measuring program reports to its terminal")]

mod tool;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use backstay_testkit::{Answer, HttpSink, PortLease, Received};
use clap::Parser;

use tool::{Alertmanager, Apprise, Backstay, Tool};

/// Seconds that the service asks to be left alone.
const RETRY_AFTER: u64 = 5;
/// Incidents.
const INCIDENTS: usize = 3;

/// Counts what arrives through an outage; prints a Markdown table.
#[derive(Debug, Parser)]
struct Args {
    /// Seconds without network
    #[arg(long, default_value_t = 20)]
    outage: u64,
    /// Seconds that everybody has afterwards
    #[arg(long, default_value_t = 60)]
    after: u64,
}

/// What arrived of one tool.
#[derive(Debug, Default)]
struct Arrived {
    lost: usize,
    copies: usize,
    early: usize,
    disordered: usize,
    first: Option<Duration>,
}

fn main() {
    let args = Args::parse();
    println!(
        "| tool | notices | lost | second copies | attempts before Retry-After | out of order | first arrival after the outage |"
    );
    println!("|---|---|---|---|---|---|---|");
    let tools: Vec<(&str, Option<Box<dyn Tool>>)> = vec![
        ("send-notification", Backstay::find().map(|tool| Box::new(tool) as Box<dyn Tool>)),
        ("Alertmanager", Alertmanager::find().map(|tool| Box::new(tool) as Box<dyn Tool>)),
        ("Apprise, retry=2", Apprise::find().map(|tool| Box::new(tool) as Box<dyn Tool>)),
    ];
    for (name, tool) in tools {
        match tool {
            Some(mut tool) => {
                let arrived = outage(tool.as_mut(), &args);
                let first = arrived
                    .first
                    .map_or_else(|| "–".to_owned(), |first| format!("{:.1} s", first.as_secs_f64()));
                println!(
                    "| {name} {} | {} | {} | {} | {} | {} | {first} |",
                    tool.version(),
                    2 * INCIDENTS,
                    arrived.lost,
                    arrived.copies,
                    arrived.early,
                    arrived.disordered
                );
            }
            None => println!("| {name} | not on this machine: scripts/setup.sh --notify-peers | | | | | |"),
        }
    }
}

/// The words of the notices: each incident begins and ends.
fn words(incident: usize, is_end: bool) -> String {
    format!("incident-{incident}-{}", if is_end { "ended" } else { "began" })
}

fn outage(tool: &mut dyn Tool, args: &Args) -> Arrived {
    let port = PortLease::reserve().expect("a free port");
    tool.start(port.port());
    let begun = Instant::now();
    let third = Duration::from_secs(args.outage) / 3;
    (0..INCIDENTS).for_each(|incident| tool.open(incident));
    std::thread::sleep(third);
    (0..INCIDENTS).for_each(|incident| tool.end(incident));
    std::thread::sleep(third);
    tool.kill_and_restart();
    std::thread::sleep(Duration::from_secs(args.outage).saturating_sub(begun.elapsed()));
    let answers = AtomicUsize::new(0);
    let back = Instant::now();
    let sink = HttpSink::start_on(port.port(), move |_, _| match answers.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::limited(RETRY_AFTER),
        2 => Answer::Close,
        _ => Answer::ok("ok"),
    })
    .expect("the port was reserved");
    std::thread::sleep(Duration::from_secs(args.after));
    tool.stop();
    judge(&sink.received(), back)
}

fn judge(received: &[Received], back: Instant) -> Arrived {
    let mut arrived = Arrived::default();
    let limited = received.first().map(|request| request.at);
    let taken = received.iter().skip(1);
    let mut order: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    let mut copies: BTreeMap<(usize, bool), Vec<String>> = BTreeMap::new();
    for (number, request) in taken.enumerate() {
        let wait = limited.map_or(Duration::MAX, |limited| request.at.duration_since(limited));
        arrived.early += usize::from(wait < Duration::from_secs(RETRY_AFTER));
        let text = String::from_utf8_lossy(&request.body).into_owned();
        for incident in 0..INCIDENTS {
            for is_end in [false, true] {
                if !text.contains(&words(incident, is_end)) {
                    continue;
                }
                arrived.first.get_or_insert(request.at.duration_since(back));
                // The same id on both is what lets a receiver drop the second.
                let id =
                    request.header("webhook-id").map_or_else(|| format!("request {number}"), str::to_owned);
                let ids = copies.entry((incident, is_end)).or_default();
                if !ids.contains(&id) {
                    ids.push(id);
                }
                order.entry(incident).or_default().push(is_end);
            }
        }
    }
    arrived.lost = 2 * INCIDENTS - copies.len();
    arrived.copies = copies.values().map(|ids| ids.len() - 1).sum();
    arrived.disordered = order.values().filter(|ends| !ends.is_sorted()).count();
    arrived
}
