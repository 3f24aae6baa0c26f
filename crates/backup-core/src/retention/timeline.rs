//! Ages that a jump of the clock does not change, and the calendar of the bucket rules.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Store times laid out on a line on which silences longer than the limit have no length.
#[derive(Debug)]
pub(super) struct Timeline {
    /// Ascending times, each with its place on the line.
    places: Vec<(Timestamp, SignedDuration)>,
}

impl Timeline {
    /// Lays out the times.
    pub(super) fn new(times: impl IntoIterator<Item = Timestamp>, max_silence: SignedDuration) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        times.dedup();
        let mut place = SignedDuration::ZERO;
        let mut before = times.first().copied();
        let places = times
            .into_iter()
            .map(|time| {
                let gap = before.map_or(SignedDuration::ZERO, |before| time.duration_since(before));
                before = Some(time);
                if gap <= max_silence {
                    place = place.saturating_add(gap);
                }
                (time, place)
            })
            .collect();
        Self { places }
    }

    /// How long before `later` the moment `earlier` was; both must have been laid out.
    pub(super) fn between(&self, earlier: Timestamp, later: Timestamp) -> SignedDuration {
        self.place(later) - self.place(earlier)
    }

    /// How long before the newest time this one was.
    pub(super) fn age(&self, time: Timestamp) -> SignedDuration {
        self.places.last().map_or(SignedDuration::ZERO, |(newest, _)| self.between(time, *newest))
    }

    fn place(&self, time: Timestamp) -> SignedDuration {
        let found = self.places.binary_search_by_key(&time, |(time, _)| *time);
        found.map_or(SignedDuration::ZERO, |index| self.places[index].1)
    }
}

/// A unit of the calendar of which one set is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    /// Number of the unit that the moment lies in, in UTC; neighbouring units have neighbouring numbers.
    pub(super) fn of(self, time: Timestamp) -> i64 {
        const DAY: i64 = 86_400;
        let seconds = time.as_second();
        let date = || time.to_zoned(TimeZone::UTC).date();
        match self {
            Self::Hour => seconds.div_euclid(3600),
            Self::Day => seconds.div_euclid(DAY),
            // The epoch was a Thursday; three days later on the line puts the boundary on Monday.
            Self::Week => (seconds + 3 * DAY).div_euclid(7 * DAY),
            Self::Month => i64::from(date().year()) * 12 + i64::from(date().month()),
            Self::Year => i64::from(date().year()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_long_silence_has_no_length() {
        let times = [at("2026-01-01T00:00Z"), at("2026-01-02T00:00Z"), at("2027-01-02T00:00Z")];
        let line = Timeline::new(times, SignedDuration::from_hours(45 * 24));
        assert_eq!(line.age(times[0]), SignedDuration::from_hours(24));
        assert_eq!(line.age(times[1]), SignedDuration::ZERO);
    }

    #[test]
    fn weeks_begin_on_monday_and_units_at_midnight_utc() {
        let sunday = at("2026-11-22T23:59:59Z");
        let monday = at("2026-11-23T00:00:00Z");
        assert_eq!(Unit::Week.of(sunday) + 1, Unit::Week.of(monday));
        assert_eq!(Unit::Week.of(monday), Unit::Week.of(at("2026-11-29T23:59:59Z")));
        assert_eq!(Unit::Day.of(sunday) + 1, Unit::Day.of(monday));
        assert_eq!(
            Unit::Month.of(at("2026-12-31T23:59:59Z")) + 1,
            Unit::Month.of(at("2027-01-01T00:00:00Z"))
        );
        assert_eq!(Unit::Year.of(at("2026-12-31T23:59:59Z")) + 1, Unit::Year.of(at("2027-01-01T00:00:00Z")));
    }
}
