//! Reads anything as what the outbox and the journal keep, and decides over it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/notify/tests/support/properties.rs"]
mod properties;

fuzz_target!(|bytes: &[u8]| properties::records(bytes));
