//! The status page: looked at with a real browser, kept up to date by every program, in a directory and in a bucket.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backstay_backup_core::key::Key;
use backstay_backup_core::secret::Secret;
use backstay_backup_core::store::ObjectStore as _;
use backstay_notify::{Opening, Resolution, Severity, Update};
use backstay_storage_s3::{Credentials, S3Store};
use backstay_testkit::s3::{Credential, S3Options, S3Server};
use backstay_testkit::{Answer, HttpSink};
use futures::TryStreamExt as _;
use support::{Bench, notifier};

const EVIL: &str = "Störung </script><script>document.title='hacked'</script><img src=http://127.0.0.1:1/x>";

/// A page as a bad week leaves it.
fn busy(bench: &Bench) {
    let open = |severity, title, more: &[&str]| {
        let told = bench.json(&[&["open", "--severity", severity, "--title", title][..], more].concat());
        told["incident"]["id"].as_str().unwrap().to_owned()
    };
    let past = open("P2", "Nightly backup failed twice", &["--since", "2026-11-20T02:00:00Z"]);
    bench.json(&["update", &past, "--text", "The bucket's policy had changed.", "--status", "identified"]);
    bench.json(&["resolve", &past, "--text", "The policy is back; both backups were made again."]);
    let worst = open(
        "P0",
        "Primary region is down",
        &[
            "--impact",
            "all customers: no logins, no orders",
            "--tier",
            "T1",
            "--tier",
            "T2",
            "--commander",
            "Ada",
        ],
    );
    bench.json(&["ack", &worst, "--by", "grace"]);
    let news = [
        ("investigating", "Connections to the database time out in two of three zones."),
        (
            "identified",
            "The disk of the primary is full. Writes stopped at 09:12; reads go on from the standby.",
        ),
        (
            "monitoring",
            "The standby was promoted and takes writes.\nWe watch it for half an hour before we say that it is over.",
        ),
    ];
    for (status, text) in news {
        bench.json(&["update", &worst, "--text", text, "--status", status]);
    }
    open("P1", EVIL, &["--impact", &"some-customers-with-a-very-long-name-".repeat(12)]);
}

/// A page as a bad quarter leaves it: 130 incidents that are over, and 14 that are not.
fn crowded(bench: &Bench) {
    let begin = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 60);
    let (notifier, clock) = notifier(bench, begin);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for number in 0..144_u32 {
        clock.advance(jiff::SignedDuration::from_mins(580));
        let severity = Severity::ALL[(number % 4) as usize];
        let mut opening = Opening::new(severity, &format!("Replica {number} lags behind its primary"), "ada");
        opening.impact = "reports are older than they say".to_owned();
        let id = runtime.block_on(notifier.open_incident(&opening)).unwrap().incident.id;
        clock.advance(jiff::SignedDuration::from_mins(9));
        let news =
            Update::new("A long transaction holds back what can be replayed; it is being looked for.", "ada");
        runtime.block_on(notifier.update_incident(id.as_str(), &news)).unwrap();
        clock.advance(jiff::SignedDuration::from_mins(7));
        if number < 130 {
            let end = Resolution::new("The transaction ended, and the replica is level.", "ada");
            runtime.block_on(notifier.resolve_incident(id.as_str(), &end)).unwrap();
        }
    }
}

/// A web server over a directory.
fn served(directory: &Path) -> HttpSink {
    let directory = directory.to_owned();
    HttpSink::start(move |request, _| {
        let page = std::fs::read_to_string(directory.join(request.path.trim_start_matches('/')));
        page.map_or_else(
            |_| Answer::status(404),
            |text| Answer::Status(200, vec![("Content-Type", "text/html; charset=utf-8".to_owned())], text),
        )
    })
    .unwrap()
}

/// Nothing is loaded, nothing fails, and it can be read: by day and by night, on a desk and on a phone.
#[test]
fn the_status_page_is_whole_in_a_browser() {
    let bench = Bench::new("status-title = \"Example\"");
    let page = bench.path("www");
    let write = || bench.json(&["page", "--directory", page.to_str().unwrap()]);
    write();
    let server = served(&page);
    shots(&bench, &server, "calm");
    busy(&bench);
    write();
    let (dom, log) = browser(&bench, &server.url("/index.html"), &["--dump-dom"]);
    assert!(dom.contains("<title>Example: Major outage</title>"), "{dom}");
    assert!(dom.contains("Störung &lt;/script&gt;"), "{dom}");
    assert!(dom.contains("id=\"old\" hidden"), "the script ran and found the page fresh");
    assert!(!log.contains("CONSOLE"), "{log}");
    shots(&bench, &server, "busy");
    let crowd = Bench::new("status-title = \"Example\"");
    crowded(&crowd);
    crowd.json(&["page", "--directory", page.to_str().unwrap()]);
    shots(&crowd, &server, "crowded");
    let html = std::fs::read_to_string(page.join("index.html")).unwrap();
    assert_eq!(html.matches("<article").count(), 114, "the newest hundred of the past, and whatever is open");
    write();
    // A page that nobody made anew for an hour says so.
    let html = std::fs::read_to_string(page.join("index.html")).unwrap();
    let stamp = html.split("datetime=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    std::fs::write(page.join("index.html"), html.replacen(&stamp, "2020-01-01T00:00:00Z", 1)).unwrap();
    let (dom, _) = browser(&bench, &server.url("/index.html"), &["--dump-dom"]);
    assert!(dom.contains("<strong id=\"old\">"), "{dom}");
    let asked: Vec<String> = server.received().into_iter().map(|request| request.path).collect();
    assert!(asked.iter().all(|path| path == "/index.html"), "nothing else is loaded: {asked:?}");
}

/// Words that somebody pasted: without a blank, from right to left, with signs of several characters.
fn unruly(bench: &Bench) {
    let long = "x".repeat(400);
    let open = |severity: &str, title: &str, impact: &str| {
        let tier = "tier".repeat(60);
        let told = bench.json(&[
            "open",
            "--severity",
            severity,
            "--title",
            title,
            "--impact",
            impact,
            "--tier",
            &tier,
        ]);
        told["incident"]["id"].as_str().unwrap().to_owned()
    };
    open("P0", &long, &long);
    let past = open("P2", "خادم قاعدة البيانات لا يستجيب (db-1)", "כל הלקוחות");
    bench.json(&["resolve", &past, "--text", &long]);
    let news = open("P3", "🔥 日本語のタイトル 👩\u{200d}👩\u{200d}👧 🇩🇪", "");
    for number in 1..=9 {
        let text = format!("השרת db-1 חזר ({number}%) {long}");
        bench.json(&["update", &news, "--text", &text, "--status", "monitoring"]);
    }
}

/// At the width of a small phone nothing has to be moved sideways, whatever the words are; and no word is missing,
/// also where the earlier ones are folded away.
#[test]
fn nothing_on_the_page_is_wider_than_a_phone() {
    let bench = Bench::new(&format!("status-title = \"{}\"", "Example".repeat(40)));
    unruly(&bench);
    let page = bench.path("www");
    bench.json(&["page", "--directory", page.to_str().unwrap()]);
    let html = std::fs::read_to_string(page.join("index.html")).unwrap();
    assert!(html.contains("<summary>5 earlier entries</summary>"), "{html}");
    for number in 1..=9 {
        assert!(html.contains(&format!("<p dir=\"auto\">השרת db-1 חזר ({number}%)")), "{number}");
    }
    assert!(html.contains("<h3 dir=\"auto\">خادم"), "{html}");
    // A browser without a screen makes no window this small, but a frame.
    let frame = "<!doctype html><iframe id=f src=index.html style=\"width:360px;height:800px;border:0\"></iframe>\
                 <script>f.onload = function () { var page = f.contentDocument; \
                 page.querySelectorAll('details').forEach(function (all) { all.open = true; }); \
                 document.title = page.documentElement.scrollWidth + ' of ' + f.clientWidth; }</script>";
    std::fs::write(page.join("frame.html"), frame).unwrap();
    let server = served(&page);
    let (dom, _) = browser(&bench, &server.url("/frame.html"), &["--dump-dom"]);
    assert!(dom.contains("<title>360 of 360</title>"), "{dom}");
}

/// Screenshots, which `BACKSTAY_KEEP_SCREENSHOTS=<folder>` keeps for somebody to look at.
fn shots(bench: &Bench, server: &HttpSink, state: &str) {
    for (place, size) in [("phone", "390,1400"), ("desk", "1280,1400")] {
        let mut bytes = Vec::new();
        for (light, scheme) in [("day", 1), ("night", 0)] {
            let name = format!("{state}-{place}-{light}.png");
            let shot = bench.path(&name);
            let (shot_flag, size) =
                (format!("--screenshot={}", shot.display()), format!("--window-size={size}"));
            let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
            browser(bench, &server.url("/index.html"), &[&shot_flag, &size, &scheme]);
            bytes.push(std::fs::read(&shot).unwrap());
            if let Some(keep) = std::env::var_os("BACKSTAY_KEEP_SCREENSHOTS") {
                std::fs::copy(&shot, Path::new(&keep).join(name)).unwrap();
            }
        }
        assert!(bytes.iter().all(|bytes| bytes.len() > 5000), "{state} on a {place}");
        assert_ne!(bytes[0], bytes[1], "day and night look different");
    }
}

fn browser(bench: &Bench, url: &str, arguments: &[&str]) -> (String, String) {
    let output = Command::new("chromium")
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"])
        .args(["--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", bench.path("profile").display()))
        .args(arguments)
        .arg(url)
        .output()
        .expect("chromium is there: scripts/setup.sh --sinks installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// The page in the bucket.
async fn published(endpoint: &str) -> Option<String> {
    let credentials = Credentials::Static {
        access_key_id: "pages".to_owned(),
        secret_access_key: Secret::new("secret-of-pages".to_owned()),
        session_token: None,
    };
    let options = backstay_storage_s3::S3Options::new("pages").region("eu-central-1").endpoint(endpoint);
    let store = S3Store::open(options.path_style(true).credentials(credentials)).await.ok()?;
    let opened = store.get(&Key::parse("public/index.html").ok()?, None).await.ok()?;
    let chunks: Vec<bytes::Bytes> = opened.body.try_collect().await.ok()?;
    String::from_utf8(chunks.concat()).ok()
}

/// Reads a page until it says something.
fn until_it_says(read: impl Fn() -> String, words: &str) {
    let begun = Instant::now();
    let mut page = String::new();
    while begun.elapsed() < Duration::from_secs(60) {
        page = read();
        if page.contains(words) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the page never said {words:?}: {page}");
}

#[test]
fn every_change_of_an_incident_is_on_the_page_in_a_directory_and_in_a_bucket() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options =
        S3Options::memory().bucket("pages").credential(Credential::admin("pages", "secret-of-pages"));
    let s3 = runtime.block_on(S3Server::start(options)).unwrap();
    let endpoint = s3.endpoint();
    let bench = Bench::new(&format!(
        "status-page = \"www\"\nstatus-bucket = {{ bucket = \"pages\", prefix = \"public\", endpoint = \"{}\", \
         path-style = true, region = \"eu-central-1\", access-key-id = \"pages\", \
         secret-access-key = {{ env = \"PAGES_SECRET\" }} }}",
        endpoint
    ));
    let run = |arguments: &[&str]| {
        let output = bench.command(arguments).env("PAGES_SECRET", "secret-of-pages").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let page = || std::fs::read_to_string(bench.path("www/index.html")).unwrap_or_default();
    let bucket = || runtime.block_on(published(&endpoint)).unwrap_or_default();
    // By whoever changes it.
    run(&["open", "--severity", "P1", "--title", "slow", "--key", "shop"]);
    assert!(page().contains("Partial outage") && bucket() == page(), "{}", bucket());
    run(&["resolve", "shop", "--text", "fast again"]);
    assert!(page().contains("No open incident") && bucket().contains("fast again"));
    // By the service, when another process changes it: as a task of cron without rights to the page would.
    let mut service = bench
        .command(&["tick", "--follow"])
        .env("PAGES_SECRET", "secret-of-pages")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let config = std::fs::read_to_string(bench.path("backstay.toml")).unwrap();
    let without: String =
        config.lines().filter(|line| !line.starts_with("status-")).map(|line| format!("{line}\n")).collect();
    std::fs::write(bench.path("task.toml"), without).unwrap();
    let mut task = Command::new(env!("CARGO_BIN_EXE_send-notification"));
    task.args(["open", "--severity", "P0", "--title", "down", "--config"]).arg(bench.path("task.toml"));
    assert!(task.env_clear().stdout(Stdio::null()).status().unwrap().success());
    until_it_says(page, "Major outage");
    until_it_says(bucket, "Major outage");
    assert!(Command::new("kill").arg(service.id().to_string()).status().unwrap().success());
    service.wait().unwrap();
    // A bucket that is gone is a warning, and the page in the directory is written all the same.
    drop(s3);
    let warnings = run(&["send", "--title", "x"]);
    assert_eq!(warnings, "", "a notice changes no incident");
    let incident = bench.json(&["list"])["incidents"][0]["id"].as_str().unwrap().to_owned();
    let warnings = run(&["update", &incident, "--text", "the bucket is down too"]);
    assert!(warnings.contains("status page not written"), "{warnings}");
    assert!(page().contains("the bucket is down too"));
}
