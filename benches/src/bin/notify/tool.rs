//! The tools, and how they are told things.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backstay_testkit::{PortLease, cache_directories};
use tempfile::TempDir;

use crate::words;

/// Something that tells people things.
pub(crate) trait Tool {
    /// Its version, for the table.
    fn version(&self) -> String;

    /// Gets ready to tell a service on that port.
    fn start(&mut self, port: u16);

    /// An incident begins.
    fn open(&mut self, incident: usize);

    /// An incident ends.
    fn end(&mut self, incident: usize);

    /// `kill -9` of whatever runs, and its restart.
    fn kill_and_restart(&mut self);

    /// The end.
    fn stop(&mut self);
}

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()? + &String::from_utf8_lossy(&output.stderr);
    text.lines().next().map(str::to_owned)
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Ours: one call for each notice, and `tick --follow` beside it.
pub(crate) struct Backstay {
    program: PathBuf,
    directory: TempDir,
    service: Option<Child>,
}

impl Backstay {
    pub(crate) fn find() -> Option<Self> {
        let program = std::env::current_exe().ok()?.parent()?.join("send-notification");
        program.is_file().then(|| Self { program, directory: scratch(), service: None })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--config").arg(self.directory.path().join("backstay.toml"));
        command
    }

    fn follow(&mut self) {
        self.service = quiet(&mut self.command(&["tick", "--follow"])).spawn().ok();
    }
}

impl Tool for Backstay {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn start(&mut self, port: u16) {
        let text = format!(
            "[notify]\nstate = \"state\"\n[[notify.channel]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/\"\n"
        );
        std::fs::write(self.directory.path().join("backstay.toml"), text).expect("a configuration");
        self.follow();
    }

    fn open(&mut self, incident: usize) {
        let (key, text) = (format!("key-{incident}"), words(incident, false));
        let arguments =
            ["open", "--severity", "P1", "--title", "an incident", "--text", &text, "--key", &key];
        let _ = quiet(&mut self.command(&arguments)).status();
    }

    fn end(&mut self, incident: usize) {
        let (key, text) = (format!("key-{incident}"), words(incident, true));
        let _ = quiet(&mut self.command(&["resolve", &key, "--text", &text])).status();
    }

    fn kill_and_restart(&mut self) {
        kill(&mut self.service);
        self.follow();
    }

    fn stop(&mut self) {
        kill(&mut self.service);
    }
}

/// The distribution's Alertmanager with a Slack receiver, grouped by incident.
pub(crate) struct Alertmanager {
    directory: TempDir,
    port: PortLease,
    server: Option<Child>,
    begun: std::collections::BTreeMap<usize, String>,
}

const ALERTMANAGER: &str = "/usr/bin/prometheus-alertmanager";

impl Alertmanager {
    pub(crate) fn find() -> Option<Self> {
        let port = PortLease::reserve().ok()?;
        Path::new(ALERTMANAGER).is_file().then(|| Self {
            directory: scratch(),
            port,
            server: None,
            begun: std::collections::BTreeMap::new(),
        })
    }

    fn run(&mut self) {
        let mut command = Command::new(ALERTMANAGER);
        command
            .arg(format!("--config.file={}", self.directory.path().join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", self.directory.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port.port()))
            .arg("--cluster.listen-address=");
        self.server = quiet(&mut command).spawn().ok();
        std::thread::sleep(Duration::from_secs(2));
    }

    fn post(&self, incident: usize, ends: Option<&str>) {
        let began = &self.begun[&incident];
        let ends = ends.map_or_else(String::new, |ends| format!(",\"endsAt\":\"{ends}\""));
        let alert = format!(
            "[{{\"labels\":{{\"alertname\":\"incident-{incident}\"}},\"startsAt\":\"{began}\"{ends}}}]"
        );
        let url = format!("http://127.0.0.1:{}/api/v2/alerts", self.port.port());
        let mut curl = Command::new("curl");
        curl.args(["-s", "-H", "Content-Type: application/json", "-d", &alert, &url]);
        let _ = quiet(&mut curl).status();
    }
}

fn now() -> String {
    first_line(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])).unwrap_or_default()
}

impl Tool for Alertmanager {
    fn version(&self) -> String {
        let line = first_line(Command::new(ALERTMANAGER).arg("--version")).unwrap_or_default();
        line.split_whitespace().nth(2).unwrap_or("?").to_owned()
    }

    fn start(&mut self, port: u16) {
        let text = format!(
            "route: {{receiver: room, group_by: [alertname], group_wait: 1s, group_interval: 4s, repeat_interval: 1h}}\n\
             receivers:\n- name: room\n  slack_configs:\n  - api_url: http://127.0.0.1:{port}/\n    channel: '#x'\n    send_resolved: true\n    \
             text: '{{{{ .CommonLabels.alertname }}}}-{{{{ if eq .Status \"firing\" }}}}began{{{{ else }}}}ended{{{{ end }}}}'\n"
        );
        std::fs::write(self.directory.path().join("alertmanager.yml"), text).expect("a configuration");
        self.run();
    }

    fn open(&mut self, incident: usize) {
        self.begun.insert(incident, now());
        self.post(incident, None);
    }

    fn end(&mut self, incident: usize) {
        self.post(incident, Some(&now()));
    }

    fn kill_and_restart(&mut self) {
        kill(&mut self.server);
        self.run();
    }

    fn stop(&mut self) {
        kill(&mut self.server);
    }
}

/// Apprise: one call for each notice; nothing runs beside it.
pub(crate) struct Apprise {
    program: PathBuf,
    port: u16,
}

impl Apprise {
    pub(crate) fn find() -> Option<Self> {
        let places = cache_directories().into_iter().map(|cache| cache.join("apprise/bin/apprise"));
        let program = places.into_iter().find(|program| program.is_file())?;
        Some(Self { program, port: 0 })
    }

    fn tell(&self, text: &str) {
        let url = format!("json://127.0.0.1:{}/?retry=2", self.port);
        let _ = quiet(Command::new(&self.program).args(["-b", text, &url])).status();
    }
}

impl Tool for Apprise {
    fn version(&self) -> String {
        let line = first_line(Command::new(&self.program).arg("--version")).unwrap_or_default();
        line.split_whitespace().last().unwrap_or("?").trim_start_matches('v').to_owned()
    }

    fn start(&mut self, port: u16) {
        self.port = port;
    }

    fn open(&mut self, incident: usize) {
        self.tell(&words(incident, false));
    }

    fn end(&mut self, incident: usize) {
        self.tell(&words(incident, true));
    }

    fn kill_and_restart(&mut self) {}

    fn stop(&mut self) {}
}
