//! From facts to words, and from words to what a channel can carry.
//!
//! ```text
//! Notice ─▶ template ─▶ Letter (one line, plain text) ─▶ channel: escape, cut to its limits ─▶ bytes
//! ```
//!
//! Templates know nothing of markup: what they make is plain text, and each channel escapes it for its own world, so
//! neither a title nor a template can mention a room, open a tag or forge a header. Limits are kept by
//! cutting ([`fit`]), never by a message that a service refuses.

mod fit;
mod letter;
mod templates;

pub use fit::{Unit, clean_line, clean_text, fit, fits, length};
pub use letter::{Letter, stamp};
pub use templates::{Lint, TemplateError, Templates};
