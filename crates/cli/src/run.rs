//! The life of a program.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::config::{Config, ConfigFile, DEFAULT_PATH};
use clap::{Arg, ArgAction, Args as _, FromArgMatches as _};
use futures::future::FutureExt as _;
use indicatif::MultiProgress;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::args::{Arguments, CommonArgs, flags};
use crate::bars::Bars;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::signals::Signals;
use crate::{logging, output};

/// Time for an orderly end after a signal, before the action is dropped.
const ORDERLY_END: Duration = Duration::from_secs(30);
/// Widest line of a help.
const WIDTH: usize = 110;
/// Time for blocking work that nobody waits for any more.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// Runs a program: arguments, configuration, logs, signals, the action, output, exit code.
///
/// The first SIGTERM, SIGINT or SIGHUP cancels [`Context::cancel`]; the action then has 30 seconds for an orderly end.
/// A second signal, or the end of that time, drops it.
pub fn run<A: Arguments>(action: impl AsyncFnOnce(&Context, A) -> Result<Exit, Failure>) -> ExitCode {
    ExitCode::from(ending(Builder::new_multi_thread(), true, action).exit().code())
}

/// As [`run`], for a program with exit codes of its own that is started for every file.
///
/// `codes` turns every ending into a number: those of wrong arguments and of panics too. The action has one thread, and
/// others for what blocks: there is no time to start more.
pub fn run_as<A: Arguments>(
    codes: impl Fn(&Ending) -> u8,
    action: impl AsyncFnOnce(&Context, A) -> Result<Exit, Failure>,
) -> ExitCode {
    ExitCode::from(codes(&ending(Builder::new_current_thread(), false, action)))
}

/// Asks whether there is nothing to do, of the arguments and the configuration of this process.
///
/// For a small program in front of a large one: it needs no logs, no runtime and no store. It prints nothing and does not
/// panic. `false` is also the answer to whatever is wrong, help included: the large program finds it again, and tells.
pub fn is_done<A: Arguments>(ask: impl FnOnce(&Config, &A) -> bool) -> bool {
    std::panic::set_hook(Box::new(|_| ()));
    let asked = catch_unwind(AssertUnwindSafe(|| {
        let (arguments, common) = parse::<A>().ok()?;
        let loaded =
            Config::load(config_file(&common).ok()?.as_ref(), &environment(), &flags(&arguments, &common));
        Some(ask(&loaded.ok()?.config, &arguments))
    }));
    matches!(asked, Ok(Some(true)))
}

/// How a program ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ending {
    /// Its action said so.
    Returned(Exit),
    /// Help or version was asked for.
    Answered,
    /// An error.
    Failed(Failure),
    /// The arguments are none.
    Refused,
    /// A bug.
    Panicked,
}

impl Ending {
    /// The usual exit of such an ending.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Returned(exit) => *exit,
            Self::Answered => Exit::Done,
            Self::Failed(failure) => failure.exit(),
            Self::Refused => Exit::Usage,
            Self::Panicked => Exit::Internal,
        }
    }
}

/// Runs a program; one that `tells` says through notifications how it ended, where the configuration wants that.
fn ending<A: Arguments>(
    runtime: Builder,
    tells: bool,
    action: impl AsyncFnOnce(&Context, A) -> Result<Exit, Failure>,
) -> Ending {
    std::panic::set_hook(Box::new(explain_panic));
    let json = std::env::args_os().any(|arg| arg == "--json");
    let (arguments, common) = match parse::<A>() {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error, json),
    };
    let json = json || common.json;
    match catch_unwind(AssertUnwindSafe(|| live((runtime, tells), (arguments, &common), action))) {
        Ok(Ok(exit)) => Ending::Returned(exit),
        Ok(Err(failure)) => {
            output::failure(&failure, json);
            Ending::Failed(failure)
        }
        Err(panic) => {
            if json {
                let failure = Failure::new(Class::Internal, panic_words(panic.as_ref()));
                let report = serde_json::json!({ "error": failure.report() });
                let _ = output::line(&mut std::io::stdout().lock(), &report.to_string());
            }
            Ending::Panicked
        }
    }
}

fn parse<A: Arguments>() -> Result<(A, CommonArgs), clap::Error> {
    let matches = command::<A>().try_get_matches()?;
    Ok((A::from_arg_matches(&matches)?, CommonArgs::from_arg_matches(&matches)?))
}

/// The program's arguments with one help for both flags, the short form: it fits a screen.
fn command<A: Arguments>() -> clap::Command {
    let help = Arg::new("help").short('h').long("help").action(ArgAction::HelpShort).help("Prints this help");
    let version =
        Arg::new("version").short('V').long("version").action(ArgAction::Version).help("Prints the version");
    let own = A::command();
    // Added arguments bring their own description along.
    let about = own.get_about().cloned().unwrap_or_default();
    let is_several = own.has_subcommands();
    let known: Vec<clap::Id> = own.get_arguments().map(|arg| arg.get_id().clone()).collect();
    let command = CommonArgs::augment_args(own)
        .about(about)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .max_term_width(WIDTH)
        .arg(help)
        .arg(version);
    if !is_several {
        return command;
    }
    // Flags of all programs may stand behind the command too.
    command.disable_help_subcommand(true).mut_args(|arg| {
        let is_common = !known.contains(arg.get_id()) && arg.get_id().as_str() != "version";
        if is_common { arg.global(true) } else { arg }
    })
}

/// Help and version are answers; anything else that clap says is a usage error.
fn refuse(error: &clap::Error, json: bool) -> Ending {
    if !error.use_stderr() {
        let _ = error.print();
        return Ending::Answered;
    }
    let text = error.render().to_string();
    let _ = output::line(&mut std::io::stderr().lock(), text.trim_end());
    if json {
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let report = serde_json::json!({ "error": Failure::usage(message).report() });
        let _ = output::line(&mut std::io::stdout().lock(), &report.to_string());
    }
    Ending::Refused
}

fn live<A: Arguments>(
    (mut runtime, tells): (Builder, bool),
    (arguments, common): (A, &CommonArgs),
    action: impl AsyncFnOnce(&Context, A) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    #[cfg(not(feature = "notify"))]
    let _ = tells;
    let environment = environment();
    let file = config_file(common)?;
    let loaded = Config::load(file.as_ref(), &environment, &flags(&arguments, common))?;
    let bars = MultiProgress::new();
    logging::start(common, &bars)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let unable = |source| Failure::new(Class::Temporary, format!("cannot start the runtime: {source}"));
    let runtime = runtime.enable_all().build().map_err(unable)?;
    #[cfg(feature = "notify")]
    let (begun, about) = (jiff::Timestamp::now(), arguments.about());
    let context = Context::new(loaded.config, environment, common);
    let ended = runtime.block_on(async {
        let drawing = Bars::start(&context.progress, &bars, !common.no_progress);
        // On the heap: the futures of whole backups are large.
        let ending = until_stopped(&context.cancel, Box::pin(action(&context, arguments)));
        // A bug is a failure too, and is told before it goes on.
        let caught = AssertUnwindSafe(ending).catch_unwind().await;
        drop(drawing);
        #[cfg(feature = "notify")]
        if tells {
            let bug;
            let ended = match &caught {
                Ok(Ok(exit)) => Ok(*exit),
                Ok(Err(failure)) => Err(failure),
                Err(panic) => {
                    bug = Failure::new(Class::Internal, panic_words(panic.as_ref()));
                    Err(&bug)
                }
            };
            let task = crate::notify::Task { program: A::command().get_name().to_owned(), about, begun };
            Box::pin(crate::notify::task_ended(&context, &task, ended)).await;
        }
        caught.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    runtime.shutdown_timeout(STRAGGLERS);
    ended
}

/// Awaits the action, with signals turned into cancellation.
async fn until_stopped(
    cancel: &CancellationToken,
    mut action: Pin<Box<impl Future<Output = Result<Exit, Failure>>>>,
) -> Result<Exit, Failure> {
    let unable = |source| Failure::new(Class::Internal, format!("cannot listen for signals: {source}"));
    let mut signals = Signals::listen().map_err(unable)?;
    let signal = tokio::select! {
        ended = &mut action => return ended,
        signal = signals.next() => signal,
    };
    tracing::info!(signal, "stopping");
    cancel.cancel();
    tokio::select! {
        ended = &mut action => match ended {
            // Whatever error the cancellation surfaced as, the signal is the reason.
            Err(failure) if failure.class() == Class::Temporary => Err(Failure::cancelled()),
            other => other,
        },
        _ = signals.next() => Err(Failure::cancelled()),
        () = tokio::time::sleep(ORDERLY_END) => Err(Failure::cancelled()),
    }
}

/// The variables that are text; others cannot be meant for us.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The file that was named, or else the usual one where it exists.
fn config_file(common: &CommonArgs) -> Result<Option<ConfigFile>, Failure> {
    match common.config.as_deref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Ok(Some(ConfigFile::read(path)?)),
        None if Path::new(DEFAULT_PATH).exists() => Ok(Some(ConfigFile::read(Path::new(DEFAULT_PATH))?)),
        None => Ok(None),
    }
}

fn explain_panic(panic: &PanicHookInfo<'_>) {
    let place =
        panic.location().map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
    let words = panic_words(panic.payload());
    let text = format!(
        "error: {words}{place}\nhint: this is a bug of Backstay; no set was committed by this run unless it said so"
    );
    let _ = output::line(&mut std::io::stderr().lock(), &text);
}

fn panic_words(payload: &(dyn Any + Send)) -> String {
    let words =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
    format!("internal error: {}", words.unwrap_or("unknown"))
}
