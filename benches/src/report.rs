use std::fmt::Write;
use std::time::Duration;

use crate::bars::median;
use crate::measure::{Measured, Variant};

/// Medians of all variants as Markdown; ratios of wall times are taken round by round against each of `against`.
#[must_use]
pub fn table(variants: &[Variant], results: &[Vec<Measured>], against: &[usize]) -> String {
    let mut text = "| variant | wall s (min–max) | CPU s client+server | peak MiB of a process / of all | MB written | others' CPU |".to_owned();
    for &other in against {
        let _ = write!(text, " × {} |", variants[other].name);
    }
    text.push_str("\n|---|---|---|---|---|---|");
    text.push_str(&"---|".repeat(against.len()));
    for (variant, runs) in variants.iter().zip(results) {
        let walls = seconds(runs, |run| run.wall);
        let _ = write!(
            text,
            "\n| {} | {:.2} ({:.2}–{:.2}) | {:.1}+{:.1} | {:.0} / {:.0} | {:.1} | {:.2} |",
            variant.name,
            median(&walls),
            walls.iter().copied().fold(f64::INFINITY, f64::min),
            walls.iter().copied().fold(0.0, f64::max),
            median(&seconds(runs, |run| run.client_cpu)),
            median(&seconds(runs, |run| run.server_cpu)),
            mebibytes(runs.iter().map(|run| run.peak).max().unwrap_or(0)),
            mebibytes(runs.iter().map(|run| run.together).max().unwrap_or(0)),
            median(&runs.iter().map(|run| megabytes(run.size)).collect::<Vec<_>>()),
            median(&runs.iter().map(|run| run.others).collect::<Vec<_>>()),
        );
        for &other in against {
            let ratios: Vec<f64> = runs
                .iter()
                .zip(&results[other])
                .map(|(ours, theirs)| ours.wall.as_secs_f64() / theirs.wall.as_secs_f64())
                .collect();
            let _ = write!(text, " {:.3} |", median(&ratios));
        }
    }
    text
}

fn seconds(runs: &[Measured], of: impl Fn(&Measured) -> Duration) -> Vec<f64> {
    runs.iter().map(|run| of(run).as_secs_f64()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "sizes in a table need three digits")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "sizes in a table need four digits")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
