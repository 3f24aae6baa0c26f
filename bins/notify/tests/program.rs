//! `send-notification` and what the other programs tell, as processes.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backstay_testkit::{Answer, HttpSink};
use support::Bench;

#[test]
fn an_incident_from_the_command_line() {
    let bench = Bench::new("rto = \"15m\"");
    let opened = bench.json(&[
        "open",
        "--severity",
        "P0",
        "--title",
        "down",
        "--since",
        "2020-01-01T00:00:00Z",
        "--key",
        "shop",
    ]);
    let id = opened["incident"]["id"].as_str().unwrap().to_owned();
    assert_eq!(opened["incident"]["timeline"][0]["by"], "ada");
    let again = bench.json(&["open", "--severity", "P0", "--title", "down", "--key", "shop"]);
    assert_eq!(again["incident"]["id"], id.as_str());
    bench.json(&["ack", &id[..17], "--by", "grace"]);
    bench.json(&["update", "shop", "--text", "the disk is full", "--status", "identified"]);
    std::fs::write(bench.path("restore.json"), "{\"rto-millis\": 90000, \"target\": \"shop\"}").unwrap();
    let receipt = bench.path("restore.json");
    bench.json(&["resolve", "shop", "--receipt", receipt.to_str().unwrap()]);
    assert_eq!(bench.kinds(), ["opened", "acknowledged", "update", "resolved"]);
    let text = bench.sink.received()[3].json()["data"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("MISSED") && text.contains("Restore of shop: 1m30s of 15m promised"), "{text}");
    let (code, shown, _) = bench.run(&["show", &id]);
    assert!(
        code == 0
            && shown.contains("- Acknowledged: ")
            && shown.contains("**identified** the disk is full (ada)"),
        "{shown}"
    );
    assert_eq!(bench.run(&["list"]).1, "no incident is open\n");
    assert_eq!(bench.run(&["update", &id, "--text", "x"]).0, 4);
    assert_eq!(bench.run(&["update", "20200101", "--text", "x"]).0, 1);
    assert_eq!(bench.run(&["resolve", ""]).0, 1, "a script that lost the name");
}

#[test]
fn bad_input_ends_in_one_error_and_nothing_is_told() {
    let bench = Bench::new("");
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["send", "--title", "x", "--channel", "nobody"], "no channel is called \"nobody\""),
        (vec!["open", "--severity", "P7", "--title", "x"], "none of P0, P1, P2, P3"),
        (vec!["update", "x", "--text", "x", "--status", "resolved"], "an incident ends with"),
        (vec!["open", "--severity", "P1", "--title", "x", "--since", "yesterday"], "yesterday"),
        (vec!["resolve", "x", "--receipt", "/no/such/file"], "cannot use the receipt"),
        (vec![], "Usage"),
    ];
    for (arguments, words) in cases {
        let (code, _, stderr) = bench.run(&arguments);
        assert!(code == 2 && stderr.contains(words), "{arguments:?}: {code} {stderr}");
    }
    let broken = |text: &str| {
        std::fs::write(bench.path("backstay.toml"), text).unwrap();
        bench.run(&["send", "--title", "x"])
    };
    let refused = [
        (
            "[[notify.channel]]\nname = \"a\"\nkind = \"pigeon\"",
            "bad value of `notify.channel.a.kind` at line 3",
        ),
        ("[[notify.channel]]\nname = \"a\"\nkind = \"slack\"", "`notify.channel.a.token`"),
        (
            "[[notify.channel]]\nname = \"a\"\nkind = \"command\"\ncommand = [\"x\"]\n[notify.policy.p0]\nchannels = [\"b\"]",
            "no channel is called \"b\"",
        ),
        (
            "[[notify.channel]]\nname = \"a\"\nkind = \"command\"\ncommand = [\"x\"]\nfallback = \"a\"",
            "\"a\" is no other channel",
        ),
        ("[notify]\nstate = \"state\"", "no channel is configured"),
        ("[notify.on]\nfailure = \"high\"", "\"high\" is not one of"),
    ];
    for (text, words) in refused {
        let (code, _, stderr) = broken(text);
        assert!(code == 2 && stderr.contains(words), "{text}: {code} {stderr}");
    }
    let (code, _, stderr) = broken(
        "[notify]\nstate = \"/dev/null/x\"\n[[notify.channel]]\nname = \"a\"\nkind = \"command\"\ncommand = [\"x\"]",
    );
    assert!(code == 2 && stderr.contains("hint: set notify.state"), "{stderr}");
    assert!(bench.sink.received().is_empty());
}

#[test]
fn lint_finds_missing_secrets_and_broken_templates_with_their_place() {
    let bench = Bench::new("templates = \"templates\"");
    std::fs::create_dir(bench.path("templates")).unwrap();
    std::fs::write(bench.path("templates/update.txt"), "News\n\n{{ titel }}\n").unwrap();
    let mut file = std::fs::read_to_string(bench.path("backstay.toml")).unwrap();
    file.push_str(
        "[[notify.channel]]\nname = \"pager\"\nkind = \"pagerduty\"\ntoken = { env = \"NO_SUCH_KEY\" }\n",
    );
    std::fs::write(bench.path("backstay.toml"), file).unwrap();
    let (code, stdout, _) = bench.run(&["lint"]);
    assert_eq!(code, 2);
    assert!(stdout.contains("! channel pager: environment variable NO_SUCH_KEY is not set"), "{stdout}");
    assert!(stdout.contains("templates/update.txt:3:4: there is no such value"), "{stdout}");
    // The channel that works is used all the same.
    let (code, stdout, stderr) =
        bench.run(&["send", "--title", "x", "--channel", "hook", "--channel", "pager"]);
    assert!(
        code == 0 && stdout.contains("told hook") && stdout.contains("waits for pager"),
        "{stdout}{stderr}"
    );
    assert!(!format!("{stdout}{stderr}").contains("secret-path-of-hook"));
}

#[test]
fn what_waits_is_delivered_by_a_later_tick_and_the_heartbeat_says_how_it_went() {
    let heart = HttpSink::start(|_, _| Answer::ok("OK")).unwrap();
    let bench = Bench::new(&format!("heartbeat = \"{}\"", heart.url("/ping/x")));
    bench.sink.answer(|_, _| Answer::status(500));
    let sent = bench.json(&["send", "--title", "hello"]);
    assert_eq!(sent["waiting"][0]["channel"], "hook");
    bench.sink.answer(|_, _| Answer::ok(""));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let report = bench.json(&["tick"]);
        if report["delivered"].as_array().is_some_and(|all| !all.is_empty()) {
            break;
        }
    }
    assert_eq!(bench.sink.received().last().unwrap().json()["data"]["title"], "hello");
    assert_eq!(heart.received().last().unwrap().path, "/ping/x");
    bench.sink.answer(|_, _| Answer::status(404));
    assert_eq!(bench.run(&["send", "--title", "lost"]).0, 3);
    bench.json(&["tick"]);
}

#[test]
fn a_service_delivers_what_others_put_into_the_outbox_and_stops_in_order() {
    let bench = Bench::new("");
    let mut service = bench.command(&["tick", "--follow"]).stderr(Stdio::null()).spawn().unwrap();
    bench.sink.answer(|_, number| if number == 0 { Answer::limited(1) } else { Answer::ok("") });
    bench.json(&["send", "--title", "hello"]);
    let begun = Instant::now();
    while bench.sink.received().len() < 2 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(bench.sink.received().len(), 2);
    assert!(Command::new("kill").arg(service.id().to_string()).status().unwrap().success());
    assert!(service.wait().unwrap().code().is_some(), "it ended by itself");
}

/// A name of any kind says that it is the same message, also where only plain characters can say so.
#[test]
fn a_notice_with_a_name_is_told_once_whatever_the_name_is() {
    let bench = Bench::new("");
    let long = "x".repeat(3000);
    let longer = format!("{long}y");
    for id in ["nightly-1", "Störung der Nacht\n2", "Strung der Nacht\n2", &*long, &*longer] {
        for _ in 0..2 {
            bench.json(&["send", "--title", "hello", "--id", id]);
        }
        assert_eq!(bench.sink.received().len(), 1, "{id}");
        bench.sink.forget();
    }
}

/// What another host wrote into the repository is shown on this one's terminal.
#[test]
fn no_word_of_an_incident_reaches_the_terminal_as_a_command() {
    let bench = Bench::new("");
    let evil = "\u{1b}[2J\u{1b}]0;x\u{7}evil";
    let report = serde_json::json!({ "millis": 5, "target": evil }).to_string();
    std::fs::write(bench.path("restore.json"), report).unwrap();
    let opened = [
        "open",
        "--severity",
        "P2",
        "--title",
        evil,
        "--text",
        evil,
        "--impact",
        evil,
        "--commander",
        evil,
        "--tier",
        evil,
        "--by",
        evil,
        "--key",
        "shop",
    ];
    let receipt = bench.path("restore.json");
    for arguments in [
        &opened[..],
        &["update", "shop", "--text", evil, "--by", evil],
        &["ack", "shop", "--by", evil],
        &["list"],
        &["resolve", "shop", "--text", evil, "--receipt", receipt.to_str().unwrap()],
        &["show", "shop"],
        &["list", "--all"],
        &["send", "--title", evil],
    ] {
        let (code, stdout, stderr) = bench.run(arguments);
        assert_eq!(code, 0, "{stdout}{stderr}");
        let harmless = |text: &str| text.chars().all(|c| !c.is_control() || c == '\n');
        assert!(harmless(&stdout) && harmless(&stderr), "{arguments:?}: {stdout:?} {stderr:?}");
    }
}

/// A service that started before its secrets could be had gets them later.
#[test]
fn a_service_uses_a_channel_whose_secret_comes_later() {
    let bench = Bench::new("");
    let mut file = std::fs::read_to_string(bench.path("backstay.toml")).unwrap();
    file.push_str(&format!(
        "[[notify.channel]]\nname = \"late\"\nkind = \"webhook\"\nurl = {{ file = \"{}\" }}\n",
        bench.path("late-url").display()
    ));
    std::fs::write(bench.path("backstay.toml"), file).unwrap();
    let mut service = bench.command(&["tick", "--follow"]).stderr(Stdio::null()).spawn().unwrap();
    bench.json(&["send", "--title", "hello", "--channel", "late"]);
    std::fs::write(bench.path("late-url"), bench.sink.url("/late")).unwrap();
    let begun = Instant::now();
    while bench.sink.received().is_empty() && begun.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(bench.sink.received().len(), 1);
    assert!(Command::new("kill").arg(service.id().to_string()).status().unwrap().success());
    service.wait().unwrap();
}

/// The limit of a file's size stands in for a disk without room.
#[test]
fn a_service_outlives_a_disk_that_is_full_for_a_while() {
    let bench = Bench::new("");
    bench.sink.answer(|_, _| Answer::status(500));
    bench.json(&["send", "--title", "hello"]);
    bench.sink.forget();
    bench.sink.answer(|_, _| Answer::ok(""));
    let follow = bench.command(&["tick", "--follow"]);
    let mut service = Command::new("/bin/sh");
    service.args(["-c", "trap '' XFSZ; ulimit -S -f 0; exec \"$0\" \"$@\""]).arg(follow.get_program());
    service.args(follow.get_args()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", bench.path(""));
    let mut service = service.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Its message is due within seconds, and cannot be noted down before it is sent.
    std::thread::sleep(Duration::from_secs(12));
    assert!(service.try_wait().unwrap().is_none(), "it goes on");
    assert!(bench.sink.received().is_empty(), "nothing is sent that is not noted");
    let pid = service.id().to_string();
    let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().unwrap();
    assert!(lifted.success());
    let begun = Instant::now();
    while bench.sink.received().is_empty() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(bench.sink.received().len(), 1);
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    service.wait().unwrap();
}

#[test]
fn the_help_fits_a_screen() {
    for arguments in [&["--help"][..], &["open", "--help"], &["tick", "--help"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_send-notification")).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && (5..48).contains(&text.lines().count()), "{text}");
    }
}
