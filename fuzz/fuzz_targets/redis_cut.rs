//! Streams of any bytes, cut and with their expiries changed: what comes out is whole commands again.
#![no_main]

use backstay_redis_ops::Offset;
use backstay_redis_ops::resp::{CommandScanner, StreamState};
use backstay_redis_ops::restore::{StreamCutter, TtlChange, TtlPolicy};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, stream)) = data.split_first() else { return };
    let policy = [TtlPolicy::Keep, TtlPolicy::Shift, TtlPolicy::Strip][usize::from(choice % 3)];
    let at = |millis| Timestamp::from_millisecond(millis).expect("it is a moment");
    let change = TtlChange::new(policy, at(1_000_000), at(5_000_000));
    let (start, end) = (Offset(0), Offset(u64::MAX));
    let mut cutter = StreamCutter::new(Vec::new(), start, StreamState::default(), end, change).expect("it writes to memory");
    for piece in stream.chunks(usize::from(choice >> 2) + 1) {
        if cutter.feed(piece, 2_000_000).is_err() {
            return;
        }
    }
    let (mut output, report) = cutter.finish().expect("it writes to memory");
    output.truncate(usize::try_from(report.length).expect("it is in memory"));
    let mut scanner = CommandScanner::new(Offset(0), StreamState::default());
    let mut commands = 0;
    scanner.scan(&output, |_| commands += 1).expect("what comes out is a stream");
    assert_eq!(scanner.boundary(), Offset(output.len() as u64));
    assert_eq!(commands, report.commands);
});
