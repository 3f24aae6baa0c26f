//! What a reader of an archived Redis stream takes from a store: notes, heads, times, sealed content.
#![no_main]

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::sealed::{NOTE_WITHIN, read_note, unseal};
use backstay_redis_ops::archive::{Level, SegmentHead, SegmentName, Span, TimeIndex};
use backstay_redis_ops::resp::{CommandScanner, StreamState};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let replication_id = "0123456789abcdef0123456789abcdef01234567".parse().expect("40 digits");
    let name = SegmentName { replication_id, span: Span::new(100, 200), level: Level::Fresh };
    if let Ok(head) = SegmentHead::decode(data, &name) {
        assert_eq!(SegmentHead::decode(&head.encode(), &name), Ok(head));
    }
    if let Some(times) = TimeIndex::decode(data, name.span) {
        assert_eq!(TimeIndex::decode(&times.encode(name.span), name.span), Some(times));
    }
    let _ = read_note(&data[..data.len().min(NOTE_WITHIN as usize)]);
    if let Ok(content) = unseal(data, &Identities::none()) {
        let mut scanner = CommandScanner::new(name.span.start, StreamState::default());
        let _ = scanner.scan(&content, |_| ());
    }
});
