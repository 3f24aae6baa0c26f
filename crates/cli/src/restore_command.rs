//! The `restore_command` of a restored cluster: `restore-wal` with the configuration of this run.

use std::collections::BTreeMap;
use std::path::Path;

use backstay_postgres_ops::cluster_restore::command_word;

use crate::context::Context;
use crate::failure::Failure;

const PROGRAM: &str = "restore-wal";
/// What it becomes where there is work to do.
const WHOLE: &str = "backstay-wal";
/// Variables that say where repositories are and who may read them.
const PASSED_ON: [&str; 2] = ["AWS_", "BACKSTAY_"];
/// Variables of ours that are about this run alone.
const NOT_PASSED_ON: [&str; 4] =
    ["BACKSTAY_JSON", "BACKSTAY_NO_PROGRESS", "BACKSTAY_LOG_LEVEL", "BACKSTAY_LOG_FORMAT"];

impl Context {
    /// The command by which a restored server gets its WAL. It runs in its data directory, so nothing in it is relative.
    ///
    /// # Errors
    /// `restore-wal`, or what belongs to it, is not beside this program.
    pub fn restore_command(&self, standby: bool, identity_file: Option<&str>) -> Result<String, Failure> {
        let beside = |name: &str| {
            let program = std::env::current_exe().ok().map(|own| own.with_file_name(name));
            program.filter(|program| program.is_file()).ok_or_else(|| {
                Failure::usage(format!("{name} is not beside this program"))
                    .with_hint("install it there, or say how the server gets its WAL with --restore-command")
            })
        };
        let program = beside(PROGRAM).and_then(|program| beside(WHOLE).map(|_| program))?;
        let mut words = vec![command_word(&program.display().to_string()), "%f".to_owned(), "%p".to_owned()];
        if standby {
            words.push("--standby".to_owned());
        }
        words.extend(self.same_configuration()?.iter().map(|word| command_word(word)));
        if let Some(file) = identity_file {
            let file = std::path::absolute(Path::new(file))
                .map_err(|error| Failure::usage(format!("cannot find {file}: {error}")))?;
            words.extend(["--identity-file".to_owned(), command_word(&file.display().to_string())]);
        }
        Ok(words.join(" "))
    }

    /// What of the environment a server must have for that command.
    #[must_use]
    pub fn restore_environment(&self) -> BTreeMap<String, String> {
        let is_passed_on = |name: &str| {
            PASSED_ON.iter().any(|prefix| name.starts_with(prefix)) && !NOT_PASSED_ON.contains(&name)
        };
        let environment = self.environment().iter().filter(|(name, _)| is_passed_on(name));
        environment.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}
