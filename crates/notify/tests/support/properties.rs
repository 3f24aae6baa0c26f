//! What must be true of every input of the crate, for the tests here and for the fuzz targets.
#![allow(dead_code, reason = "each user takes its part")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use backstay_backup_core::config::NotifyPolicy;
use backstay_backup_core::manifest::{seal, unseal};
use backstay_backup_core::secret::Secret;
use backstay_notify::channel::github::Github;
use backstay_notify::channel::http::{self, Client, retry_after};
use backstay_notify::channel::jira::Jira;
use backstay_notify::channel::pagerduty::PagerDuty;
use backstay_notify::channel::slack::{Slack, SlackWebhook};
use backstay_notify::channel::statuspage::Statuspage;
use backstay_notify::channel::teams::Teams;
use backstay_notify::channel::webhook::Webhook;
use backstay_notify::channel::{Channel, Message};
use backstay_notify::incident::{Event, Incident, IncidentId};
use backstay_notify::outbox::lane::{self, Item};
use backstay_notify::outbox::schedule::{self, Circumstances};
use backstay_notify::outbox::{Attempted, Outcome, Parcel, Rules, Settled};
use backstay_notify::page::Page;
use backstay_notify::policy::{self, Policy};
use backstay_notify::redact::Redactor;
use backstay_notify::render::{Letter, Templates, Unit, clean_line, clean_text, fit, fits};
use backstay_notify::{Kind, Notice, Severity};
use jiff::Timestamp;

const TOKEN: &str = "t0ken-of-the-channel";

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("it is in range")
}

/// Any bytes as what the outbox and the journal keep: damaged ones are refused, others come back as they went, and
/// every decision over them is made.
pub fn records(bytes: &[u8]) {
    for bytes in bytes.split(|byte| *byte == 0) {
        if let Ok(parcel) = serde_json::from_slice::<Parcel>(bytes) {
            let sealed = seal(&parcel).expect("it is made of plain values");
            assert_eq!(unseal::<Parcel>(&sealed).expect("it was just sealed"), parcel);
            words(&parcel.id());
        }
        if let Ok(state) = serde_json::from_slice::<Attempted>(bytes) {
            attempts(state);
        }
        let _ = unseal::<Settled>(bytes);
        let _ = unseal::<Parcel>(bytes);
        let _ = unseal::<Event>(bytes);
        if let Ok(id) = std::str::from_utf8(bytes)
            .map_err(|_| ())
            .and_then(|text| IncidentId::parse(text).map_err(|_| ()))
        {
            assert_eq!(id.to_string().as_bytes(), bytes);
        }
    }
    let events =
        bytes.split(|byte| *byte == 0).filter_map(|bytes| serde_json::from_slice::<Event>(bytes).ok());
    incidents(&events.collect::<Vec<_>>());
}

fn attempts(state: Attempted) {
    let state = state.recovered();
    let _ = state.rebased(now());
    let problem = || "x".to_owned();
    for outcome in [
        Outcome::Accepted { reference: None },
        Outcome::Later { problem: problem() },
        Outcome::Unknown { problem: problem() },
        Outcome::Refused { problem: problem() },
        Outcome::Limited { retry_after: Some(Duration::from_secs(u64::MAX)), problem: problem() },
    ] {
        let at = Circumstances { created: state.written, now: now(), is_idempotent: false, chance: 0.5 };
        let (after, _) = schedule::after(state.clone(), &outcome, at, &Rules::default());
        assert!(after.phase.is_settled() || after.due() > now(), "nothing is tried again at once");
    }
    let item = |seq| Item {
        seq,
        thread: "t".to_owned(),
        kind: Kind::Update,
        severity: Severity::P0,
        created: state.written,
        state: state.clone(),
    };
    let _ = lane::next(&[item(1), item(2)], now(), &Rules::default());
}

fn incidents(events: &[Event]) {
    let Some(incident) = Incident::fold(events) else { return };
    let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    if ids.len() == events.len() {
        let other = Incident::fold(events.iter().rev());
        assert_eq!(Some(&incident), other.as_ref(), "the order of reading means nothing");
    }
    let policy = Policy::new(&NotifyPolicy::default(), ["hook".to_owned()]);
    for severity in Severity::ALL {
        let rule = policy.rule(severity);
        let due = policy::due(&incident, rule, now());
        assert!(due.iter().all(|due| due.at <= now()), "what is due was due before");
        let next = policy::next_due(&incident, rule, now());
        assert!(next.is_none_or(|next| next > now() || next == Timestamp::MAX), "{next:?}");
    }
    let page = Page::render("Status", std::slice::from_ref(&incident), now());
    assert_eq!(page.html.matches("<script").count(), 2, "a text became a script");
    let notice = Notice::about(&incident, "n", Kind::Update, now());
    letters(&notice, &Templates::default(), &Redactor::default());
}

/// Any text as the words of a notice: no secret, no control character, no limit broken, no broken document.
pub fn words(text: &str) {
    let mut redactor = Redactor::default();
    redactor.add(&Secret::new("hunter2hunter2".to_owned()));
    let clean = redactor.clean(&format!("{text} hunter2hunter2 {text}"));
    assert!(!clean.contains("hunter2hunter2"));
    for limit in [0, 7, 100] {
        for unit in [Unit::Bytes, Unit::Chars, Unit::Utf16] {
            assert!(fits(&fit(text, limit, unit), limit, unit));
        }
    }
    assert_eq!(clean_text(&clean_text(text)), clean_text(text));
    assert_eq!(clean_line(&clean_line(text)), clean_line(text));
    let mut notice = Notice::new(text, text, Kind::Opened, Severity::P0, now(), text).text(text).source(text);
    notice.impact = text.to_owned();
    letters(&notice, &Templates::default(), &redactor);
    if let Some(wait) = retry_after(text, now()) {
        assert!(wait <= Duration::from_secs(30 * 86_400));
    }
    let _ = http::address(text, true);
    let _ = backstay_notify::channel::email::is_address(text);
}

fn letters(notice: &Notice, templates: &Templates, redactor: &Redactor) {
    let letter = templates.letter(notice, &[notice], "room", None, redactor);
    assert!(!letter.subject.chars().any(char::is_control) && !letter.subject.is_empty());
    for channel in channels() {
        let message = Message::new(notice, &letter, now()).reference(Some("C1:17.5"));
        for draft in channel.draft(&message) {
            serde_json::from_slice::<serde_json::Value>(&draft.body).expect("every draft of these is JSON");
        }
    }
}

/// Any text as a template: an error with its place, or words; the built-in words where it fails later.
pub fn template(text: &str) {
    let mut templates = Templates::default();
    match templates.add("opened", Path::new("opened.txt"), text) {
        Err(error) => {
            let lines = 1 + text.matches('\n').count();
            assert!(error.line >= 1 && error.line <= lines + 1 && error.column >= 1, "{error:?}");
        }
        Ok(()) => {
            let notice = Notice::new("n", "t", Kind::Opened, Severity::P0, now(), "down");
            letters(&notice, &templates, &Redactor::default());
        }
    }
}

type Reply = Arc<Mutex<Vec<u8>>>;

/// A service on a loopback port that says these bytes to whoever comes, whatever is asked.
fn service() -> &'static (String, Reply) {
    static SERVICE: OnceLock<(String, Reply)> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("it listens"));
        let reply = Reply::default();
        let said = Arc::clone(&reply);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let bytes = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                let _ = stream.read(&mut [0; 65_536]);
                let _ = stream.write_all(&bytes);
            }
        });
        (url, reply)
    })
}

fn channels() -> &'static [Arc<dyn Channel>] {
    static CHANNELS: OnceLock<Vec<Arc<dyn Channel>>> = OnceLock::new();
    CHANNELS.get_or_init(|| {
        let client = || Client::new(None, Duration::from_secs(2)).expect("the usual authorities");
        let url = || http::address(&service().0, true).expect("an address");
        let token = || Secret::new(TOKEN.to_owned());
        let login = token();
        vec![
            Arc::new(Slack::new(client(), url(), token(), "#room", None)),
            Arc::new(SlackWebhook::new(client(), url(), None)),
            Arc::new(PagerDuty::new(client(), url(), token())),
            Arc::new(Teams::new(client(), url())),
            Arc::new(Webhook::new(client(), url(), None).expect("no secret")),
            Arc::new(Github::new(client(), url(), token(), "o/r").expect("a project")),
            Arc::new(Jira::new(client(), url(), ("a@example.com", &login), ("OPS", "Task")).expect("a key")),
            Arc::new(Statuspage::new(client(), url(), token(), ("page", None)).expect("a page")),
        ]
    })
}

/// Any bytes as the answer of a service: an outcome, taken only where the answer is a success.
pub fn replies(bytes: &[u8]) {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads")
    });
    *service().1.lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
    let notice = Notice::new("n", "t", Kind::Opened, Severity::P0, now(), "down");
    let letter: Letter = Templates::default().letter(&notice, &[], "room", None, &Redactor::default());
    for channel in channels() {
        let outcome = runtime.block_on(channel.deliver(&Message::new(&notice, &letter, now())));
        let said = format!("{outcome:?}");
        assert!(!said.contains(TOKEN), "{said}");
        assert!(said.len() < 4000, "{} bytes of a problem", said.len());
        match outcome {
            Outcome::Accepted { .. } => {
                // Interim answers may go before it.
                let said = String::from_utf8_lossy(bytes).trim_start().chars().take(12).collect::<String>();
                let is_success = said.starts_with("HTTP/1.") && (said.contains(" 2") || said.contains(" 1"));
                assert!(is_success, "{} took {said:?}", channel.kind().name());
            }
            Outcome::Limited { retry_after, .. } => {
                assert!(retry_after.is_none_or(|wait| wait <= Duration::from_secs(30 * 86_400)));
            }
            Outcome::Later { .. } | Outcome::Unknown { .. } | Outcome::Refused { .. } => {}
        }
    }
}
