//! A status page as two files, which outlive what fails: one HTML file that loads nothing, and the same as JSON.
//!
//! Rendered from the incidents alone, so it can lie in a bucket of another region or on any web server. Every text of an
//! incident is escaped; the JSON inside the page cannot end its own element. The page says when it was made, and a
//! reader is told when that is long ago: nothing is shown as fine because nobody looked.

use std::io::Write as _;
use std::path::Path;

use backstay_backup_core::key::Prefix;
use backstay_backup_core::store::{Attributes, ObjectStore, PutMode, StoreError};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::incident::Incident;
use crate::render::{clean_text, stamp};
use crate::severity::Severity;

/// How long the past is shown.
const PAST: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Incidents of the past that are shown at most.
const MOST: usize = 100;
/// From then on the page says of itself that it is old, in seconds.
const OLD: i64 = 3600;

/// A page, ready to be written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// The HTML file.
    pub html: String,
    /// The JSON file.
    pub json: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Document<'a> {
    title: &'a str,
    made: Timestamp,
    state: &'static str,
    open: Vec<&'a Incident>,
    past: Vec<&'a Incident>,
}

/// The worst of what is open, in a word that programs can read.
fn state(open: &[&Incident]) -> (&'static str, &'static str) {
    match open.iter().map(|incident| incident.severity).min() {
        None => ("operational", "No open incident"),
        Some(Severity::P0) => ("major-outage", "Major outage"),
        Some(Severity::P1) => ("partial-outage", "Partial outage"),
        Some(_) => ("degraded", "Degraded"),
    }
}

impl Page {
    /// The page of these incidents.
    #[must_use]
    pub fn render(title: &str, incidents: &[Incident], now: Timestamp) -> Self {
        let mut open: Vec<&Incident> = incidents.iter().filter(|incident| incident.is_open()).collect();
        open.sort_by_key(|incident| incident.severity);
        let recent = |incident: &&Incident| {
            incident.resolved.is_some_and(|resolved| now.duration_since(resolved) <= PAST)
        };
        let past: Vec<&Incident> = incidents.iter().filter(recent).take(MOST).collect();
        let (state, words) = state(&open);
        let document = Document { title, made: now, state, open, past };
        let json = serde_json::to_string_pretty(&document).unwrap_or_else(|_| "{}".to_owned());
        let html = html(&document, words, &json);
        Self { html, json }
    }

    /// Writes both files into a directory, each whole or not at all. Blocks for as long as the disk does.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write(&self, directory: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(directory)?;
        for (name, content) in [("index.html", &self.html), ("status.json", &self.json)] {
            let temporary = directory.join(format!(".{name}.{}", std::process::id()));
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, directory.join(name))?;
        }
        std::fs::File::open(directory)?.sync_all()
    }

    /// Writes both objects below a prefix of a store, over those of the last time.
    ///
    /// # Errors
    /// The store would not. Of two writers at once one may be told [`StoreError::Conflict`]; the other's page stands.
    pub async fn publish(&self, store: &dyn ObjectStore, below: &Prefix) -> Result<(), StoreError> {
        let files = [
            ("index.html", "text/html; charset=utf-8", &self.html),
            ("status.json", "application/json", &self.json),
        ];
        for (name, mime, content) in files {
            let key = below.key(name).expect("it is a valid key");
            let mode = match store.head(&key).await {
                Ok(meta) => meta.etag.map_or(PutMode::Create, PutMode::Replace),
                Err(error) if error.is_absent() => PutMode::Create,
                Err(error) => return Err(error),
            };
            let attributes = Attributes::default().content_type(mime);
            store.put(&key, Bytes::from(content.clone()), mode, &attributes).await?;
        }
        Ok(())
    }
}

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

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

fn html(document: &Document<'_>, words: &str, json: &str) -> String {
    let open: String = document.open.iter().map(|incident| article(incident)).collect();
    let past: String = document.past.iter().map(|incident| article(incident)).collect();
    let none = "<p class=\"none\">None.</p>".to_owned();
    let or_none = |text: String| if text.is_empty() { none.clone() } else { text };
    // Inside of a script element only this could end it.
    let data = json.replace('<', "\\u003c");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}: {words}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p class=\"state {state}\" role=\"status\">{words}</p>\n\
         <p class=\"made\">As of <time id=\"made\" datetime=\"{made}\" data-old=\"{OLD}\">{stamp}</time>\
         <strong id=\"old\" hidden> This page is old: what it says may be wrong.</strong></p>\n\
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
    let mut facts = vec![format!("Began {}", stamp(incident.since))];
    if let Some(downtime) = incident.downtime() {
        facts.push(format!("lasted {}", crate::policy::span(downtime)));
    }
    if let Some(due) = incident.update_due {
        facts.push(format!("next update by {}", stamp(due)));
    }
    let impact = match incident.impact.as_str() {
        "" => String::new(),
        impact => format!("<p class=\"impact\">Impact: {}</p>\n", escaped(impact)),
    };
    if !incident.tiers.is_empty() {
        facts.push(format!("tiers: {}", escaped(&incident.tiers.join(", "))));
    }
    let entries: String = incident
        .timeline
        .iter()
        .rev()
        .map(|entry| {
            format!(
                "<li><time datetime=\"{}\">{}</time> <b>{}</b> {}</li>\n",
                entry.at,
                stamp(entry.at),
                entry.status,
                escaped(&entry.text)
            )
        })
        .collect();
    format!(
        "<article class=\"{class}\">\n<h3><span class=\"severity\">{severity}</span> {title} \
         <span class=\"status\">{status}</span></h3>\n{impact}<p>{facts}</p>\n<ol>\n{entries}</ol>\n</article>\n",
        class = incident.severity.name().to_ascii_lowercase(),
        severity = incident.severity,
        title = escaped(&incident.title),
        status = incident.status,
        facts = facts.join(" · "),
    )
}
