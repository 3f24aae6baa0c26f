//! What a task tells of itself: its whole life, against a service that remembers what it was told.

use std::path::{Path, PathBuf};
use std::process::Command;

use backstay_testkit::{Answer, HttpSink};

/// The configuration of a program that tells everything to a webhook.
pub struct Notices {
    pub sink: HttpSink,
}

impl Notices {
    pub fn new() -> Self {
        Self { sink: HttpSink::start(|_, _| Answer::ok("")).unwrap() }
    }

    /// Sections for the file `backstay.toml`; the outbox lies in the folder `notices`.
    pub fn configuration(&self) -> String {
        let url = self.sink.url("/hook");
        format!(
            "[notify]\nstate = \"notices\"\n[notify.on]\nfailure = \"P1\"\nobjective-missed = \"P2\"\n\
             first-success = true\n[[notify.channel]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"{url}\"\n"
        )
    }

    /// Kind, title and text of what came since the last time.
    pub fn told(&self) -> Vec<(String, String, String)> {
        let received = self.sink.received();
        self.sink.forget();
        let told = received.iter().map(|request| {
            let json = request.json();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let kind = text(&json["type"]).replace("backstay.", "");
            (kind, text(&json["data"]["title"]), text(&json["data"]["text"]))
        });
        told.collect()
    }

    #[track_caller]
    pub fn nothing(&self, why: &str) {
        let told = self.told();
        assert!(told.is_empty(), "{why}: {told:?}");
    }

    /// The only thing that was told since the last time.
    #[track_caller]
    fn only(&self, kind: &str, title: &str) -> String {
        let told = self.told();
        assert!(told.len() == 1 && told[0].0 == kind && told[0].1 == title, "{kind} {title:?}: {told:?}");
        told[0].2.clone()
    }
}

/// A task that succeeds as long as its repository is there.
pub struct Task<'a> {
    pub program: &'a str,
    /// Where it runs.
    pub folder: &'a Path,
    pub repository: PathBuf,
    pub command: Box<dyn Fn() -> Command + 'a>,
}

impl Task<'_> {
    /// A first success, a day like any other, two failures, the recovery; and then the same without anybody who can be
    /// told: the ends of the task stay what they are, and it says what is wrong with its notices.
    pub fn lives(&self, notices: &Notices) {
        let program = self.program;
        self.run(Some(0));
        notices.only("task-succeeded", &format!("{program} succeeded for the first time"));
        self.run(Some(0));
        notices.nothing(&format!("{program}: one success is like the other"));

        let code = self.broken(|| {
            let failed = self.run(None);
            assert!(failed.0 != 0 && failed.0 != 6, "{program}: {failed:?}");
            let text = notices.only("task-failed", &format!("{program} failed"));
            assert!(text.contains(&format!("(exit code {})", failed.0)), "{program}: {text}");
            // Where there is no error, there is a report that says no.
            let error = failed.1.lines().find_map(|line| line.strip_prefix("error: "));
            let begin: String = error.unwrap_or("its own output says which").chars().take(40).collect();
            assert!(text.contains(&begin), "{program}: {begin:?} is not in {text}");
            self.run(Some(failed.0));
            notices.nothing(&format!("{program}: the same failure is told once"));
            failed.0
        });
        self.run(Some(0));
        let text = notices.only("task-succeeded", &format!("{program} failed"));
        assert!(text.contains("succeeded again"), "{program}: {text}");

        notices.sink.answer(|_, _| Answer::status(404));
        self.broken(|| {
            let failed = self.run(Some(code));
            assert!(failed.1.contains("notification refused"), "{program}: {}", failed.1);
        });
        let done = self.run(Some(0));
        assert!(done.1.contains("notification refused"), "{program}: {}", done.1);
        notices.sink.answer(|_, _| Answer::ok(""));
        notices.told();

        let (state, aside) = (self.folder.join("notices"), self.folder.join("notices.aside"));
        std::fs::rename(&state, &aside).unwrap();
        std::fs::write(&state, "in the way").unwrap();
        let warning = "no notification of how this task ended";
        let done = self.run(Some(0));
        assert!(done.1.contains(warning), "{program}: {}", done.1);
        self.broken(|| {
            let failed = self.run(Some(code));
            assert!(failed.1.contains(warning), "{program}: {}", failed.1);
        });
        notices.nothing(program);
        std::fs::remove_file(&state).unwrap();
        std::fs::rename(&aside, &state).unwrap();
    }

    /// Runs it once: its exit code and what it says of itself.
    #[track_caller]
    fn run(&self, expected: Option<i32>) -> (i32, String) {
        let output = (self.command)().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().unwrap_or(-1);
        assert!(expected.is_none_or(|expected| expected == code), "{}: {code}\n{said}", self.program);
        (code, said)
    }

    /// While there is a file in the place of its repository.
    fn broken<T>(&self, then: impl FnOnce() -> T) -> T {
        let aside = self.repository.with_extension("aside");
        std::fs::rename(&self.repository, &aside).unwrap();
        std::fs::write(&self.repository, "in the way").unwrap();
        let value = then();
        std::fs::remove_file(&self.repository).unwrap();
        std::fs::rename(&aside, &self.repository).unwrap();
        value
    }
}
