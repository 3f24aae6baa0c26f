//! Bars: how much of a peer's figure ours may be, and whether it is.

use std::fmt::Write as _;

/// Whether less or more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Times, sizes.
    Less,
    /// Rates.
    More,
}

/// One bar: the ratio of our figure to the best peer's.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What is compared.
    pub name: String,
    /// The peer, by name.
    pub peer: String,
    /// Ratios, round by round; empty when either side did not run.
    pub ratios: Vec<f64>,
    /// Which way is better.
    pub better: Better,
    /// The ratio that has to be reached.
    pub wanted: f64,
    /// The ratio that is near the limit of the machine.
    pub aim: f64,
}

impl Bar {
    /// The median of the ratios.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (!self.ratios.is_empty()).then(|| median(&self.ratios))
    }

    fn verdict(&self) -> &'static str {
        let reached = |ratio: f64, bar: f64| match self.better {
            Better::Less => ratio <= bar,
            Better::More => ratio >= bar,
        };
        match self.ratio() {
            None => "not measured",
            Some(ratio) if reached(ratio, self.aim) => "met, and the aim",
            Some(ratio) if reached(ratio, self.wanted) => "met",
            Some(_) => "**missed**",
        }
    }
}

/// All bars as Markdown.
#[must_use]
pub fn verdicts(bars: &[Bar]) -> String {
    let mut text =
        "| bar | best peer | ratio (rounds) | wanted | aim | |\n|---|---|---|---|---|---|".to_owned();
    for bar in bars {
        let sign = if bar.better == Better::Less { "≤" } else { "≥" };
        let ratio = bar.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.3}"));
        let rounds = bar.ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" ");
        let _ = write!(
            text,
            "\n| {} | {} | {ratio} ({rounds}) | {sign} {} | {sign} {} | {} |",
            bar.name,
            bar.peer,
            bar.wanted,
            bar.aim,
            bar.verdict()
        );
    }
    text
}

/// The middle of some values; not a number for none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_decides_and_rates_want_more() {
        let mut bar = Bar {
            name: "push".to_owned(),
            peer: "other".to_owned(),
            ratios: vec![1.3, 0.5, 1.2],
            better: Better::More,
            wanted: 1.2,
            aim: 1.4,
        };
        assert_eq!(bar.verdict(), "met");
        bar.better = Better::Less;
        assert_eq!(bar.verdict(), "met, and the aim");
        bar.wanted = 1.1;
        bar.aim = 1.0;
        assert_eq!(bar.verdict(), "**missed**");
        bar.ratios.clear();
        assert_eq!(bar.verdict(), "not measured");
    }
}
