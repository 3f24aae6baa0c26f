//! Reads anything as a template, and uses it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/notify/tests/support/properties.rs"]
mod properties;

fuzz_target!(|bytes: &[u8]| properties::template(&String::from_utf8_lossy(bytes)));
