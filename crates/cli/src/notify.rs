//! The notifier of a program, and what a task tells when it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::config::{IncidentPlace, NotifyConfig, TimeSpan};
use backstay_backup_core::process::CommandRunner;
use backstay_backup_core::repository::layout;
use backstay_backup_core::secret::Secret;
use backstay_notify::channel::http::{self, Client};
use backstay_notify::channel::{Registry, Unavailable};
use backstay_notify::incident::Journal;
use backstay_notify::outbox::Rules;
use backstay_notify::policy::Policy;
use backstay_notify::redact::Redactor;
use backstay_notify::render::{TemplateError, Templates};
use backstay_notify::tasks::{self, Ended};
use backstay_notify::{Notifier, Setup};
use backstay_storage_s3::S3Store;
use jiff::{SignedDuration, Timestamp};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

/// Where the outbox of root is.
const SYSTEM_STATE: &str = "/var/lib/backstay/notify";
/// Time for the store of the incidents to be opened, and to be read; without it their events wait in the outbox.
const OPENING: Duration = Duration::from_secs(10);
/// Time for the address of the heartbeat to be had.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Time for a task to tell how it ended; what is not delivered by then is left to the next round.
const TELLING: Duration = Duration::from_secs(30);
/// How long one call waits in place for a limit or a first repetition.
const PATIENCE: Duration = Duration::from_secs(7);
/// Programs that answer a person, and are no tasks.
const NO_TASKS: [&str; 2] = ["list-backups", "send-notification"];

/// A notifier, and what is wrong with its configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct OpenedNotifier {
    /// The notifier.
    pub notifier: Notifier,
    /// Channels that cannot be used.
    pub unavailable: Vec<Unavailable>,
    /// Templates that cannot be used.
    pub templates: Vec<TemplateError>,
}

impl Context {
    /// The notifier of the configuration. What is wrong with single channels or templates is in the result: the others
    /// still work.
    ///
    /// # Errors
    /// The outbox cannot be opened.
    pub async fn notifier(&self, program: &str) -> Result<OpenedNotifier, Failure> {
        self.notifier_waiting(program, OPENING).await
    }

    /// As [`Context::notifier`], for whoever cannot wait: the repository of the incidents has that long to answer. When it
    /// does not, events wait in the outbox, and what the outbox knows counts.
    ///
    /// # Errors
    /// As [`Context::notifier`].
    pub async fn notifier_waiting(&self, program: &str, limit: Duration) -> Result<OpenedNotifier, Failure> {
        let config = &self.config.notify;
        let state = self.notify_state()?;
        let mut redactor = Redactor::default();
        let runner: Arc<dyn CommandRunner> = Arc::new(self.runner());
        // At once: until all three have answered, or their time is over, nothing is on disk.
        let (registry, heartbeat, journal) = tokio::join!(
            Registry::open(&config.channel, self.secrets(), &runner, &mut redactor),
            self.heartbeat(config),
            self.journal(config, limit)
        );
        let policy = Policy::new(&config.policy, config.names());
        let mut setup = Setup::new(&state, policy, self.clock.clone(), &format!("{program} on {}", host()));
        setup.heartbeat = heartbeat.map(|(client, url)| {
            redactor.add(&Secret::new(url.expose().to_string()));
            (client, url)
        });
        let (templates, problems) = match &config.templates {
            Some(directory) => Templates::with_directory(directory),
            None => (Templates::default(), Vec::new()),
        };
        setup.templates = templates;
        setup.journal = journal;
        setup.journal_time = limit;
        setup.rules = rules(config);
        setup.rto = config.rto.map(span);
        setup.patience = PATIENCE;
        let unavailable = registry.unavailable.clone();
        setup.registry = registry;
        setup.redactor = redactor;
        Ok(OpenedNotifier { notifier: Notifier::open(setup)?, unavailable, templates: problems })
    }

    fn notify_state(&self) -> Result<PathBuf, Failure> {
        if let Some(state) = &self.config.notify.state {
            return Ok(state.clone());
        }
        let system = Path::new(SYSTEM_STATE);
        // Whoever may make it there owns it.
        if std::fs::create_dir_all(system.join("locks")).is_ok() && is_writable(&system.join("locks")) {
            return Ok(system.to_owned());
        }
        let variable = |name: &str| self.environment().get(name).filter(|value| value.starts_with('/'));
        let below = variable("XDG_STATE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(variable("HOME")?).join(".local/state")));
        below.map(|below| below.join("backstay/notify")).ok_or_else(|| {
            Failure::usage("there is no place for the outbox of notifications")
                .with_hint("set notify.state to a directory that this account may write to")
        })
    }

    async fn heartbeat(&self, config: &NotifyConfig) -> Option<(Client, Secret<url::Url>)> {
        let reference = config.heartbeat.as_ref()?;
        let late = |_| Err(Failure::usage(format!("its address could not be had within {HEARTBEAT:?}")));
        let problem = match tokio::time::timeout(HEARTBEAT, self.secret(reference)).await.unwrap_or_else(late)
        {
            Ok(text) => {
                let url = http::address(text.expose(), true);
                match (url, Client::new(None, Duration::from_secs(10))) {
                    (Ok(url), Ok(client)) => return Some((client, url)),
                    (Err(problem), _) => problem,
                    (_, Err(error)) => error.to_string(),
                }
            }
            Err(failure) => failure.message(),
        };
        tracing::warn!(problem, "no heartbeat");
        None
    }

    /// The bucket of the status page, where one is configured. No request is made.
    ///
    /// # Errors
    /// Its section of the configuration cannot work, or its credentials cannot be had.
    pub async fn status_bucket(&self) -> Result<Option<S3Store>, Failure> {
        match &self.config.notify.status_bucket {
            Some(config) => crate::open::bucket(self, config).await.map(Some),
            None => Ok(None),
        }
    }

    /// The journal in the repositories; `None` for the one beside the outbox.
    async fn journal(&self, config: &NotifyConfig, limit: Duration) -> Option<Journal> {
        if config.incidents != IncidentPlace::Repository {
            return None;
        }
        let opened = tokio::time::timeout(limit, self.open_repositories()).await;
        Some(match opened {
            Ok(Ok(opened)) => {
                let stores =
                    opened.repositories.members().iter().map(|member| member.store().clone()).collect();
                Journal::new(stores, layout::incidents(self.stanza()))
            }
            Ok(Err(failure)) => Journal::unreachable(&failure.message()),
            Err(_) => Journal::unreachable("no repository answers"),
        })
    }
}

fn is_writable(directory: &Path) -> bool {
    let probe = directory.join(format!("probe-{}", std::process::id()));
    let written = std::fs::write(&probe, b"").is_ok();
    let _ = std::fs::remove_file(&probe);
    written
}

fn span(span: TimeSpan) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}

fn rules(config: &NotifyConfig) -> Rules {
    let mut rules = Rules::default();
    rules.late_after = config.late_after.map_or(rules.late_after, span);
    rules.fallback_after = config.fallback_after.map_or(rules.fallback_after, span);
    rules.give_up_after = config.give_up_after.map_or(rules.give_up_after, span);
    rules
}

/// Name of this machine.
pub(crate) fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    if host.is_empty() { "unknown host".to_owned() } else { host.to_owned() }
}

/// What ended.
pub(crate) struct Task {
    pub(crate) program: String,
    /// What it was about, where that is part of its name.
    pub(crate) about: Option<String>,
    pub(crate) begun: Timestamp,
}

/// Tells how a task ended, where the configuration wants that. Whatever goes wrong here is said in the log and changes
/// nothing else.
pub(crate) async fn task_ended(context: &Context, task: &Task, ended: Result<Exit, &Failure>) {
    let program = task.program.as_str();
    let asked = |flag: &str| std::env::args_os().any(|argument| argument == flag);
    let mut on = context.config.notify.on.clone();
    if asked("--status") {
        // A look at a service: that it does not run, and that it does again, is worth a word; that it runs is none.
        (on.first_success, on.every_success) = (false, false);
    }
    if on.is_silent() || NO_TASKS.contains(&program) || ["--dry-run", "--list"].into_iter().any(asked) {
        return;
    }
    let now = context.clock.now();
    let took = SignedDuration::from_secs(now.duration_since(task.begun).as_secs().max(0));
    let (code, words) = match ended {
        Ok(exit @ (Exit::Done | Exit::Missed)) => (exit.code(), format!("Done in {took:#}.")),
        Ok(exit) => (exit.code(), "It ended with a negative answer; its own output says which.".to_owned()),
        Err(failure) => {
            let hint = failure.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
            (failure.exit().code(), format!("{}{hint}", failure.message()))
        }
    };
    let mut ended = Ended::new(program, context.stanza().as_str(), &host(), now, code).words(words);
    ended.about.clone_from(&task.about);
    let told = tokio::time::timeout(TELLING, async {
        let opened = context.notifier(program).await?;
        Ok::<_, Failure>(tasks::tell(&opened.notifier, &on, &ended).await?)
    });
    match told.await {
        Ok(Ok(report)) => {
            for waiting in report.waiting.iter().filter(|waiting| waiting.channel != backstay_notify::JOURNAL)
            {
                let problem = waiting.problem.as_deref().unwrap_or_default();
                tracing::warn!(channel = waiting.channel, problem, "notification waits in the outbox");
            }
            for lost in &report.given_up {
                tracing::warn!(channel = lost.channel, problem = lost.problem, "notification refused");
            }
        }
        Ok(Err(failure)) => {
            let problem = failure.message();
            tracing::warn!(problem, "no notification of how this task ended");
        }
        Err(_) => tracing::warn!("notification not delivered in time; it waits in the outbox"),
    }
}
