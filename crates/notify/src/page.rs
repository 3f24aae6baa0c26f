//! A status page as two files, which outlive what fails: one HTML file that loads nothing, and the same as JSON.
//!
//! Rendered from the incidents alone, so it can lie in a bucket of another region or on any web server. Every text of an
//! incident is escaped; the JSON inside the page cannot end its own element. The page says when it was made, and a
//! reader is told when that is long ago, or when not all incidents could be read: nothing is shown as fine because
//! nobody looked.

mod html;

use std::io::Write as _;
use std::path::Path;

use backstay_backup_core::key::Prefix;
use backstay_backup_core::store::{Attributes, ObjectStore, PutMode, StoreError};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::incident::Incident;
use crate::notifier::KnownIncidents;
use crate::severity::Severity;

/// How long the past is shown.
const PAST: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Incidents of the past that are shown at most.
const MOST: usize = 100;
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
    /// Whether all incidents could be read.
    complete: bool,
    open: Vec<&'a Incident>,
    past: Vec<&'a Incident>,
}

/// The worst of what is open, in a word that programs can read, and in one for people.
fn state(open: &[&Incident], is_whole: bool) -> (&'static str, &'static str) {
    match open.iter().map(|incident| incident.severity).min() {
        None if is_whole => ("operational", "No open incident"),
        None => ("unknown", "Unknown"),
        Some(Severity::P0) => ("major-outage", "Major outage"),
        Some(Severity::P1) => ("partial-outage", "Partial outage"),
        Some(_) => ("degraded", "Degraded"),
    }
}

impl Page {
    /// The page of these incidents, which are all there are.
    #[must_use]
    pub fn render(title: &str, incidents: &[Incident], now: Timestamp) -> Self {
        Self::of(title, incidents, true, now)
    }

    /// The page of the incidents that could be read, which may not be all of them: then it says so.
    #[must_use]
    pub fn of_known(title: &str, known: &KnownIncidents, now: Timestamp) -> Self {
        Self::of(title, &known.incidents, known.is_whole, now)
    }

    fn of(title: &str, incidents: &[Incident], is_whole: bool, now: Timestamp) -> Self {
        let mut open: Vec<&Incident> = incidents.iter().filter(|incident| incident.is_open()).collect();
        open.sort_by_key(|incident| incident.severity);
        let recent = |incident: &&Incident| {
            incident.resolved.is_some_and(|resolved| now.duration_since(resolved) <= PAST)
        };
        let past: Vec<&Incident> = incidents.iter().filter(recent).take(MOST).collect();
        let (state, words) = state(&open, is_whole);
        let document = Document { title, made: now, state, complete: is_whole, open, past };
        let json = serde_json::to_string_pretty(&document).unwrap_or_else(|_| "{}".to_owned());
        let html = html::html(&document, words, &json);
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
