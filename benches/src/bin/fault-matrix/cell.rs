//! One cell: an injured archive, a restore, a start, and what came of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstay_testkit::{PostgresOptions, TestPostgres};

use crate::fault::{Fault, Injury, Target};
use crate::history::History;
use crate::lab::Lab;
use crate::tool::Tool;

/// How long recovery may take. Retries of the tools end long before.
const PATIENCE: Duration = Duration::from_secs(100);

/// What came of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server runs with exactly the rows that were asked for.
    Correct,
    /// The restore refused, or the server did not open.
    Loud { how: &'static str, words: String },
    /// The server runs, every program reported success, and the rows are others. `logged` tells whether the server's
    /// log has a line of the tool about it.
    Silent { rows: String, logged: bool },
}

/// Runs one cell.
pub(crate) fn run(lab: &Lab, tool: &Tool, fault: Fault, target: Target) -> Verdict {
    let undo = injure(lab, tool, fault);
    let verdict = recover(lab, tool, fault, target);
    undo();
    verdict
}

/// Injures the stored segment; the result mends it.
fn injure<'a>(lab: &'a Lab, tool: &Tool, fault: Fault) -> Box<dyn FnOnce() + 'a> {
    let segment = &lab.history().segment;
    let (path, bytes) = match fault.injury {
        Injury::Nothing | Injury::Broken(_) => return Box::new(|| {}),
        _ => read(tool.stored(lab, segment)),
    };
    let injured = match fault.injury {
        Injury::Stored(change) => Some((path.clone(), change(bytes.clone()))),
        Injury::Content(change) => Some(tool.seal(lab, segment, &change(plain(lab, &path)))),
        _ => None,
    };
    std::fs::remove_file(&path).expect("the repository is writable");
    let other = injured.map(|(path, bytes)| {
        lab.shell.write(&path, bytes);
        path
    });
    Box::new(move || {
        other.map(std::fs::remove_file).transpose().expect("the repository is writable");
        lab.shell.write(&path, bytes);
    })
}

fn read(path: PathBuf) -> (PathBuf, Vec<u8>) {
    let bytes = std::fs::read(&path).expect("the stored segment is readable");
    (path, bytes)
}

/// The content of a stored segment. Both tools store what the stock program opens.
fn plain(lab: &Lab, stored: &Path) -> Vec<u8> {
    let out = lab.folder.join("plain");
    let _ = lab.shell.must(&format!("zstd -dqf {} -o {}", stored.display(), out.display()));
    std::fs::read(&out).expect("zstd wrote it")
}

fn recover(lab: &Lab, tool: &Tool, fault: Fault, target: Target) -> Verdict {
    let data = lab.new_data();
    let configuration = lab.configuration(tool, fault.place, None);
    let output = tool.restore(lab, &configuration, target, &data);
    if !output.status.success() {
        let words =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        return Verdict::Loud { how: "the restore refused", words };
    }
    if let Injury::Broken(defect) = fault.injury {
        let broken = lab.configure(tool, fault.place, Some(defect));
        break_from_segment(lab, &data, &configuration, &broken);
    }
    start(lab, &data, target)
}

/// Puts a script in front of the restore command: from the injured segment on it uses the broken configuration.
fn break_from_segment(lab: &Lab, data: &Path, whole: &Path, broken: &Path) {
    let settings = data.join("postgresql.auto.conf");
    let text = std::fs::read_to_string(&settings).expect("the restored settings");
    let line = text.lines().rfind(|line| line.starts_with("restore_command")).expect("a restore command");
    let quoted = line.split_once('\'').expect("it is quoted").1.trim_end().trim_end_matches('\'');
    let whole = whole.display().to_string();
    assert!(quoted.contains(&whole), "the restore command does not name its configuration: {quoted}");
    let command =
        quoted.replace("''", "'").replace("%f", "\"$1\"").replace("%p", "\"$2\"").replace("%r", "\"$3\"");
    // Some tools quote what the server fills in; here it is quoted already.
    let command = command.replace("\"\"", "\"");
    let (flag, script) = (lab.folder.join("broken-now"), lab.folder.join("restore.sh"));
    let _ = std::fs::remove_file(&flag);
    let body = format!(
        "#!/bin/sh\nif [ \"$1\" = {segment} ]; then : > {flag}; fi\n\
         if [ -e {flag} ]; then\n{other}\nelse\n{command}\nfi\n",
        segment = lab.history().segment,
        flag = flag.display(),
        other = command.replace(&whole, &broken.display().to_string()),
    );
    lab.shell.write(&script, body);
    let added = format!("{text}\nrestore_command = 'sh {} %f %p %r'\n", script.display());
    lab.shell.write(&settings, added);
}

fn start(lab: &Lab, data: &Path, target: Target) -> Verdict {
    let options = PostgresOptions::default()
        .setting("archive_mode", "off")
        .existing(data, lab.postgres.password())
        .install(lab.postgres.install());
    let mut server = match TestPostgres::start_blocking(&options) {
        Ok(server) => server,
        Err(error) => return Verdict::Loud { how: "the server did not start", words: error.to_string() },
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let words = || std::fs::read_to_string(server.log()).unwrap_or_default();
        match server.psql("postgres", "select pg_is_in_recovery()").as_deref() {
            Ok("f") => break,
            _ if Instant::now() > deadline => {
                return Verdict::Loud { how: "the server waits", words: words() };
            }
            Err(_) if !server.is_running() => {
                let words = std::fs::read_to_string(server.log()).unwrap_or_default();
                return Verdict::Loud { how: "the server ended recovery with an error", words };
            }
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    judge(&server, target)
}

fn judge(server: &TestPostgres, target: Target) -> Verdict {
    let sql = "select coalesce(string_agg(id::text, ' ' order by id), 'none') from entry";
    let rows = server.psql("postgres", sql).unwrap_or_else(|error| format!("no table: {error}"));
    let wanted: Vec<String> = (1..=History::expected(target)).map(|row| row.to_string()).collect();
    if rows == wanted.join(" ") {
        return Verdict::Correct;
    }
    let log = std::fs::read_to_string(server.log()).unwrap_or_default();
    let count = if rows == "none" { 0 } else { rows.split(' ').count() };
    let logged = log.contains("ERROR: [") || log.contains("error:");
    Verdict::Silent { rows: format!("{count} of {}", wanted.len()), logged }
}
