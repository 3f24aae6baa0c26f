//! Templates: the built-in ones, and files that replace them.
//!
//! A template is a text file: its first line becomes the subject, what follows the first empty line the body. Files of
//! the configured directory are named after what they are for, and the most specific one is taken:
//!
//! ```text
//! <kind>[.<channel>][.<P0…P3>][.<status>].txt        update.txt, opened.P0.txt, update.ops.monitoring.txt
//! ```
//!
//! They are strict: an unknown name is an error when they are checked ([`Templates::lint`]), with its line and column. A
//! template that fails when it matters is replaced by the built-in one, because a plain message beats none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde::Serialize;

use super::letter::{Letter, merged_lines, stamp, words};
use super::{clean_line, clean_text};
use crate::incident::Objective;
use crate::notice::{Kind, Notice, Who};
use crate::policy;
use crate::redact::Redactor;
use crate::severity::{Severity, Status};

/// Largest template in bytes.
const MAX_TEMPLATE: u64 = 64 << 10;
/// Steps that a template may take, each worth up to 64 bytes: a loop of many thousand rounds is none of these.
const FUEL: u64 = 100_000;
/// Longest text that goes through a template: no channel carries more.
const MAX_TEXT: usize = 100_000;

/// All templates.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    files: BTreeMap<String, PathBuf>,
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{}:{line}:{column}: {problem}", file.display())]
pub struct TemplateError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
}

/// What a check of all templates found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lint {
    /// Files that were looked at.
    pub checked: usize,
    /// What is wrong with them.
    pub errors: Vec<TemplateError>,
}

fn built_in(kind: Kind) -> &'static str {
    match kind {
        Kind::Opened => include_str!("templates/opened.txt"),
        Kind::Update => include_str!("templates/update.txt"),
        Kind::Acknowledged => include_str!("templates/acknowledged.txt"),
        Kind::Resolved => include_str!("templates/resolved.txt"),
        Kind::Reminder => include_str!("templates/reminder.txt"),
        Kind::Escalation => include_str!("templates/escalation.txt"),
        Kind::TaskFailed => include_str!("templates/task-failed.txt"),
        Kind::TaskSucceeded => include_str!("templates/task-succeeded.txt"),
        Kind::DrillReport => include_str!("templates/drill-report.txt"),
        Kind::ObjectiveMissed => include_str!("templates/objective-missed.txt"),
        Kind::Alarm => include_str!("templates/alarm.txt"),
        Kind::Report => include_str!("templates/report.txt"),
    }
}

impl Default for Templates {
    fn default() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_recursion_limit(50);
        environment.set_fuel(Some(FUEL));
        for kind in Kind::ALL {
            environment.add_template(kind.name(), built_in(kind)).expect("the built-in templates are tested");
        }
        Self { environment, files: BTreeMap::new() }
    }
}

impl Templates {
    /// The built-in templates under those of a directory. What is wrong with a file is in the result, and the file is
    /// left out. Blocks for as long as the disk does.
    #[must_use]
    pub fn with_directory(directory: &Path) -> (Self, Vec<TemplateError>) {
        let (mut templates, mut errors) = (Self::default(), Vec::new());
        let error = |file: &Path, problem: String| TemplateError {
            file: file.to_owned(),
            line: 1,
            column: 1,
            problem,
        };
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(problem) => return (templates, vec![error(directory, problem.to_string())]),
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "txt")) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if let Err(problem) = templates.add_file(&name, &path) {
                errors.push(problem);
            }
        }
        (templates, errors)
    }

    fn add_file(&mut self, name: &str, path: &Path) -> Result<(), TemplateError> {
        let error = |problem: String| TemplateError { file: path.to_owned(), line: 1, column: 1, problem };
        let kind = name.split('.').next().unwrap_or_default();
        if !Kind::ALL.iter().any(|known| known.name() == kind) {
            let known = Kind::ALL.map(Kind::name).join(", ");
            return Err(error(format!("{kind:?} is no kind of notice: the file begins with one of {known}")));
        }
        let length = std::fs::metadata(path).map_err(|problem| error(problem.to_string()))?.len();
        if length > MAX_TEMPLATE {
            return Err(error(format!("{length} bytes are more than a template has")));
        }
        let text = std::fs::read_to_string(path).map_err(|problem| error(problem.to_string()))?;
        self.add(name, path, &text)
    }

    /// Adds a text as the template of a name, such as `update.P0`, as if it had been read from that file.
    ///
    /// # Errors
    /// The text is no template; the error has its line and column.
    pub fn add(&mut self, name: &str, path: &Path, text: &str) -> Result<(), TemplateError> {
        self.environment
            .add_template_owned(format!("file/{name}"), text.to_owned())
            .map_err(|problem| located(path, text, &problem))?;
        self.files.insert(name.to_owned(), path.to_owned());
        Ok(())
    }

    /// Names of the template for a notice, the most specific first.
    fn candidates(notice: &Notice, channel: &str) -> Vec<String> {
        let kind = notice.kind.name();
        let severity = notice.severity.name();
        let status = notice.status.map_or("-", Status::name);
        let parts: [&[&str]; 8] = [
            &[channel, severity, status],
            &[channel, severity],
            &[channel, status],
            &[severity, status],
            &[channel],
            &[severity],
            &[status],
            &[],
        ];
        parts
            .iter()
            .map(|rest| std::iter::once(&kind).chain(rest.iter()).copied().collect::<Vec<_>>().join("."))
            .collect()
    }

    /// The words for a notice and the later ones that are told with it, on this channel. Never fails: what goes wrong
    /// with a file is logged, and the built-in template, or bare facts, are used instead.
    #[must_use]
    pub fn letter(
        &self,
        notice: &Notice,
        group: &[&Notice],
        channel: &str,
        late: Option<SignedDuration>,
        redactor: &Redactor,
    ) -> Letter {
        let mut chosen = Self::candidates(notice, channel);
        chosen.retain(|name| self.files.contains_key(name));
        let names = chosen.first().map(|name| format!("file/{name}"));
        let values = Values::new(notice, channel);
        let rendered = names.into_iter().chain([notice.kind.name().to_owned()]).find_map(|name| {
            let made = self
                .environment
                .get_template(&name)
                .and_then(|template| template.render(minijinja::value::Serde(&values)));
            made.map_err(|error| tracing::warn!(template = name, %error, "template failed")).ok()
        });
        let bare = || format!("[{}] {}\n\n{}", notice.severity, notice.title, words(notice));
        let text = without_gaps(&clean_text(&rendered.unwrap_or_else(bare)));
        let (subject, body) = split(&text);
        let mut lines = Vec::new();
        let more = merged_lines(group);
        if let Some(age) = late {
            lines.push(format!("[sent late: written {}, {} ago]", stamp(notice.created), policy::span(age)));
            lines.push(String::new());
        }
        lines.push(body.to_owned());
        let merged = group.len();
        if !more.is_empty() {
            lines.push(format!("\nLater updates, sent late together with this one ({}):", more.len()));
            lines.extend(more);
        }
        let mut letter = Letter::new(&redactor.clean(subject), &redactor.clean(&lines.join("\n")));
        if letter.subject.is_empty() {
            letter.subject = clean_line(&format!("[{}] {}", notice.severity, notice.title));
        }
        letter.merged = merged;
        letter
    }

    /// Renders every template of the directory with every kind of notice it can meet.
    #[must_use]
    pub fn lint(&self) -> Lint {
        let mut lint = Lint { checked: self.files.len(), errors: Vec::new() };
        for (name, path) in &self.files {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let kind = Kind::ALL.into_iter().find(|kind| Some(kind.name()) == name.split('.').next());
            for notice in samples(kind.unwrap_or(Kind::Report)) {
                let values = Values::new(&notice, "channel");
                let template = self.environment.get_template(&format!("file/{name}"));
                match template.and_then(|template| template.render(minijinja::value::Serde(&values))) {
                    Err(error) => lint.errors.push(located(path, &text, &error)),
                    Ok(text) if split(&clean_text(&text)).0.trim().is_empty() => {
                        let problem = "its first line, which becomes the subject, is empty".to_owned();
                        lint.errors.push(TemplateError { file: path.clone(), line: 1, column: 1, problem });
                    }
                    Ok(_) => continue,
                }
                break;
            }
        }
        lint
    }
}

/// The text with at most one empty line at a time: what a condition left out leaves no hole.
fn without_gaps(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut gap = false;
    for line in text.trim().lines() {
        let is_empty = line.trim().is_empty();
        if !(is_empty && gap) {
            kept.push_str(line.trim_end());
            kept.push('\n');
        }
        gap = is_empty;
    }
    kept
}

/// The first line, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (subject, body) = text.split_once('\n').unwrap_or((text, ""));
    (subject.trim(), if body.trim().is_empty() { subject.trim() } else { body.trim_matches('\n') })
}

/// An error with its place in the file.
fn located(path: &Path, text: &str, error: &minijinja::Error) -> TemplateError {
    let offset = error.range().map_or(0, |range| range.start).min(text.len());
    let before = &text[..text.floor_char_boundary(offset)];
    let line = error.line().unwrap_or_else(|| 1 + before.matches('\n').count());
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
    let what = match error.kind() {
        ErrorKind::UndefinedError => "there is no such value".to_owned(),
        kind => kind.to_string(),
    };
    let problem = error.detail().map_or_else(|| what.clone(), |detail| format!("{what}: {detail}"));
    TemplateError { file: path.to_owned(), line, column, problem }
}

/// What a template can name.
#[derive(Serialize)]
struct Values {
    kind: &'static str,
    severity: &'static str,
    status: Option<&'static str>,
    channel: String,
    thread: String,
    created: String,
    title: String,
    text: String,
    impact: String,
    commander: Option<String>,
    tiers: Vec<String>,
    since: Option<String>,
    update_due: Option<String>,
    acknowledged: Option<String>,
    downtime: Option<String>,
    objectives: Vec<minijinja::Value>,
    missed: bool,
    source: String,
    facts: BTreeMap<String, String>,
}

impl Values {
    fn new(notice: &Notice, channel: &str) -> Self {
        let text = |text: &str| clean_text(&super::fit(text, MAX_TEXT, super::Unit::Bytes));
        let line = |line: &str| clean_line(&super::fit(line, MAX_TEXT, super::Unit::Bytes));
        let span = |seconds: u64| {
            policy::span(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
        };
        let objective = |objective: &Objective| {
            context! {
                name => line(&objective.name),
                target => span(objective.target),
                reached => span(objective.reached),
                missed => objective.is_missed(),
            }
        };
        Self {
            kind: notice.kind.name(),
            severity: notice.severity.name(),
            status: notice.status.map(Status::name),
            channel: channel.to_owned(),
            thread: notice.thread.clone(),
            created: stamp(notice.created),
            title: line(&notice.title),
            text: text(&notice.text),
            impact: line(&notice.impact),
            commander: notice.commander.as_deref().map(line),
            tiers: notice.tiers.iter().map(|tier| line(tier)).collect(),
            since: notice.since.map(stamp),
            update_due: notice.update_due.map(stamp),
            acknowledged: notice.acknowledged.as_ref().map(|who| line(&who.by)),
            downtime: notice.downtime.map(|seconds| policy::span(SignedDuration::from_secs(seconds))),
            objectives: notice.objectives.iter().map(objective).collect(),
            missed: notice.is_missed(),
            source: line(&notice.source),
            facts: notice.facts.iter().map(|(name, value)| (line(name), text(value))).collect(),
        }
    }
}

/// Notices with everything and with nothing, for checks.
fn samples(kind: Kind) -> Vec<Notice> {
    let at = Timestamp::UNIX_EPOCH;
    let bare = Notice::new("sample", "sample", kind, Severity::P0, at, "The database is down");
    let mut full = bare.clone();
    full.status = Some(Status::Identified);
    full.text = "The disk of the primary is full.".to_owned();
    full.impact = "nobody can log in".to_owned();
    full.commander = Some("Ada".to_owned());
    full.tiers = vec!["T1".to_owned()];
    full.since = Some(at);
    full.update_due = Some(at);
    full.acknowledged = Some(Who { by: "Grace".to_owned(), at });
    full.downtime = Some(2700);
    full.objectives = vec![Objective { name: "RTO".to_owned(), target: 900, reached: 2700 }];
    full.source = "backup-database on db-1".to_owned();
    full.facts = BTreeMap::from([("exit code".to_owned(), "5".to_owned())]);
    vec![full, bare]
}
