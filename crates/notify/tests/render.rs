//! Ten thousand invented incidents through every channel: limits, UTF-8, injections, secrets.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;

use backstay_backup_core::process::SystemRunner;
use backstay_backup_core::secret::Secret;
use backstay_notify::channel::command::Command;
use backstay_notify::channel::email::{Email, Server};
use backstay_notify::channel::github::Github;
use backstay_notify::channel::jira::Jira;
use backstay_notify::channel::pagerduty::PagerDuty;
use backstay_notify::channel::slack::Slack;
use backstay_notify::channel::statuspage::Statuspage;
use backstay_notify::channel::teams::Teams;
use backstay_notify::channel::{Channel, Message, http};
use backstay_notify::redact::Redactor;
use backstay_notify::render::{Letter, Templates, Unit, length};
use backstay_notify::{Kind, Notice, Severity, Status};
use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use support::{at, client, slack_webhook, webhook};

const INCIDENTS: u64 = 10_000;
const SECRETS: [&str; 5] = [
    "hunter2hunter2",
    "xoxb-123456789012-abcdefghijkl",
    "AKIAABCDEFGHIJKLMNOP",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQ",
];
/// What a text must not be able to do, as it may be typed.
const EVIL: [&str; 24] = [
    "<!channel>",
    "<!here|x>",
    "<@U012AB3CD>",
    "<#C012AB3CD>",
    "<https://evil.example|click>",
    "@channel @everyone @here",
    "<script>alert(1)</script>",
    "<at>Everyone</at>",
    "</pre><img src=x onerror=alert(1)>",
    "[click](https://evil.example)",
    "@octocat fixes #1",
    "<!-- backstay thread 0000000000000000 -->",
    "subject\r\nBcc: evil@example.com",
    "\r\n.\r\nMAIL FROM:<x>",
    "{{ title }}{% raw %}",
    "\u{202E}gnp.exe",
    "\u{0}\u{7}\u{1b}[31m",
    "&amp;&lt;&gt;",
    "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}",
    "e\u{301}\u{301}\u{301}",
    "𝕏𝕐𝕫",
    "\u{2028}x\u{2029}y",
    "\\u003cscript\\u003e",
    "$(reboot) `reboot` ; reboot",
];

fn text(rng: &mut StdRng, longest: usize) -> String {
    let mut text = String::new();
    let wanted = match rng.random_range(0..10) {
        0 => 0,
        1..=6 => rng.random_range(0..200.min(longest)),
        7 | 8 => rng.random_range(0..5000.min(longest)),
        _ => rng.random_range(0..longest),
    };
    while text.len() < wanted {
        match rng.random_range(0..12) {
            0 => text.push_str(EVIL[rng.random_range(0..EVIL.len())]),
            1 => text.push('\n'),
            2 => text.push_str(&"&<>".repeat(rng.random_range(1..40))),
            3 => text.push(char::from_u32(rng.random_range(0x80..0x1_0000)).unwrap_or('ß')),
            4 => text.push(char::from_u32(rng.random_range(0x1_0000..0x11_0000)).unwrap_or('😀')),
            5 => text.push('😀'),
            6 if rng.random_range(0..20) == 0 => {
                let secret = SECRETS[rng.random_range(0..SECRETS.len())];
                text.push_str(&format!(" {secret} "));
            }
            _ => text.extend((0..rng.random_range(1..30)).map(|_| rng.random_range('a'..='z')).chain([' '])),
        }
    }
    text
}

fn invented(rng: &mut StdRng, number: u64, longest: usize) -> Notice {
    let kind = Kind::ALL[rng.random_range(0..Kind::ALL.len())];
    let severity = Severity::ALL[rng.random_range(0..4)];
    let id = format!("20261122T221354Z-{number:08x}");
    let mut notice = Notice::new(&format!("{id}~{number}"), &id, kind, severity, at(0), &text(rng, 3000));
    notice.text = text(rng, longest);
    notice.impact = text(rng, 3000);
    notice.commander = rng.random::<bool>().then(|| text(rng, 300));
    notice.status = rng.random::<bool>().then(|| Status::ALL[rng.random_range(0..4)]);
    notice.tiers = (0..rng.random_range(0..5)).map(|_| text(rng, 50)).collect();
    notice.source = text(rng, 500);
    notice.facts = (0..rng.random_range(0..8))
        .map(|n| (format!("fact {n} {}", text(rng, 20)), text(rng, 2000)))
        .collect();
    notice
}

#[cfg(feature = "sns")]
fn sns(target: &str) -> Arc<dyn Channel> {
    use backstay_notify::channel::sns::{Sns, Target};
    let url = http::address("https://service.example/", false).unwrap();
    let secret = Secret::new("the-token-of-the-channel".to_owned());
    let target = (Target::parse(target).unwrap(), "eu-central-1");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    Arc::new(runtime.block_on(Sns::new(client(), url, target, Some(("AKID", &secret)))).unwrap())
}

#[cfg(not(feature = "sns"))]
fn sns(_: &str) -> Arc<dyn Channel> {
    webhook("https://service.example/hook")
}

fn channels() -> Vec<Arc<dyn Channel>> {
    let url = |path: &str| http::address(&format!("https://service.example{path}"), false).unwrap();
    let token = || Secret::new("the-token-of-the-channel".to_owned());
    let server = Server::new("smtps://mail.example", std::time::Duration::from_secs(1));
    let to = ["oncall@example.com".to_owned()];
    vec![
        Arc::new(Slack::new(client(), url("/api/"), token(), "#incident", None)),
        slack_webhook("https://service.example/hook"),
        Arc::new(Email::new(&server, "backstay@example.com", &to).unwrap()),
        Arc::new(PagerDuty::new(client(), url("/v2/enqueue"), token())),
        Arc::new(Teams::new(client(), url("/flow"))),
        Arc::new(Jira::new(client(), url("/"), ("a@example.com", &token()), ("OPS", "Task")).unwrap()),
        Arc::new(Github::new(client(), url("/"), token(), "o/r").unwrap()),
        Arc::new(Statuspage::new(client(), url("/v1/"), token(), ("page", None)).unwrap()),
        sns("arn:aws:sns:eu-central-1:123456789012:on-call.fifo"),
        sns("+491701234567"),
        webhook("https://service.example/hook"),
        Arc::new(Command::new(
            Arc::new(SystemRunner::new(&Default::default())),
            vec!["page".to_owned()],
            std::time::Duration::from_secs(1),
        )),
    ]
}

fn strings(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::String(text) => all.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| strings(item, all)),
        Value::Object(items) => items.values().for_each(|item| strings(item, all)),
        _ => {}
    }
}

fn at_most(text: &Value, limit: usize, what: &str) {
    let text = text.as_str().unwrap_or_default();
    assert!(length(text, Unit::Utf16) <= limit, "{what}: {} of {limit}", length(text, Unit::Utf16));
}

fn check_slack(json: &Value) {
    let blocks = json["blocks"].as_array().unwrap();
    assert!(blocks.len() <= 50);
    let mut all = 0;
    for block in blocks {
        let text = &block["text"]["text"];
        at_most(text, if block["type"] == "header" { 150 } else { 3000 }, "block");
        all += length(text.as_str().unwrap(), Unit::Utf16);
        assert!(!text.as_str().unwrap().is_empty(), "an empty text is refused");
    }
    assert!(all <= 13_000, "all blocks: {all}");
    at_most(&json["text"], 4000, "text");
    let mut texts = Vec::new();
    strings(&json["blocks"], &mut texts);
    strings(&json["text"], &mut texts);
    for text in texts {
        assert!(!text.contains('<') && !text.contains('>'), "markup in {text:?}");
        let rest = text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
        assert!(!rest.contains('&'), "a broken escape in {text:?}");
    }
    assert_eq!((&json["parse"], &json["link_names"]), (&Value::from("none"), &Value::from(false)));
}

fn check_teams(body: &[u8], json: &Value) {
    assert!(body.len() <= 20_000, "{} bytes", body.len());
    for block in json["attachments"][0]["content"]["body"].as_array().unwrap() {
        assert_eq!(block["type"], "RichTextBlock", "only these read no markup");
    }
    assert!(json["attachments"][0]["content"].get("msteams").is_none());
}

fn check_pagerduty(body: &[u8], json: &Value) {
    assert!(body.len() < 512_000);
    at_most(&json["payload"]["summary"], 1024, "summary");
    at_most(&json["dedup_key"], 255, "dedup_key");
    assert!(!json["payload"]["summary"].as_str().unwrap().is_empty());
    assert!(!json["payload"]["source"].as_str().unwrap().is_empty());
}

fn check_mail(body: &[u8]) {
    let text = std::str::from_utf8(body).expect("headers and encoded parts are text");
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let names: Vec<String> = head
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split(':').next().unwrap().to_ascii_lowercase())
        .collect();
    let known = [
        "from",
        "to",
        "subject",
        "message-id",
        "date",
        "auto-submitted",
        "x-auto-response-suppress",
        "in-reply-to",
        "references",
        "importance",
        "mime-version",
        "content-type",
    ];
    assert!(names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == "subject").count(), 1);
    assert!(text.split("\r\n").all(|line| line.len() <= 998), "a line is too long");
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "a bare line end");
}

fn check_github(json: &Value) {
    at_most(&json["title"], 256, "title");
    at_most(&json["body"], 65_536, "body");
    let body = json["body"].as_str().unwrap();
    assert_eq!(body.matches("<!-- backstay").count(), 2, "a forged mark");
    let visible = body.split("<!-- backstay").next().unwrap();
    assert!(!visible.contains('<'), "HTML");
    for text in [visible, json["title"].as_str().unwrap()] {
        let mut mentions = text.match_indices('@');
        assert!(mentions.all(|(at, _)| text[at + 1..].starts_with('\u{200B}')), "a mention");
    }
    assert!(
        visible.match_indices('#').all(|(at, _)| visible[at + 1..].starts_with('\u{200B}')),
        "a reference"
    );
}

fn check_sns(json: &Value) {
    let message = json["Message"].as_str().unwrap();
    assert!(!message.is_empty());
    if json["PhoneNumber"].is_string() {
        assert!(json["Subject"].is_null());
        assert!(message.len() <= 1600 && (message.is_ascii() || length(message, Unit::Utf16) <= 800));
        return;
    }
    assert!(message.len() <= 262_144 - 1000);
    let subject = json["Subject"].as_str().unwrap();
    assert!(
        (1..100).contains(&subject.len()) && subject.is_ascii() && !subject.contains('\n'),
        "{subject:?}"
    );
    assert!(subject.starts_with(|c: char| c.is_ascii_alphanumeric() || c.is_ascii_punctuation()));
    for name in ["MessageGroupId", "MessageDeduplicationId"] {
        let name = json[name].as_str().unwrap();
        assert!((1..=128).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic()), "{name:?}");
    }
}

/// A form as the JSON object of its fields.
fn form(body: &[u8]) -> Value {
    let pairs = url::form_urlencoded::parse(body).into_owned().collect::<Vec<(String, String)>>();
    pairs.into_iter().map(|(name, value)| (name, Value::from(value))).collect()
}

fn check(channel: &dyn Channel, letter: &Letter, notice: &Notice) {
    let message = Message::new(notice, letter, at(10)).reference(Some("C0123:17.5"));
    for draft in channel.draft(&message) {
        let json: Value = match draft.what.as_str() {
            "MAIL" => Value::Null,
            "POST Publish" => form(&draft.body),
            _ => serde_json::from_slice(&draft.body).expect("it is JSON, so it is UTF-8"),
        };
        match channel.kind().name() {
            "slack" | "slack-webhook" => check_slack(&json),
            "teams" => check_teams(&draft.body, &json),
            "pagerduty" => check_pagerduty(&draft.body, &json),
            "email" => check_mail(&draft.body),
            "github" => check_github(&json),
            "jira" => {
                at_most(&json["fields"]["summary"], 255, "summary");
                assert!(json["fields"]["description"].to_string().len() <= 32_767);
                let nodes = json["fields"]["description"]["content"].as_array().unwrap();
                assert!(nodes.iter().all(|node| node["type"] == "paragraph"
                    && node["content"][0]["type"] == "text"
                    && node["content"][0]["text"] != ""));
            }
            "statuspage" => {
                at_most(&json["incident"]["name"], 200, "name");
                at_most(&json["incident"]["body"], 4096, "body");
                assert!(!json["incident"]["body"].as_str().unwrap().contains('<'));
            }
            "sns" => check_sns(&json),
            "webhook" => assert!(draft.body.len() <= 20_000),
            "command" => assert!(draft.body.len() <= 128_000),
            other => panic!("{other} is not checked"),
        }
        let whole = match draft.what.as_str() {
            "MAIL" => decoded(&draft.body),
            "POST Publish" => json.to_string().into_bytes(),
            _ => draft.body.clone(),
        };
        let whole = String::from_utf8_lossy(&whole).into_owned();
        for secret in SECRETS.iter().chain(&["the-token-of-the-channel"]) {
            assert!(!whole.contains(secret), "{} tells {secret}", channel.kind().name());
        }
        let mut texts = Vec::new();
        strings(&json, &mut texts);
        for text in texts {
            let allowed = |c: char| !c.is_control() || c == '\n';
            assert!(text.chars().all(allowed), "a control character in {}: {text:?}", channel.kind().name());
            assert!(!text.contains(['\u{202E}', '\u{2066}']), "text that runs backwards");
        }
    }
}

/// The mail with its encodings undone, roughly: enough to find a secret.
fn decoded(body: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let text = String::from_utf8_lossy(body);
    let mut all = text.replace("=\r\n", "").into_bytes();
    for part in text.split("\r\n\r\n") {
        let joined: String = part.lines().take_while(|line| !line.starts_with("--")).collect();
        all.extend(base64::engine::general_purpose::STANDARD.decode(joined.trim()).unwrap_or_default());
    }
    all
}

#[test]
fn ten_thousand_incidents_break_no_limit_and_tell_no_secret_on_any_channel() {
    let mut redactor = Redactor::default();
    redactor.add(&Secret::new(SECRETS[0].to_owned()));
    redactor.add(&Secret::new("the-token-of-the-channel".to_owned()));
    let (templates, channels) = (Templates::default(), channels());
    let seed: u64 =
        std::env::var("NOTIFY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122);
    let wanted = std::env::var("NOTIFY_INCIDENTS").ok().and_then(|number| number.parse().ok());
    let usual = if std::env::var_os("BACKSTAY_SOAK").is_some() { INCIDENTS } else { INCIDENTS / 50 };
    let incidents: u64 = wanted.unwrap_or(usual);
    let mut drafts = 0_u64;
    for number in 0..incidents {
        let mut rng = StdRng::seed_from_u64(seed + number);
        let notice = invented(&mut rng, number, 100_000).map_texts(|text| redactor.clean(text));
        let later: Vec<Notice> = (0..rng.random_range(0..3) * rng.random_range(0..60))
            .map(|more| invented(&mut rng, number + more, 1000).map_texts(|text| redactor.clean(text)))
            .collect();
        let group: Vec<&Notice> = later.iter().collect();
        let late = rng.random::<bool>().then(|| SignedDuration::from_hours(20));
        let letter = templates.letter(&notice, &group, "channel", late, &redactor);
        for channel in &channels {
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                check(channel.as_ref(), &letter, &notice);
            }));
            assert!(checked.is_ok(), "{} with NOTIFY_SEED={}", channel.kind().name(), seed + number);
            drafts += 1;
        }
    }
    eprintln!(
        "{incidents} incidents, {drafts} messages on {} channels: no limit broken, nothing injected, no secret told",
        channels.len()
    );
}

#[test]
fn the_two_notices_of_a_disaster_read_as_they_should() {
    let redactor = Redactor::default();
    let templates = Templates::default();
    let mut notice = Notice::new(
        "a",
        "20261122T221354Z-3f9a2c01",
        Kind::Opened,
        Severity::P0,
        at(0),
        "Primary region is down",
    );
    notice.impact = "all customers".to_owned();
    notice.commander = Some("Ada".to_owned());
    notice.tiers = vec!["T1".to_owned(), "T2".to_owned()];
    notice.update_due = Some(at(900));
    let letter = templates.letter(&notice, &[], "room", None, &redactor);
    assert_eq!(letter.subject, "[P0] Primary region is down");
    assert_eq!(
        letter.body,
        "CRITICAL OUTAGE: Primary region is down\n\nSeverity: P0\nStatus: investigating\nImpact: all customers\n\
         Affected tiers: T1, T2\nBegan: 2027-01-15 08:00 UTC\nIncident commander: Ada\n\
         Next update by: 2027-01-15 08:15 UTC\nIncident: 20261122T221354Z-3f9a2c01"
    );
    notice.kind = Kind::Resolved;
    notice.downtime = Some(2700);
    notice.since = Some(at(0));
    notice.created = at(2700);
    notice.objectives =
        vec![backstay_notify::incident::Objective { name: "RTO".to_owned(), target: 900, reached: 2700 }];
    let letter = templates.letter(&notice, &[], "room", None, &redactor);
    assert_eq!(letter.subject, "[P0] Recovered, objective missed: Primary region is down");
    assert_eq!(
        letter.body,
        "Recovery is complete, but an objective was missed.\n\nDowntime: 45m\nRTO: 45m of 15m promised, MISSED\n\
         Began: 2027-01-15 08:00 UTC\nOver: 2027-01-15 08:45 UTC\nIncident: 20261122T221354Z-3f9a2c01"
    );
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).unwrap();
}

#[test]
fn templates_are_replaced_by_the_most_specific_file_and_errors_have_a_place() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "update.txt", "general {{ title }}\n\n{{ text }}\n");
    write(directory.path(), "update.P0.txt", "worst {{ title }}\n\n{{ text }}\n");
    write(directory.path(), "update.room.monitoring.txt", "watched {{ title }}\n\n{{ text }}\n");
    let (templates, errors) = Templates::with_directory(directory.path());
    assert_eq!(errors, []);
    assert_eq!(templates.lint().errors, []);
    let mut notice = Notice::new("a", "a", Kind::Update, Severity::P1, at(0), "t");
    let redactor = Redactor::default();
    let subject =
        |notice: &Notice, channel: &str| templates.letter(notice, &[], channel, None, &redactor).subject;
    assert_eq!(subject(&notice, "room"), "general t");
    notice.severity = Severity::P0;
    assert_eq!(subject(&notice, "room"), "worst t");
    notice.status = Some(Status::Monitoring);
    assert_eq!(subject(&notice, "room"), "watched t");
    assert_eq!(subject(&notice, "other"), "worst t");

    write(directory.path(), "opened.txt", "fine\n\n{% if severity %}\n  {{ titel }}\n{% endif %}\n");
    write(directory.path(), "resolved.txt", "fine\n\n{% if %}\n");
    write(directory.path(), "outage.txt", "x");
    write(directory.path(), "reminder.txt", "{% if false %}x{% endif %}");
    let (templates, mut errors) = Templates::with_directory(directory.path());
    errors.extend(templates.lint().errors);
    let mut shown: Vec<String> = errors
        .iter()
        .map(|error| {
            format!(
                "{}:{}:{} {}",
                error.file.file_name().unwrap().to_string_lossy(),
                error.line,
                error.column,
                error.problem.split(':').next().unwrap()
            )
        })
        .collect();
    shown.sort();
    assert_eq!(shown[0], "opened.txt:4:6 there is no such value");
    assert_eq!(shown[1], "outage.txt:1:1 \"outage\" is no kind of notice");
    assert_eq!(shown[2], "reminder.txt:1:1 its first line, which becomes the subject, is empty");
    assert!(shown[3].starts_with("resolved.txt:3:"), "{shown:?}");
    // What fails when it matters is replaced by the built-in one.
    notice.kind = Kind::Opened;
    assert_eq!(templates.letter(&notice, &[], "x", None, &redactor).subject, "[P0] t");
}
