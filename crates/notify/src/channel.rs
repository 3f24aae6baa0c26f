//! The seam to whatever brings a message to people.
//!
//! A channel does two things. [`Channel::draft`] makes the exact bytes that would go out: pure, so that limits, escaping
//! and secrets are tested without a service. [`Channel::deliver`] sends them once and says precisely what is known
//! afterwards ([`Outcome`]); it never repeats anything, because repeating is the outbox's business alone.
//!
//! | what a service does | outcome |
//! |---|---|
//! | takes the message | accepted |
//! | 429, or says "slow down" in whatever way | limited, with its time |
//! | no connection, no TLS, no login for now, 5xx | later |
//! | no answer once the request was out, 502, 504 | unknown |
//! | a redirect, any other 4xx, "no such channel" | refused |
//!
//! The conformance suite in `tests/channels.rs` runs every channel against peers that do all of this.

pub mod command;
#[cfg(feature = "email")]
pub mod email;
pub mod github;
pub mod http;
pub mod jira;
pub mod pagerduty;
mod registry;

pub mod slack;
#[cfg(feature = "sns")]
pub mod sns;
pub mod statuspage;
pub mod teams;
mod tracker;
pub mod webhook;

use std::fmt;

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use jiff::Timestamp;

pub use registry::{ChannelError, Registry, Unavailable};

use crate::notice::Notice;
use crate::outbox::Outcome;
use crate::render::Letter;

/// Something that brings messages to people.
#[async_trait]
pub trait Channel: fmt::Debug + Send + Sync + 'static {
    /// What it is.
    fn kind(&self) -> ChannelKind;

    /// Whether the same message, sent again, is recognised: by an id that travels with it, or by looking first.
    fn is_idempotent(&self) -> bool;

    /// Messages that the service takes in a minute.
    fn per_minute(&self) -> u32;

    /// Whether this notice means anything to this channel; what does not is not sent.
    fn takes(&self, notice: &Notice) -> bool {
        let _ = notice;
        true
    }

    /// Whether the service can be reached at all. Asked before an attempt is noted, so that days without network leave no
    /// attempt behind of which nobody knows whether it arrived.
    ///
    /// # Errors
    /// Why not.
    async fn reach(&self) -> Result<(), String> {
        Ok(())
    }

    /// The bytes that would go out for a message, one element for each request. Pure.
    fn draft(&self, message: &Message<'_>) -> Vec<Draft>;

    /// Sends it, once.
    ///
    /// # Cancel safety
    /// A dropped call leaves it unknown whether the message arrived.
    async fn deliver(&self, message: &Message<'_>) -> Outcome;
}

/// What is sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The notice.
    pub notice: &'a Notice,
    /// The words of the notice, for this channel.
    pub letter: &'a Letter,
    /// What the channel calls the thread, where it was told before.
    pub reference: Option<&'a str>,
    /// The time.
    pub now: Timestamp,
}

impl<'a> Message<'a> {
    /// A message of a thread that the channel does not know.
    #[must_use]
    pub fn new(notice: &'a Notice, letter: &'a Letter, now: Timestamp) -> Self {
        Self { notice, letter, reference: None, now }
    }

    /// Adds what the channel calls the thread.
    #[must_use]
    pub fn reference(mut self, reference: Option<&'a str>) -> Self {
        self.reference = reference;
        self
    }
}

/// Bytes that would go out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Draft {
    /// What it is: a method and path, `MAIL`, or a program.
    pub what: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Draft {
    /// Such bytes.
    #[must_use]
    pub fn new(what: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { what: what.into(), body: body.into() }
    }
}
