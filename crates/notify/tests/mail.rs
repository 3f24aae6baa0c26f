//! Mail against servers that greylist, refuse, say nothing, or cannot be trusted.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

#[path = "support/peers.rs"]
mod peers;
mod support;

use std::time::Duration;

use backstay_backup_core::secret::Secret;
use backstay_notify::Kind;
use backstay_notify::channel::email::{Email, Server};
use backstay_notify::channel::{Channel as _, Message};
use backstay_notify::redact::Redactor;
use backstay_notify::render::Templates;
use backstay_testkit::SmtpSink;
use base64::Engine as _;
use peers::{certificate, deliver, name, notice};

fn email(
    sink: &SmtpSink,
    scheme: &str,
    ca: Option<&std::path::Path>,
    login: Option<&str>,
    to: &[&str],
) -> Email {
    let url = format!("{scheme}://localhost:{}", sink.port());
    let mut server = Server::new(&url, Duration::from_secs(5));
    server.ca_file = ca;
    server.login = login.map(|password| ("backstay".to_owned(), Secret::new(password.to_owned())));
    let to: Vec<String> = to.iter().map(|to| (*to).to_owned()).collect();
    Email::new(&server, "Backstay <backstay@example.com>", &to).unwrap()
}

#[tokio::test]
async fn mail_threads_and_is_the_same_message_when_it_is_sent_again() {
    let sink = SmtpSink::start(&[]).unwrap();
    let email = email(&sink, "smtp", None, None, &["oncall@example.com", "boss@example.com"]);
    let mut umlauts = notice(Kind::Opened, 1);
    umlauts.title = "Störung: Kunden können sich nicht anmelden 😀\r\nBcc: evil@example.com".to_owned();
    for _ in 0..2 {
        assert_eq!(name(&deliver(&email, &umlauts, None).await), "accepted");
    }
    assert_eq!(name(&deliver(&email, &notice(Kind::Update, 2), None).await), "accepted");
    let mails = sink.mails().unwrap();
    assert_eq!(mails.len(), 3);
    assert_eq!(mails[0].header("Message-ID"), mails[1].header("Message-ID"));
    assert_ne!(mails[0].header("Message-ID"), mails[2].header("Message-ID"));
    assert_eq!(mails[2].header("References"), mails[0].header("Message-ID"));
    assert_eq!(mails[0].to, ["oncall@example.com", "boss@example.com"]);
    assert_eq!(
        (mails[0].header("Bcc"), mails[0].header("Auto-Submitted").as_deref()),
        (None, Some("auto-generated"))
    );
    assert_eq!(mails[0].header("Importance").as_deref(), Some("high"));
    // It becomes worse: a mailbox that knows the first mail must not take this one for the same.
    let worse = notice(Kind::Opened, 3);
    for told in [&worse, &umlauts] {
        deliver(&email, told, Some(&umlauts.id)).await;
    }
    let mails = sink.mails().unwrap();
    assert_ne!(mails[3].header("Message-ID"), mails[0].header("Message-ID"));
    assert_eq!(mails[3].header("References"), mails[0].header("Message-ID"));
    assert_eq!(mails[4].header("Message-ID"), mails[0].header("Message-ID"), "the first one again");
}

#[tokio::test]
async fn mail_servers_are_only_trusted_with_tls_that_can_be_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(directory.path());
    let ca = std::path::Path::new(&certificate);
    let starttls = SmtpSink::start(&[
        "--starttls",
        "--certificate",
        &certificate,
        "--key",
        &key,
        "--password",
        "right horse",
    ])
    .unwrap();
    let to = ["oncall@example.com"];
    let strange =
        deliver(&email(&starttls, "smtp", None, Some("right horse"), &to), &notice(Kind::Opened, 1), None)
            .await;
    assert_eq!(name(&strange), "later", "{strange:?}");
    let trusted = email(&starttls, "smtp", Some(ca), Some("right horse"), &to);
    assert_eq!(name(&deliver(&trusted, &notice(Kind::Opened, 1), None).await), "accepted");
    let wrong = deliver(
        &email(&starttls, "smtp", Some(ca), Some("wrong horse"), &to),
        &notice(Kind::Opened, 1),
        None,
    )
    .await;
    assert_eq!(name(&wrong), "refused", "{wrong:?}");
    assert!(!format!("{wrong:?}").contains("wrong horse"));
    let mails = starttls.mails().unwrap();
    assert_eq!((mails.len(), mails[0].tls, mails[0].authenticated), (1, true, true));
    let wrapped = SmtpSink::start(&["--wrapped", "--certificate", &certificate, "--key", &key]).unwrap();
    let over_tls = email(&wrapped, "smtps", Some(ca), None, &to);
    assert_eq!(name(&deliver(&over_tls, &notice(Kind::Opened, 1), None).await), "accepted");
    assert_eq!(wrapped.mails().unwrap().len(), 1);
}

/// The part that mail programs show has no tag that is not ours.
#[test]
fn no_text_becomes_a_tag_in_a_mail() {
    let server = Server::new("smtps://mail.example", Duration::from_secs(1));
    let email = Email::new(&server, "backstay@example.com", &["oncall@example.com".to_owned()]).unwrap();
    let mut evil = notice(Kind::Opened, 1);
    evil.title = "<script>1</script>".to_owned();
    evil.text = "</pre><img src=x>".to_owned();
    let letter = Templates::default().letter(&evil, &[], "mail", None, &Redactor::default());
    let draft = email.draft(&Message::new(&evil, &letter, support::at(0))).remove(0);
    let text = String::from_utf8(draft.body).unwrap();
    let (head, part) = text.split_once("text/html").unwrap().1.split_once("\r\n\r\n").unwrap();
    let html = if head.contains("base64") {
        let lines: String = part.lines().take_while(|line| !line.starts_with("--")).collect();
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(lines).unwrap()).unwrap()
    } else {
        part.replace("=\r\n", "")
    };
    assert!(html.contains("&lt;script&gt;") && html.contains("&lt;img"), "{html}");
    assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
}

/// A server that is not this machine gets no word in the clear, unless the configuration says so.
#[tokio::test]
async fn mail_goes_to_no_other_machine_without_tls() {
    let sink = SmtpSink::start(&[]).unwrap();
    // The same machine, by a name that does not say so.
    let url = format!("smtp://127.1:{}", sink.port());
    for insecure in [false, true] {
        let mut server = Server::new(&url, Duration::from_secs(5));
        server.insecure = insecure;
        let email = Email::new(&server, "backstay@example.com", &["oncall@example.com".to_owned()]).unwrap();
        let outcome = deliver(&email, &notice(Kind::Opened, 1), None).await;
        assert_eq!(name(&outcome) == "accepted", insecure, "{outcome:?}");
        assert_eq!(sink.mails().unwrap().len(), usize::from(insecure));
    }
}

#[tokio::test]
async fn mail_servers_that_say_later_no_or_nothing_are_understood() {
    let to = ["oncall@example.com"];
    let grey = SmtpSink::start(&["--greylist", "1"]).unwrap();
    let channel = email(&grey, "smtp", None, None, &to);
    assert_eq!(name(&deliver(&channel, &notice(Kind::Opened, 1), None).await), "later");
    assert_eq!(name(&deliver(&channel, &notice(Kind::Opened, 1), None).await), "accepted");
    let refusing = SmtpSink::start(&["--reject-data"]).unwrap();
    let outcome = deliver(&email(&refusing, "smtp", None, None, &to), &notice(Kind::Opened, 1), None).await;
    assert_eq!(name(&outcome), "refused", "{outcome:?}");
    // One address of two is gone: the other one is told all the same.
    let partly = SmtpSink::start(&["--refuse-address", "gone"]).unwrap();
    let both = email(&partly, "smtp", None, None, &["gone@example.com", "oncall@example.com"]);
    assert_eq!(name(&deliver(&both, &notice(Kind::Opened, 1), None).await), "accepted");
    assert_eq!(partly.mails().unwrap()[0].to, ["oncall@example.com"]);
    let gone = email(&partly, "smtp", None, None, &["gone@example.com"]);
    assert_eq!(name(&deliver(&gone, &notice(Kind::Opened, 1), None).await), "refused");
    // It takes the mail and never says so: sent again, it is the same message.
    let silent = SmtpSink::start(&["--silent-data", "1"]).unwrap();
    let channel = email(&silent, "smtp", None, None, &to);
    let outcome = deliver(&channel, &notice(Kind::Opened, 1), None).await;
    assert!(matches!(name(&outcome), "unknown" | "later"), "{outcome:?}");
    assert_eq!(name(&deliver(&channel, &notice(Kind::Opened, 1), None).await), "accepted");
    let mails = silent.mails().unwrap();
    assert_eq!(mails[0].header("Message-ID"), mails[1].header("Message-ID"));
}
