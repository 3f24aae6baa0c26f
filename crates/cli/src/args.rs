//! The flags that every program has.

use std::path::PathBuf;

use backstay_backup_core::config::{Flags, Setting};
use clap::{Args, Parser, ValueEnum};

/// The arguments of one program; [`crate::run`] adds [`CommonArgs`].
pub trait Arguments: Parser {
    /// The keys of the configuration that flags of this program set.
    fn settings(&self) -> Vec<Setting> {
        Vec::new()
    }

    /// What of the protected system a run is about, where several tasks of one program look after one stanza. It is part of
    /// what the task is called in notifications, so that the success of one does not end what is told of another.
    fn about(&self) -> Option<String> {
        None
    }
}

/// Flags of every program.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common options")]
pub struct CommonArgs {
    /// Configuration file [default: /etc/backstay/backstay.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "BACKSTAY_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
    /// The protected system [default: main]
    #[arg(long, value_name = "NAME")]
    pub stanza: Option<String>,
    /// Directory, s3://bucket/prefix?region=…, or configured name; repeatable
    #[arg(long, value_name = "PLACE")]
    pub repository: Vec<String>,
    /// Sets any key of the configuration, as in compression.level=9; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub option: Vec<Setting>,
    /// Prints exactly one JSON object
    #[arg(long, env = "BACKSTAY_JSON", hide_env = true)]
    pub json: bool,
    /// Shows no progress bar
    #[arg(long, env = "BACKSTAY_NO_PROGRESS", hide_env = true)]
    pub no_progress: bool,
    /// Logs from error, warn, info, debug or trace on [default: warn]
    #[arg(long, value_name = "LEVEL", env = "BACKSTAY_LOG_LEVEL", hide_env = true)]
    pub log_level: Option<String>,
    /// Form of the logs on stderr: text or json [default: text]
    #[arg(
        long,
        value_name = "FORM",
        env = "BACKSTAY_LOG_FORMAT",
        hide_env = true,
        hide_possible_values = true
    )]
    pub log_format: Option<LogFormat>,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

fn setting(text: &str) -> Result<Setting, String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok(Setting::new(key.trim(), value, "--option"))
}

/// Everything the command line says about the configuration. A flag of its own wins over `--option`.
pub(crate) fn flags<A: Arguments>(arguments: &A, common: &CommonArgs) -> Flags {
    let mut flags = Flags::default();
    flags.repositories.clone_from(&common.repository);
    flags.settings.clone_from(&common.option);
    flags.settings.extend(common.stanza.iter().map(|stanza| Setting::new("stanza", stanza, "--stanza")));
    flags.settings.extend(arguments.settings());
    flags
}

/// The flag of the programs that open encrypted sets.
#[derive(Clone, Debug, Default, Args)]
pub struct IdentityArgs {
    /// File with the private key of an encrypted set
    #[arg(long, value_name = "FILE")]
    pub identity_file: Option<String>,
}

impl IdentityArgs {
    /// The key of the configuration that it sets.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        // A TOML literal string cannot hold a quote; a basic string can, escaped.
        let escaped = |file: &String| file.replace('\\', "\\\\").replace('"', "\\\"");
        let value = |file| format!("{{ file = \"{}\" }}", escaped(file));
        let file = self.identity_file.iter();
        file.map(|file| Setting::new("encryption.identity", value(file), "--identity-file")).collect()
    }
}
