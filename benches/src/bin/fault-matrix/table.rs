//! The matrix as Markdown.

use std::fmt::Write as _;

use crate::cell::Verdict;
use crate::fault::{Fault, Target};

/// One cell in words.
pub(crate) fn sentence(verdict: &Verdict, words: bool) -> String {
    match verdict {
        Verdict::Correct => "correct".to_owned(),
        Verdict::Loud { how, words: said } if words => format!("{how}:\n{said}"),
        Verdict::Loud { how, .. } => (*how).to_owned(),
        Verdict::Silent { rows, logged: true } => format!("SILENT LOSS, {rows}; the server's log has a line"),
        Verdict::Silent { rows, logged: false } => format!("SILENT LOSS, {rows}; not a word of the tool"),
    }
}

/// All tools side by side.
pub(crate) fn markdown(faults: &[Fault], columns: &[(String, Vec<Vec<Verdict>>)]) -> String {
    let mut text = "| fault |".to_owned();
    for (tool, _) in columns {
        for target in Target::ALL {
            let _ = write!(text, " {tool}: {} |", target.name());
        }
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(columns.len() * Target::ALL.len()));
    for (row, fault) in faults.iter().enumerate() {
        let _ = write!(text, "\n| {} |", fault.name);
        for verdict in columns.iter().flat_map(|(_, rows)| &rows[row]) {
            let _ = write!(text, " {} |", symbol(verdict));
        }
    }
    text.push_str(
        "\n\n| tool | correct | loud failure | **silent loss** | of these without a word of the tool |",
    );
    text.push_str("\n|---|---|---|---|---|");
    for (tool, rows) in columns {
        let cells: Vec<&Verdict> = rows.iter().flatten().collect();
        let count = |of: fn(&Verdict) -> bool| cells.iter().filter(|verdict| of(verdict)).count();
        let _ = write!(
            text,
            "\n| {tool} | {} | {} | {} | {} |",
            count(|verdict| matches!(verdict, Verdict::Correct)),
            count(|verdict| matches!(verdict, Verdict::Loud { .. })),
            count(|verdict| matches!(verdict, Verdict::Silent { .. })),
            count(|verdict| matches!(verdict, Verdict::Silent { logged: false, .. })),
        );
    }
    text
}

fn symbol(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Correct => "ok".to_owned(),
        Verdict::Loud { .. } => "loud".to_owned(),
        Verdict::Silent { rows, .. } => format!("**LOST**: {rows} rows"),
    }
}
