//! The HTML of a status page. Every text of an incident is a block or an island of its own direction, so that words which
//! are written from right to left stay in order beside those of the page.

use std::fmt::Write as _;

use super::Document;
use crate::incident::{Entry, Incident};
use crate::render::{clean_text, stamp};

/// From then on the page says of itself that it is old, in seconds.
const OLD: i64 = 3600;
/// Entries of an open incident that are seen at once; the earlier ones are folded away.
const SEEN: usize = 5;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in clean_text(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' => safe.push_str("<br>"),
            c => safe.push(c),
        }
    }
    safe
}

pub(super) fn html(document: &Document<'_>, words: &str, json: &str) -> String {
    let open: String = document.open.iter().map(|incident| article(incident)).collect();
    let past: String = document.past.iter().map(|incident| article(incident)).collect();
    let none = if document.complete { "None." } else { "None is known." };
    let or_none = |text: String| if text.is_empty() { format!("<p class=\"none\">{none}</p>") } else { text };
    let doubt = if document.complete {
        ""
    } else {
        "<p class=\"doubt\">Not all incidents could be read: there may be more than this page shows.</p>\n"
    };
    // Inside of a script element only this could end it.
    let data = json.replace('<', "\\u003c");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}: {words}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1 dir=\"auto\">{title}</h1>\n<p class=\"state {state}\" role=\"status\">{words}</p>\n\
         <p class=\"made\">As of <time id=\"made\" datetime=\"{made}\" data-old=\"{OLD}\">{stamp}</time>\
         <strong id=\"old\" hidden> This page is old: what it says may be wrong.</strong></p>\n{doubt}\
         <h2>Open</h2>\n{open}\n<h2>Past 90 days</h2>\n{past}\n</main>\n\
         <script type=\"application/json\" id=\"data\">\n{data}\n</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        title = escaped(document.title),
        state = document.state,
        made = document.made,
        stamp = stamp(document.made),
        open = or_none(open),
        past = or_none(past),
    )
}

fn article(incident: &Incident) -> String {
    let impact = match incident.impact.as_str() {
        "" => String::new(),
        impact => format!("<p class=\"impact\">Impact: <bdi>{}</bdi></p>\n", escaped(impact)),
    };
    format!(
        "<article class=\"{class}\">\n<p class=\"head\"><span class=\"severity\">{severity}</span> \
         <span class=\"status\">{status}</span></p>\n<h3 dir=\"auto\">{title}</h3>\n{impact}\
         <p class=\"facts\">{facts}</p>\n{timeline}</article>\n",
        class = class(incident),
        severity = incident.severity,
        status = incident.status,
        title = escaped(&incident.title),
        facts = facts(incident).join(" · "),
        timeline = timeline(incident),
    )
}

/// What is over does not glow.
fn class(incident: &Incident) -> String {
    let severity = incident.severity.name().to_ascii_lowercase();
    if incident.is_open() { severity } else { format!("{severity} over") }
}

fn facts(incident: &Incident) -> Vec<String> {
    let mut facts = vec![format!("Began {}", stamp(incident.since))];
    if let Some(downtime) = incident.downtime() {
        facts.push(format!("lasted {}", crate::policy::span(downtime)));
    }
    if let Some(due) = incident.update_due {
        facts.push(format!("next update by {}", stamp(due)));
    }
    if !incident.tiers.is_empty() {
        facts.push(format!("tiers: <bdi>{}</bdi>", escaped(&incident.tiers.join(", "))));
    }
    facts
}

/// The newest entries, and the earlier ones folded away: of what is over, all but the last.
fn timeline(incident: &Incident) -> String {
    let seen = if incident.is_open() { SEEN } else { 1 };
    let newest_first: Vec<String> =
        incident.timeline.iter().rev().map(|item| entry(incident, item)).collect();
    // A fold that hides a single entry saves nothing.
    let seen = if newest_first.len() == seen + 1 { seen + 1 } else { seen.min(newest_first.len()) };
    let (new, earlier) = newest_first.split_at(seen);
    let mut timeline = format!("<ol>\n{}</ol>\n", new.concat());
    if !earlier.is_empty() {
        let _ = writeln!(
            timeline,
            "<details><summary>{} earlier entries</summary>\n<ol>\n{}</ol></details>",
            earlier.len(),
            earlier.concat()
        );
    }
    timeline
}

fn entry(incident: &Incident, entry: &Entry) -> String {
    // Who opens an incident without further words says its title, which stands above.
    let text = if entry.text == incident.title {
        String::new()
    } else {
        format!("<p dir=\"auto\">{}</p>", escaped(&entry.text))
    };
    format!(
        "<li><p class=\"when\"><time datetime=\"{}\">{}</time> <b>{}</b></p>{text}</li>\n",
        entry.at,
        stamp(entry.at),
        entry.status
    )
}
