//! Hears anything as the answer of a service, on every channel.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/notify/tests/support/properties.rs"]
mod properties;

fuzz_target!(|bytes: &[u8]| properties::replies(bytes));
