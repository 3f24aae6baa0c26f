//! Progress on a terminal.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use backstay_backup_core::progress::{Progress, ProgressSnapshot};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

/// Time between two drawings.
const REFRESH: Duration = Duration::from_millis(200);

/// Draws the progress of an operation until it is dropped.
pub(crate) struct Bars(Option<(JoinHandle<()>, ProgressBar)>);

impl Bars {
    /// Draws on a terminal, and nowhere else.
    pub(crate) fn start(progress: &Progress, target: &MultiProgress, wanted: bool) -> Self {
        if !wanted || !stderr().is_terminal() {
            return Self(None);
        }
        let bar = target.add(ProgressBar::new_spinner());
        let task = tokio::spawn(draw(progress.clone(), bar.clone()));
        Self(Some((task, bar)))
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some((task, bar)) = &self.0 {
            task.abort();
            bar.finish_and_clear();
        }
    }
}

async fn draw(progress: Progress, bar: ProgressBar) {
    let mut phase = String::new();
    let mut tick = tokio::time::interval(REFRESH);
    loop {
        tick.tick().await;
        let now = progress.snapshot();
        if now.phase != phase {
            bar.reset();
            phase.clone_from(&now.phase);
        }
        bar.set_style(style(&now));
        bar.set_length(now.bytes_total.or(now.items_total).unwrap_or(0));
        bar.set_position(if now.bytes_done > 0 { now.bytes_done } else { now.items_done });
        bar.set_message(message(&now));
        bar.tick();
    }
}

fn style(now: &ProgressSnapshot) -> ProgressStyle {
    let template = match now {
        ProgressSnapshot { phase, .. } if phase.is_empty() => "",
        ProgressSnapshot { bytes_total: Some(_), .. } => {
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
        }
        ProgressSnapshot { bytes_done: 1.., .. } => {
            "{spinner} {msg} {binary_bytes} {binary_bytes_per_sec} {elapsed}"
        }
        ProgressSnapshot { items_total: Some(_), .. } => "{msg} {wide_bar} {pos}/{len} {eta}",
        _ => "{spinner} {msg} {elapsed}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn message(now: &ProgressSnapshot) -> String {
    match (now.items_done, now.items_total) {
        (done, Some(total)) if now.bytes_done > 0 => format!("{} ({done}/{total})", now.phase),
        _ => now.phase.clone(),
    }
}
