//! The status page: written on request, by whoever changes an incident, by every round, and by the service.

use std::fmt;
use std::time::Duration;

use backstay_backup_core::config::IncidentPlace;
use backstay_backup_core::key::Prefix;
use backstay_backup_core::store::{ObjectStore as _, StoreError};
use backstay_cli::{BareStore, Context, Exit, Failure};
use backstay_notify::page::Page;
use backstay_notify::{KnownIncidents, Notifier};
use serde::Serialize;
use tokio::sync::Notify;

use crate::PROGRAM;
use crate::args::PageArgs;

/// Folder of the page in a repository, where it lies among other things.
const FOLDER: &str = "status";
/// Time for a bucket to take the page; what people are told does not wait for it longer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the service looks whether another process changed an incident.
const LOOK: Duration = Duration::from_secs(5);
/// The same where that takes requests to a repository.
const LOOK_FAR: Duration = Duration::from_secs(300);
/// How often it writes the page when nothing changed, so that the page does not call itself old.
const FRESH: Duration = Duration::from_secs(600);

#[derive(Debug, Serialize)]
struct Written {
    places: Vec<String>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.places.iter().map(|place| format!("written to {place}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

pub(crate) async fn page(ctx: &Context, args: &PageArgs) -> Result<Exit, Failure> {
    let known = ctx.notifier(PROGRAM).await?.notifier.known_incidents(true).await?;
    let title = args.title.as_deref().unwrap_or_else(|| title(ctx));
    let page = Page::of_known(title, &known, ctx.clock.now());
    let mut places = Vec::new();
    if let Some(directory) = args.directory.as_ref().or(ctx.config.notify.status_page.as_ref()) {
        page.write(directory).map_err(|error| {
            Failure::usage(format!("cannot write the status page to {}: {error}", directory.display()))
        })?;
        places.push(directory.display().to_string());
    }
    if args.directory.is_none()
        && let Some(bucket) = ctx.status_bucket().await?
    {
        let location = bucket.location();
        page.publish(&bucket, &Prefix::root()).await.map_err(|source| unwritten(&location, source))?;
        places.push(format!("{location}/index.html"));
    }
    if places.is_empty() {
        places = in_repositories(ctx, &page).await?;
    }
    ctx.print(&Written { places })
}

/// Nothing else is configured: below `status/` of every repository.
async fn in_repositories(ctx: &Context, page: &Page) -> Result<Vec<String>, Failure> {
    let folder = Prefix::parse(FOLDER).map_err(|error| Failure::usage(error.to_string()))?;
    let mut places = Vec::new();
    for (name, store) in ctx.bare_stores().await? {
        let (location, published) = match store? {
            BareStore::Directory(store) => (store.location(), page.publish(store.as_ref(), &folder).await),
            BareStore::S3(store) => (store.location(), page.publish(&store, &folder).await),
        };
        published.map_err(|source| unwritten(&name, source))?;
        places.push(format!("{location}/{FOLDER}/index.html"));
    }
    Ok(places)
}

fn unwritten(place: &str, source: StoreError) -> Failure {
    let repository = place.to_owned();
    Failure::from(backstay_backup_core::Error::Store { repository, op: "write the status page", source })
}

fn title(ctx: &Context) -> &str {
    ctx.config.notify.status_title.as_deref().unwrap_or("Status")
}

fn is_wanted(ctx: &Context) -> bool {
    ctx.config.notify.status_page.is_some() || ctx.config.notify.status_bucket.is_some()
}

/// Writes the configured page anew. Its failure is no failure of what was done before, and is said.
pub(crate) async fn refresh(ctx: &Context, notifier: &Notifier) {
    if !is_wanted(ctx) {
        return;
    }
    match notifier.known_incidents(true).await {
        Ok(known) => write(ctx, &known).await,
        Err(error) => tracing::warn!(%error, "status page not written"),
    }
}

async fn write(ctx: &Context, known: &KnownIncidents) {
    let page = Page::of_known(title(ctx), known, ctx.clock.now());
    if let Some(directory) = &ctx.config.notify.status_page
        && let Err(error) = page.write(directory)
    {
        tracing::warn!(directory = %directory.display(), %error, "status page not written");
    }
    let published = tokio::time::timeout(PATIENCE, async {
        let Some(bucket) = ctx.status_bucket().await? else { return Ok(()) };
        match page.publish(&bucket, &Prefix::root()).await {
            // Another process was faster by a moment; the next round makes both right.
            Err(StoreError::Conflict { .. } | StoreError::AlreadyExists { .. }) | Ok(()) => Ok(()),
            Err(source) => Err(unwritten(&bucket.location(), source)),
        }
    });
    match published.await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => {
            let problem = failure.message();
            tracing::warn!(problem, "status page not written");
        }
        Err(_) => tracing::warn!("the bucket of the status page does not answer"),
    }
}

/// Keeps the page up to date for as long as the service runs: whenever `changed` says so, when another process or host
/// changed an incident, and from time to time.
pub(crate) async fn keep_fresh(ctx: &Context, notifier: &Notifier, changed: &Notify) {
    if !is_wanted(ctx) {
        return std::future::pending().await;
    }
    let is_far = ctx.config.notify.incidents == IncidentPlace::Repository;
    let look = if is_far { LOOK_FAR } else { LOOK };
    let mut written: Option<(KnownIncidents, tokio::time::Instant)> = None;
    let mut seen = None;
    loop {
        // Whoever changes an incident of this host changes what lies in the outbox; else the past is not read again.
        let mark = notifier.spool().mark().await.ok();
        let is_fresh = written.as_ref().is_some_and(|(_, at)| at.elapsed() < FRESH);
        if is_far || !is_fresh || mark.is_none() || mark != seen {
            match notifier.known_incidents(true).await {
                Ok(incidents) => {
                    let is_known = is_fresh && written.as_ref().is_some_and(|(known, _)| *known == incidents);
                    if !is_known {
                        write(ctx, &incidents).await;
                        written = Some((incidents, tokio::time::Instant::now()));
                    }
                    seen = mark;
                }
                Err(error) => tracing::warn!(%error, "status page not written"),
            }
        }
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(look) => {}
        }
    }
}
