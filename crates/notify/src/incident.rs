//! Incidents: what happened, in events that are only ever added.
//!
//! An incident *is* its events ([`Event`]): opened, updated, acknowledged, resolved, and the timers that went off. They
//! are create-only objects in a store, a local directory or the backup repository ([`Journal`]), so that two hosts that
//! look at the same store see the same incident, whoever wrote which event, and nobody can overwrite anybody.
//! [`Incident::fold`] makes the state out of them; it is pure and takes the events in any order.

mod event;
mod fold;
mod id;
mod journal;

pub use event::{Change, Event, Objective, Receipt};
pub use fold::{Acknowledgement, Entry, Incident};
pub use id::{IncidentId, InvalidIncidentId};
pub use journal::{Journal, JournalError, Known};
