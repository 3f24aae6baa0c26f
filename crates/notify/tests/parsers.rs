//! Everything that the crate reads from elsewhere, with inputs that are nearly right. `fuzz/` looks further.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

#[path = "support/properties.rs"]
mod properties;

use backstay_notify::incident::{Change, Event, IncidentId};
use backstay_notify::outbox::{Attempted, Parcel};
use backstay_notify::{Kind, Notice, Severity};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::Index;

fn cases(few: u32) -> ProptestConfig {
    ProptestConfig::with_cases(if std::env::var_os("BACKSTAY_SOAK").is_some() { few * 50 } else { few })
}

fn whole_records() -> Vec<u8> {
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let id = IncidentId::parse("20261122T221354Z-3f9a2c01").unwrap();
    let opened = Change::Opened {
        title: "down".to_owned(),
        text: "<script>".to_owned(),
        severity: Severity::P0,
        impact: "all".to_owned(),
        commander: Some("Ada".to_owned()),
        tiers: vec!["T1".to_owned()],
        key: Some("shop".to_owned()),
        since: Some(at),
    };
    let resolved = Change::Resolved { text: "over".to_owned(), receipts: Vec::new() };
    let events = [opened, Change::Acknowledged, Change::Fired { timer: "escalation-1".to_owned() }, resolved];
    let events: Vec<Event> =
        (1..).zip(events).map(|(number, change)| Event::new(id.clone(), number, at, "ada", change)).collect();
    let notice = Notice::new("n", "t", Kind::Opened, Severity::P0, at, "down").text("words");
    let parcel = Parcel::new(Some(notice), vec!["hook".to_owned()], events.first().cloned());
    let mut all = serde_json::to_vec(&parcel).unwrap();
    for record in [serde_json::to_vec(&Attempted::fresh(at)).unwrap(), id.to_string().into_bytes()]
        .into_iter()
        .chain(events.iter().map(|event| serde_json::to_vec(event).unwrap()))
    {
        all.push(0);
        all.extend(record);
    }
    all
}

/// Answers of services, nearly all of them right.
fn replies() -> impl Strategy<Value = Vec<u8>> {
    let head = prop::sample::select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.1 201 Created",
        "HTTP/1.1 202 Accepted",
        "HTTP/1.1 204 No Content",
        "HTTP/1.0 200",
        "HTTP/1.1 301 Moved",
        "HTTP/1.1 404 Not Found",
        "HTTP/1.1 429 Slow",
        "HTTP/1.1 503 Later",
        "HTTP/2 200",
        "HTTP/1.1 99 What",
        "HTTP/1.1 1000 What",
        "220 mail.example ESMTP",
        "",
    ]);
    let header = prop::sample::select(vec![
        "Retry-After: 3",
        "Retry-After: -1",
        "Retry-After: 99999999999999999999",
        "Retry-After: 1e400",
        "Retry-After: Sun, 99 Nov 2026 10:02:00 GMT",
        "Retry-After: \u{fffd}",
        "Content-Length: 5",
        "Content-Length: 99999999999",
        "Content-Length: -1",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "X: \u{1}",
        ": nothing",
        "no colon",
    ]);
    let body = prop::sample::select(vec![
        "",
        "ok",
        "{}",
        "[]",
        "null",
        r#"{"ok":true}"#,
        r#"{"ok":true,"ts":7,"channel":[]}"#,
        r#"{"ok":"yes"}"#,
        r#"{"ok":false,"error":"ratelimited"}"#,
        r#"{"ok":false,"error":{}}"#,
        r#"{"number":-1}"#,
        r#"{"key":7}"#,
        r#"[{"body":null,"number":{}}]"#,
        r#"{"issues":[{}]}"#,
        r#"{"id":"x"}"#,
        "FFFFFFFFFFFFFFFF\r\nx",
        "5\r\nhello\r\n0\r\n\r\n",
        "<html>Welcome to the hotel</html>",
        "\u{feff}{\"ok\":true}",
    ]);
    (head, prop::collection::vec(header, 0..4), body, any::<[u8; 4]>(), any::<Index>(), any::<bool>())
        .prop_map(|(head, headers, body, noise, at, is_noisy)| {
            let mut reply = format!("{head}\r\n").into_bytes();
            for header in headers {
                reply.extend_from_slice(format!("{header}\r\n").as_bytes());
            }
            reply.extend_from_slice(format!("\r\n{body}").as_bytes());
            if is_noisy {
                let at = at.index(reply.len());
                reply.splice(at..(at + 2).min(reply.len()), noise);
            }
            reply
        })
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn records_that_are_nearly_right_are_refused_or_understood(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        cut in any::<Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = whole_records();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        properties::records(&bytes);
    }

    #[test]
    fn answers_that_are_nearly_right_are_told_from_those_that_are(reply in replies()) {
        properties::replies(&reply);
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn words_of_all_kinds_stay_words(text in "(?s).{0,200}", more in "[<>&@#{}%\\\\=:\"'\\r\\n\u{202e}\u{200b}ä😀 a-z]{0,200}") {
        properties::words(&text);
        properties::words(&more);
        properties::words(&format!("{more}token={text}"));
    }

    #[test]
    fn templates_of_all_kinds_end_in_words_or_an_error_with_its_place(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "{{ title }}", "{{ title | upper }}", "{{ ", " }}", "{% if impact %}", "{% endif %}", "{% for x in tiers %}",
                "{{ x }}", "{% endfor %}", "{% for a in range(100000) %}", "{{ facts['x'] }}", "{{ titel }}", "{# ", " #}",
                "{% raw %}", "{% endraw %}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "\n", "\n\n", "ä😀", "{{ 1 // 0 }}",
                "{{ 'x' * 1000000000 }}", "{% include 'opened' %}", "{% extends 'file/opened' %}", "{{ [1] * 99999999 }}", "{{ self }}",
            ]),
            0..8,
        ),
    ) {
        properties::template(&parts.concat());
    }
}
