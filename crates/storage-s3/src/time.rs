//! Between the SDK's times and ours.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use jiff::Timestamp;

pub(crate) fn from_sdk(time: &DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

/// Whole seconds, rounded up: S3 keeps no fractions and a lock must not end early.
pub(crate) fn to_sdk(time: Timestamp) -> DateTime {
    let up = i64::from(time.subsec_nanosecond() > 0);
    DateTime::from_secs(time.as_second().saturating_add(up))
}

/// The time of a `Date` header.
pub(crate) fn from_http_date(text: &str) -> Option<Timestamp> {
    from_sdk(&DateTime::from_str(text, Format::HttpDate).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_never_ends_before_it_should() {
        let asked: Timestamp = "2027-03-04T05:06:07.25Z".parse().unwrap();
        let sent = from_sdk(&to_sdk(asked)).unwrap();
        assert_eq!(sent, "2027-03-04T05:06:08Z".parse().unwrap());
    }

    #[test]
    fn http_dates_are_read() {
        let time = from_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(time, "1994-11-06T08:49:37Z".parse().unwrap());
        assert_eq!(from_http_date("yesterday"), None);
    }
}
