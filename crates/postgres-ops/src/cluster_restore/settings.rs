//! Settings of a restored cluster. Pure.
//!
//! They stand in a block at the end of `postgresql.auto.conf`, which counts more than every other file. What the source
//! had there about recovery and archiving is made a comment, and each target that is not meant is set to nothing,
//! because two targets, one of them in `postgresql.conf`, would stop the start. Archiving is off unless it was
//! re-pointed: the settings of the source would write into the source's archive.

use serde::Serialize;

use crate::recovery::StopPoint;
use crate::wal::Timeline;

/// What begins and ends the block.
const BEGIN: &str = "# begin of what Backstay set for the recovery";
const END: &str = "# end of what Backstay set for the recovery";
/// What stands before a line that counts no longer.
const OFF: &str = "# the source's own, off: ";

/// What must not come from the source.
const NEUTRALISED: [&str; 21] = [
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "recovery_target_action",
    "recovery_min_apply_delay",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "archive_mode",
    "archive_command",
    "archive_library",
    "synchronous_standby_names",
    "hot_standby",
    "data_directory",
];

/// The settings of which one says where to stop.
const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
];

/// What the server does once it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TargetAction {
    /// Becomes a primary on a new timeline.
    #[default]
    Promote,
    /// Waits, open for reading, until somebody calls `pg_wal_replay_resume()`.
    Pause,
}

/// How a restored cluster recovers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoverySettings {
    /// Shell command with `%f` and `%p`.
    pub restore_command: String,
    /// Where it stops; a standby may follow without an end.
    pub stop: Option<StopPoint>,
    /// The timeline to follow; `None` follows the newest, for standbys.
    pub timeline: Option<Timeline>,
    /// What happens at the target.
    pub action: TargetAction,
    /// Makes a standby instead of a primary.
    pub standby: bool,
    /// Connection of a standby to its primary, if it streams.
    pub primary: Option<String>,
    /// Where the restored cluster archives to; nowhere by default.
    pub archive_command: Option<String>,
}

impl RecoverySettings {
    /// Recovery by this command to this place, then promotion. Archiving is off.
    #[must_use]
    pub fn new(restore_command: &str, stop: StopPoint, timeline: Timeline) -> Self {
        Self {
            restore_command: restore_command.to_owned(),
            stop: Some(stop),
            timeline: Some(timeline),
            action: TargetAction::Promote,
            standby: false,
            primary: None,
            archive_command: None,
        }
    }

    /// A standby that follows the archive, and a primary where one is given, without an end.
    #[must_use]
    pub fn standby(restore_command: &str) -> Self {
        Self {
            restore_command: restore_command.to_owned(),
            stop: None,
            timeline: None,
            action: TargetAction::Promote,
            standby: true,
            primary: None,
            archive_command: None,
        }
    }

    /// The file whose presence makes the server recover.
    pub(super) fn signal(&self) -> &'static str {
        if self.standby { "standby.signal" } else { "recovery.signal" }
    }

    /// The settings, in the order in which they are written.
    fn lines(&self, major: u32) -> Vec<(&'static str, String)> {
        let timeline = self.timeline.map_or_else(|| "latest".to_owned(), |it| it.number().to_string());
        let action = match self.action {
            TargetAction::Promote => "promote",
            TargetAction::Pause => "pause",
        };
        let on = |yes| if yes { "on" } else { "off" }.to_owned();
        let mut lines: Vec<_> = TARGETS.iter().map(|name| (*name, self.target(name))).collect();
        // The server takes one after another, and refuses even an empty one behind the one that counts.
        lines.sort_by_key(|(_, value)| !value.is_empty());
        lines.extend([
            ("restore_command", self.restore_command.clone()),
            ("archive_cleanup_command", String::new()),
            ("recovery_end_command", String::new()),
            (
                "recovery_target_inclusive",
                on(!matches!(self.stop, Some(StopPoint::Record { inclusive: false, .. }))),
            ),
            ("recovery_target_timeline", timeline),
            ("recovery_target_action", action.to_owned()),
            ("recovery_min_apply_delay", "0".to_owned()),
            ("primary_conninfo", self.primary.clone().unwrap_or_default()),
            ("primary_slot_name", String::new()),
            ("hot_standby", on(true)),
            ("synchronous_standby_names", String::new()),
            ("archive_mode", on(self.archive_command.is_some())),
            ("archive_command", self.archive_command.clone().unwrap_or_default()),
        ]);
        lines.extend((major >= 15).then(|| ("archive_library", String::new())));
        lines.extend((major <= 15).then(|| ("promote_trigger_file", String::new())));
        lines
    }

    /// The value of one of the settings that say where to stop; empty for all but one.
    fn target(&self, setting: &str) -> String {
        match (setting, &self.stop) {
            ("recovery_target", Some(StopPoint::Immediate)) => "immediate".to_owned(),
            ("recovery_target_lsn", Some(StopPoint::Record { lsn, .. })) => lsn.to_string(),
            _ => String::new(),
        }
    }
}

/// `postgresql.auto.conf` of the source with the settings of this recovery in it, and further ones.
pub(super) fn auto_conf(
    source: &str,
    recovery: &RecoverySettings,
    further: &[(&'static str, String)],
    major: u32,
) -> String {
    let mut text = String::new();
    let mut ours = false;
    for line in source.lines() {
        // A block of an earlier restore, which was backed up since.
        if line == BEGIN || line == END {
            ours = line == BEGIN;
        } else if !ours {
            let name = setting_name(line);
            let off =
                name.is_some_and(|name| NEUTRALISED.iter().any(|known| name.eq_ignore_ascii_case(known)));
            text.push_str(if off { OFF } else { "" });
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str(BEGIN);
    text.push('\n');
    let further = further.iter().map(|(name, value)| (*name, value.clone()));
    for (name, value) in recovery.lines(major).into_iter().chain(further) {
        text.push_str(&format!("{name} = {}\n", quoted(&value)));
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// The name of the setting that a line of a configuration file makes; `None` for comments and includes.
fn setting_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let length =
        line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(line.len());
    (length > 0).then(|| &line[..length])
}

/// The value of the last line that sets this, without its quotes.
pub(super) fn find_setting(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().rev();
    let line =
        lines.into_iter().find(|line| setting_name(line).is_some_and(|it| it.eq_ignore_ascii_case(name)))?;
    let value = line.trim_start()[name.len()..].trim_start();
    let value = value.strip_prefix('=').unwrap_or(value).trim_start();
    Some(match value.strip_prefix('\'') {
        None => value.split([' ', '\t', '#']).next().unwrap_or_default().to_owned(),
        Some(rest) => {
            let end = rest.find('\'').unwrap_or(rest.len());
            rest[..end].to_owned()
        }
    })
}

/// The text with every line that sets this made a comment.
pub(super) fn without_setting(text: &str, name: &str) -> String {
    let comment = |line: &str| {
        let off = setting_name(line).is_some_and(|it| it.eq_ignore_ascii_case(name));
        if off { format!("{OFF}{line}\n") } else { format!("{line}\n") }
    };
    text.lines().map(comment).collect()
}

/// A value as the server reads it.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n"))
}

/// A word for the shell in a `restore_command` or `archive_command`: quoted, percent signs doubled.
#[must_use]
pub fn command_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@".contains(c);
    let word = word.replace('%', "%%");
    if !word.is_empty() && word.replace("%%", "").chars().all(plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::Lsn;

    fn recovery() -> RecoverySettings {
        RecoverySettings::new(
            "restore-wal %f %p",
            StopPoint::Record { lsn: Lsn::new(0x300_0148), inclusive: true },
            Timeline::new(2).unwrap(),
        )
    }

    #[test]
    fn settings_of_the_source_that_would_stop_or_mislead_are_off() {
        let source =
            "# Do not edit\nwork_mem = '4MB'\nRECOVERY_TARGET_TIME = 'x'\narchive_command='cp %p /a'\n";
        let text = auto_conf(source, &recovery(), &[], 15);
        let counts = |name: &str| find_setting(&text, name);
        assert_eq!(counts("work_mem").as_deref(), Some("4MB"));
        assert_eq!(counts("recovery_target_time").as_deref(), Some(""));
        assert_eq!(counts("recovery_target_lsn").as_deref(), Some("0/3000148"));
        assert_eq!(counts("archive_mode").as_deref(), Some("off"));
        assert_eq!(counts("archive_command").as_deref(), Some(""));
        assert!(text.contains("\n# the source's own, off: RECOVERY_TARGET_TIME = 'x'\n"), "{text}");
    }

    #[test]
    fn a_second_restore_replaces_the_block_of_the_first() {
        let once = auto_conf("a = '1'\n", &recovery(), &[], 15);
        assert_eq!(auto_conf(&once, &recovery(), &[], 15), once);
        assert_eq!(once.matches("restore_command").count(), 1);
    }

    #[test]
    fn each_version_gets_only_settings_that_it_knows() {
        let has = |major, name: &str| auto_conf("", &recovery(), &[], major).contains(name);
        assert!(!has(14, "archive_library") && has(15, "archive_library") && has(18, "archive_library"));
        assert!(has(14, "promote_trigger_file") && has(15, "promote_trigger_file"));
        assert!(!has(16, "promote_trigger_file"));
    }

    #[test]
    fn the_target_that_counts_is_the_last_one() {
        for stop in [StopPoint::Immediate, recovery().stop.unwrap()] {
            let lines = RecoverySettings { stop: Some(stop), ..recovery() }.lines(17);
            let targets: Vec<_> = lines.iter().filter(|(name, _)| TARGETS.contains(name)).collect();
            let (last, before) = targets.split_last().unwrap();
            assert!(!last.1.is_empty() && before.iter().all(|(_, value)| value.is_empty()), "{targets:?}");
        }
    }

    #[test]
    fn values_and_words_arrive_as_they_are_meant() {
        assert_eq!(quoted("it's \\ \n"), "'it''s \\\\ \\n'");
        assert_eq!(command_word("/usr/bin/restore-wal"), "/usr/bin/restore-wal");
        assert_eq!(command_word("/a b/100%/it's"), "'/a b/100%%/it'\\''s'");
        assert_eq!(command_word("100%"), "100%%");
        assert_eq!(command_word(""), "''");
    }

    #[test]
    fn the_last_setting_counts() {
        let text = "ssl = on\n#ssl = off\n  hba_file '/etc/x' # remark\nssl=off # remark\n";
        assert_eq!(find_setting(text, "ssl").as_deref(), Some("off"));
        assert_eq!(find_setting(text, "hba_file").as_deref(), Some("/etc/x"));
        assert_eq!(find_setting(text, "ssl_cert_file"), None);
        assert!(without_setting(text, "ssl").contains("off: ssl = on\n#ssl = off"));
    }
}
