//! The one place that writes to stdout and stderr. A reader that has gone away is no error.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write, stderr, stdout};

use backstay_backup_core::Class;
use serde::Serialize;

use crate::failure::Failure;

/// Prints a report: its text, or its JSON as one object on one line.
pub(crate) fn report<R: Serialize + Display>(report: &R, json: bool) -> Result<(), Failure> {
    let text = if json {
        serde_json::to_string(report).map_err(|error| Failure::new(Class::Internal, error))?
    } else {
        report.to_string()
    };
    if text.is_empty() {
        return Ok(());
    }
    line(&mut stdout().lock(), &text).map_err(|source| {
        Failure::new(Class::Temporary, format!("cannot write to standard output: {source}"))
    })
}

/// Prints a failure to stderr, and with `--json` the same as an object to stdout.
pub(crate) fn failure(failure: &Failure, json: bool) {
    // There is nobody left to tell that nobody is listening.
    let _ = line(&mut stderr().lock(), &failure.to_string());
    if json {
        let report = serde_json::json!({ "error": failure.report() });
        let _ = line(&mut stdout().lock(), &report.to_string());
    }
}

/// Writes one line, or several that belong together.
pub(crate) fn line(to: &mut impl Write, text: &str) -> io::Result<()> {
    let written = to.write_all(text.as_bytes()).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        line(&mut writer, "hello").unwrap();
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(line(&mut full, "hello").unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
