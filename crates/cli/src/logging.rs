//! Logs on stderr, above the progress bar where there is one.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::{CommonArgs, LogFormat};
use crate::failure::Failure;

/// What is logged unless the operator says otherwise. The AWS library warns of every place where it found no
/// credentials before it finds them; when it finds none, that is our error.
const USUAL: &str = "warn,aws_config=error";

/// Starts the logs of this process.
pub(crate) fn start(args: &CommonArgs, bars: &MultiProgress) -> Result<(), Failure> {
    let level = args.log_level.as_deref().filter(|level| !level.is_empty()).unwrap_or(USUAL);
    let wrong =
        || Failure::usage(format!("{level:?} is no log level: write error, warn, info, debug or trace"));
    // A plain word that is no level would be taken for the name of a module, and nothing would be logged.
    if !level.contains('=') {
        level.parse::<LevelFilter>().map_err(|_| wrong())?;
    }
    let filter = EnvFilter::try_new(level).map_err(|_| wrong())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(AboveBars(bars.clone()))
        .with_ansi(false)
        .with_target(false);
    let started = match args.log_format.unwrap_or(LogFormat::Text) {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::new(backstay_backup_core::Class::Internal, error))
}

/// Writes lines to stderr without tearing the bar that is drawn there.
#[derive(Clone)]
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nobody reads our logs any more: that must not stop a backup.
        self.0.suspend(|| drop(io::stderr().write_all(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
