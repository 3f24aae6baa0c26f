//! Placeholder page, replaced by the first content of this crate.
