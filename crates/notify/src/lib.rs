//! Incidents, and notifications that arrive.
//!
//! ```text
//! something happens ─▶ Incident (events, create-only) ─▶ Notice ─▶ Policy: who hears of it
//!                                                          │
//!     templates, limits ◀─ Letter ◀─ Outbox (durable, in order, retried for days) ─▶ Channel ─▶ people
//! ```
//!
//! Reading order: [`incident`] is what is known, [`notice`] what is told of it, [`policy`] who is told when, [`outbox`]
//! how nothing is lost, [`render`] and [`channel`] how it reaches people, and [`Notifier`] puts them together. A service
//! that wants to tell something needs a [`Notifier`], [`Opening`] and a line: see [`Notifier::open_incident`].
//!
//! Decisions are pure functions with the time handed in: [`policy::due`], [`outbox::lane::next`],
//! [`outbox::schedule::after`]. Nothing here prints, exits, or reads arguments or the environment.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod channel;
pub mod incident;
pub mod notice;
mod notifier;
pub mod outbox;
pub mod page;
pub mod policy;
pub mod redact;
pub mod render;
pub mod severity;
pub mod tasks;

pub use notice::{Kind, Notice};
pub use notifier::{
    Delivered, GivenUp, JOURNAL, KnownIncidents, Notifier, NotifyError, Opening, Report, Resolution, Setup,
    Told, Update, Waiting,
};
pub use severity::{Severity, Status};
