//! Numbers the way people read them.

use std::fmt;
use std::time::Duration;

/// A number of bytes: `512 B`, `1.4 GiB`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut power = 0;
        // 1023.95 would be printed as 1024.0.
        while power + 1 < UNITS.len() && tenths(self.0, power) >= 10_240 {
            power += 1;
        }
        let tenths = tenths(self.0, power);
        f.pad(&format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power]))
    }
}

/// Tenths of the unit 1024^(power + 1), rounded.
fn tenths(bytes: u64, power: usize) -> u128 {
    let unit = 1_u128 << (10 * (power + 1));
    (u128::from(bytes) * 10 + unit / 2) / unit
}

/// What to do about a problem, on a line below it.
#[derive(Clone, Copy, Debug)]
pub struct Remedy<'a>(pub Option<&'a str>);

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |remedy| write!(f, "\n  → {remedy}"))
    }
}

/// A measured time: `0.35 s`, `12.3 s`, `2m 03s`, `1h 05m`, `3d 4h`.
#[derive(Clone, Copy, Debug)]
pub struct Elapsed(pub Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match seconds {
            0..10 => format!("{:.2} s", self.0.as_secs_f64()),
            10..60 => format!("{:.1} s", self.0.as_secs_f64()),
            60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
            3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
            _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
        };
        f.pad(&text)
    }
}

/// How long ago something was: `12 s ago`, `5 min ago`, `3 h ago`, `2 days ago`; `in the future` when a clock is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Ago(pub jiff::SignedDuration);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match seconds {
            ..0 => "in the future".to_owned(),
            0..60 => format!("{seconds} s ago"),
            60..3_600 => format!("{} min ago", seconds / 60),
            3_600..172_800 => format!("{} h ago", seconds / 3_600),
            _ => format!("{} days ago", seconds / 86_400),
        };
        f.pad(&text)
    }
}

/// A table of texts with columns as wide as their content; the last column is never padded.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// A table with this head.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self(vec![head.iter().map(|text| (*text).to_owned()).collect()])
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.0
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for (number, row) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            let line: String =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_digit_after_the_point() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_500_000_000, "1.4 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn times_are_as_exact_as_they_are_short() {
        let cases = [
            (0.346, "0.35 s"),
            (12.34, "12.3 s"),
            (123.0, "2m 03s"),
            (3900.0, "1h 05m"),
            (273_600.0, "3d 4h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(Elapsed(Duration::from_secs_f64(seconds)).to_string(), text);
        }
        let ago = |seconds| Ago(jiff::SignedDuration::from_secs(seconds)).to_string();
        assert_eq!(
            [ago(-1), ago(30), ago(7200), ago(259_200)],
            ["in the future", "30 s ago", "2 h ago", "3 days ago"]
        );
    }

    #[test]
    fn tables_align_and_have_no_trailing_blanks() {
        let mut table = Table::new(&["SET", "SIZE"]);
        table.row(["a".to_owned(), "1 B".to_owned()]);
        table.row(["größer".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "SET     SIZE\na       1 B\ngrößer");
    }
}
