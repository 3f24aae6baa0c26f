//! Reads anything as an archive of files: no path leads out, and a cut archive is never taken for a whole one.
#![no_main]

use backstay_file_ops::unpack::{UnpackOptions, list};
use libfuzzer_sys::fuzz_target;
use tokio_util::sync::CancellationToken;

fuzz_target!(|bytes: &[u8]| {
    let (options, cancel) = (UnpackOptions::default(), CancellationToken::new());
    let mut paths = Vec::new();
    let whole = list(bytes, &options, &cancel, |entry| paths.push(entry.path.clone()));
    for path in &paths {
        let names = path.as_bytes().split(|byte| *byte == b'/');
        assert!(names.into_iter().all(|name| !matches!(name, b"" | b"." | b"..")));
    }
    if whole.is_ok() {
        assert!(list(&bytes[..bytes.len() - 1], &options, &cancel, |_| ()).is_err());
    }
});
