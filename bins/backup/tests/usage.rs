//! What programs say before they touch anything: help, usage and configuration errors.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::io::Read;
use std::process::Stdio;

use support::{Bench, PROGRAMS, files};

const SCREEN: usize = 48;

#[test]
fn help_fits_a_screen_and_shows_a_cron_line() {
    let bench = Bench::new();
    for program in PROGRAMS {
        let help = bench.run(program, &["--help"]).expect(0);
        let lines = help.stdout.lines().count();
        assert!(lines <= SCREEN, "{program}: {lines} lines");
        assert!(help.stdout.lines().all(|line| line.chars().count() <= 110), "{}", help.stdout);
        let cron = help.stdout.lines().any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.get(5) == Some(&program)
                && fields[..2].iter().all(|field| field.parse::<u8>().is_ok() || *field == "*")
        });
        assert!(cron, "no cron line of {program}:\n{}", help.stdout);
        assert_eq!(help.stderr, "");
        let version = bench.run(program, &["--version"]).expect(0);
        assert_eq!(version.stdout, format!("{program} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn every_program_asks_for_a_repository_in_the_same_words() {
    let mut bench = Bench::new();
    bench.set("BACKSTAY_POSTGRES_URL", "postgresql://u@127.0.0.1:1/d");
    for program in ["check-storage", "list-backups", "prune-backups", "verify-backups"] {
        let ended = bench.run(program, &[] as &[&str]).expect(2);
        assert_eq!(
            ended.stderr,
            "error: no repository is configured\n\
             hint: add --repository ./backups, or a [[repository]] section to the configuration\n"
        );
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn a_misspelt_key_is_refused_with_its_line() {
    let bench = Bench::new();
    bench.write("backstay.toml", "stanza = \"shop\"\n\n[[repositry]]\npath = \"x\"\n");
    let ended = bench.run("list-backups", &[] as &[&str]).expect(2);
    assert_eq!(
        ended.stderr,
        "error: unknown key `repositry` at line 3 of backstay.toml: did you mean `repository`?\n"
    );
    let (ended, error) = bench.json("list-backups", &[]);
    assert_eq!(
        (ended.code, &error["error"]["class"], &error["error"]["exit-code"]),
        (2, &"usage".into(), &2.into())
    );
}

#[test]
fn bad_flags_end_with_a_usage_error_in_both_forms() {
    let bench = Bench::new();
    for args in [["--no-such-flag"], ["--log-level=loud"], ["--option=x"], ["--option=compression.level=99"]]
    {
        let ended = bench.run("list-backups", &args).expect(2);
        assert!(ended.stderr.starts_with("error: "), "{args:?}: {}", ended.stderr);
        let (ended, error) = bench.json("list-backups", &args);
        assert_eq!(ended.code, 2);
        assert!(!error["error"]["message"].as_str().unwrap().is_empty());
    }
    let missing = bench.run("list-backups", &["--config", "missing.toml"]).expect(2);
    assert!(
        missing.stderr.starts_with("error: cannot read configuration file missing.toml: "),
        "{}",
        missing.stderr
    );
}

#[test]
fn reading_programs_never_create_a_repository() {
    let bench = Bench::new();
    for program in ["list-backups", "prune-backups", "verify-backups"] {
        let missing = bench.run(program, &["--repository", "./new"]).expect(2);
        assert!(missing.stderr.starts_with("error: the store at "), "{}", missing.stderr);
        assert!(!bench.path("new").exists());
        let other = bench.run(program, &["--repository", "."]).expect(2);
        assert!(
            other.stderr.contains(" is not a Backstay repository\nhint: check the place; "),
            "{}",
            other.stderr
        );
    }
}

#[test]
fn a_backup_that_cannot_start_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let unreachable = ["--repository", "./new", "--database-url", "postgresql://u@127.0.0.1:1/d"];
    let ended = bench.run("backup-database", &unreachable).expect(5);
    assert!(ended.stderr.starts_with("error: cannot connect to 127.0.0.1:1"), "{}", ended.stderr);
    let bad = ["--repository", "./new", "--database-url", "mysql://u@h/d"];
    let ended = bench.run("backup-database", &bad).expect(2);
    assert!(ended.stderr.contains("in --database-url: write it as postgresql://"), "{}", ended.stderr);
    bench.set("BACKSTAY_POSTGRES_PASSWORD", "hunter2");
    let ended = bench.run("backup-database", &["--repository", "gs://bucket"]).expect(2);
    assert!(ended.stderr.contains("gs:// is not supported"), "{}", ended.stderr);
    assert!(!bench.path("new").exists());
    assert_eq!(files(&bench.path("")).len(), 1, "only the configuration");
}

#[test]
fn a_newer_repository_is_refused_by_name() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("future")).unwrap();
    let sealed = backstay_backup_core::manifest::seal(&serde_json::json!({
        "format": 2, "id": "0".repeat(32), "created": "2036-01-01T00:00:00Z"
    }));
    std::fs::write(bench.path("future/backstay.json"), sealed.unwrap()).unwrap();
    let ended = bench.run("list-backups", &["--repository", "future"]).expect(2);
    assert!(ended.stderr.contains("it has format 2, this program reads up to 1"), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("hint: use the version of Backstay that wrote it, or a newer one\n"));
}

#[test]
fn secrets_never_appear() {
    let bench = Bench::new();
    bench.write("backstay.toml", "[postgres]\npassword = \"hunter2\"\n");
    let args = [
        "--repository",
        "./new",
        "--database-url",
        "postgresql://u:hunter3@127.0.0.1:1/d",
        "--log-level=trace",
    ];
    let ended = bench.run("backup-database", &args).expect(5);
    let all = ended.stdout + &ended.stderr;
    assert!(all.contains("`postgres.password` at line 2 of backstay.toml is the secret itself"), "{all}");
    assert!(
        all.contains("the password in `postgres.url` in --database-url can be read by every user"),
        "{all}"
    );
    assert!(!all.contains("hunter"), "{all}");
    let literal = bench.run("list-backups", &["--option", "postgres.password=hunter4"]).expect(2);
    assert!(!literal.stderr.contains("hunter4"), "{}", literal.stderr);
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let bench = Bench::new();
    let mut command = bench.command("list-backups", &["--help"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!((child.wait().unwrap().code(), words.as_str()), (Some(0), ""));
}
