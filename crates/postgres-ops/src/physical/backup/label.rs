use crate::wal::Timeline;

/// `backup_label`, byte for byte, and what of it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackupLabel {
    pub(super) text: String,
    /// Timeline that the backup began on.
    pub(super) timeline: Timeline,
}

impl BackupLabel {
    /// Takes what the server answered; what cannot be understood is given back.
    pub(super) fn parse(text: String) -> Result<Self, String> {
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let timeline = line("START TIMELINE: ").and_then(|number| Timeline::new(number.trim().parse().ok()?));
        let begins = line("START WAL LOCATION: ").is_some();
        match timeline.filter(|_| begins) {
            Some(timeline) => Ok(Self { text, timeline }),
            None => Err(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_keeps_its_bytes() {
        let text = "START WAL LOCATION: 0/2000028 (file 000000020000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
                    BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-23 14:31:05 UTC\nLABEL: x\n\
                    START TIMELINE: 2\n";
        let label = BackupLabel::parse(text.to_owned()).unwrap();
        assert_eq!((label.text.as_str(), label.timeline.number()), (text, 2));
        for wrong in ["", "START TIMELINE: 2\n", "START WAL LOCATION: 0/0\nSTART TIMELINE: 0\n"] {
            assert_eq!(BackupLabel::parse(wrong.to_owned()), Err(wrong.to_owned()));
        }
    }
}
