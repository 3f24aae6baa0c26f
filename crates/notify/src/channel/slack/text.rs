//! The words of a message for Slack: escaped, and cut to limits that are partly written down nowhere.

use serde_json::{Value, json};

use super::Mention;
use crate::channel::Message;
use crate::notice::{Kind, Notice};
use crate::policy::span;
use crate::render::{Unit, clean_line, fit, stamp};
use crate::severity::{Severity, Status};

/// Longest header.
const HEADER: usize = 150;
/// Longest section.
const SECTION: usize = 3000;
/// Longest body, in all sections together.
const BODY: usize = 9000;
/// Longest plain text, which notifications and old clients show; what an edit would take too.
const TEXT: usize = 3900;
/// Longest fact in what an edited message says.
const FACT: usize = 400;

/// The text with Slack's three special characters escaped, and no longer than the limit afterwards.
fn escaped(text: &str, limit: usize) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut used = 0;
    for c in text.chars() {
        let mut utf8 = [0; 4];
        let piece: &str = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            c => c.encode_utf8(&mut utf8),
        };
        used += crate::render::length(piece, Unit::Utf16);
        if used + 2 > limit {
            clean.push('…');
            return clean;
        }
        clean.push_str(piece);
    }
    clean
}

fn blocks(message: &Message<'_>, mention: Option<Mention>) -> Value {
    let letter = message.letter;
    let mut blocks = vec![json!({
        "type": "header",
        "text": { "type": "plain_text", "emoji": false, "text": fit(&escaped(&letter.subject, HEADER), HEADER, Unit::Utf16) },
    })];
    if let (Some(mention), Severity::P0, true) =
        (mention, message.notice.severity, message.notice.kind.is_alert())
    {
        let who = match mention {
            Mention::Here => "<!here>",
            Mention::Channel => "<!channel>",
        };
        blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": who } }));
    }
    for section in sections(&letter.body) {
        blocks.push(
            json!({ "type": "section", "text": { "type": "mrkdwn", "verbatim": true, "text": section } }),
        );
    }
    Value::Array(blocks)
}

/// The body in sections that are short enough, cut between lines where that is possible.
fn sections(body: &str) -> Vec<String> {
    let body = escaped(body, BODY);
    let mut sections = Vec::new();
    let mut rest = body.as_str();
    while !rest.trim().is_empty() {
        let mut end = 0;
        let mut used = 0;
        for c in rest.chars() {
            used += c.len_utf16();
            if used > SECTION - 10 {
                break;
            }
            end += c.len_utf8();
        }
        if end < rest.len() {
            let line = rest[..end].rfind('\n').filter(|at| *at > 0);
            // Not inside of an escape.
            end = line.or_else(|| rest[..end].rfind('&').filter(|at| end - at < 6 && *at > 0)).unwrap_or(end);
        }
        let (section, more) = rest.split_at(end);
        if !section.trim().is_empty() {
            sections.push(section.trim_matches('\n').to_owned());
        }
        rest = more;
    }
    sections
}

pub(super) fn payload(message: &Message<'_>, mention: Option<Mention>) -> Value {
    json!({
        "text": escaped(&message.letter.subject, TEXT),
        "blocks": blocks(message, mention),
        "link_names": false,
        "parse": "none",
        "unfurl_links": false,
        "unfurl_media": false,
    })
}

/// The words alone, for a Slack that finds the blocks too long for a reason of its own.
pub(super) fn short(message: &Message<'_>) -> Value {
    let text = format!("{}\n\n{}", message.letter.subject, fit(&message.letter.body, 2500, Unit::Utf16));
    json!({ "text": escaped(&text, TEXT), "link_names": false, "parse": "none", "unfurl_links": false })
}

/// What the first message of an incident says from now on: how it stands. `None` where a notice changes nothing of that.
pub(super) fn standing(notice: &Notice) -> Option<Value> {
    let status = notice.status?;
    let changes = matches!(
        notice.kind,
        Kind::Opened | Kind::Update | Kind::Acknowledged | Kind::Resolved | Kind::TaskSucceeded
    );
    if !changes {
        return None;
    }
    let title = clean_line(&notice.title);
    let head = match status {
        Status::Resolved => format!("[{}] RESOLVED: {title}", notice.severity),
        _ => format!("[{}] {title}", notice.severity),
    };
    let body = escaped(&facts(notice, status), SECTION);
    Some(json!({
        "text": escaped(&head, TEXT),
        "blocks": [
            { "type": "header", "text": { "type": "plain_text", "emoji": false, "text": fit(&escaped(&head, HEADER), HEADER, Unit::Utf16) } },
            { "type": "section", "text": { "type": "mrkdwn", "verbatim": true, "text": body } },
        ],
        "link_names": false,
        "parse": "none",
    }))
}

fn facts(notice: &Notice, status: Status) -> String {
    let line = |name: &str, text: Option<String>| {
        let text =
            text.map(|text| fit(&clean_line(&text), FACT, Unit::Utf16)).filter(|text| !text.is_empty());
        text.map(|text| format!("{name}: {text}"))
    };
    let downtime = notice.downtime.map(|seconds| span(jiff::SignedDuration::from_secs(seconds)));
    let due = notice.update_due.filter(|_| status != Status::Resolved);
    let lines = [
        line("Status", Some(status.name().to_owned())),
        line("Impact", Some(notice.impact.clone())),
        line("Incident commander", notice.commander.clone()),
        line("Affected tiers", Some(notice.tiers.join(", "))),
        line("Began", notice.since.map(stamp)),
        line("Acknowledged by", notice.acknowledged.as_ref().map(|who| who.by.clone())),
        line("Next update by", due.map(stamp)),
        line("Downtime", downtime),
    ];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}
