//! Tells anything to everybody: through filters, templates and every channel's rendering.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/notify/tests/support/properties.rs"]
mod properties;

fuzz_target!(|bytes: &[u8]| properties::words(&String::from_utf8_lossy(bytes)));
