//! The independent server of AWS services: what ours is compared with, and what secrets are kept in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache::candidates;
use crate::{Error, ProcessGuard, ScratchDir};

/// It imports half of Python first.
const PATIENCE: Duration = Duration::from_secs(120);

/// Finds the program `moto_server` in the cache directory.
///
/// # Errors
/// When it is not installed; the error names the command that does it.
pub fn moto_server() -> crate::Result<PathBuf> {
    let found =
        candidates().into_iter().map(|cache| cache.join("moto/bin/moto_server")).find(|path| path.is_file());
    found.ok_or_else(|| crate::Error::NotInstalled {
        what: "moto_server".to_owned(),
        command: "scripts/setup-moto.sh".to_owned(),
    })
}

/// A running one, on a loopback port of its own; gone when it is dropped.
#[derive(Debug)]
pub struct Moto {
    endpoint: String,
    python: PathBuf,
    // Before the folder that it logs into.
    _guard: ProcessGuard,
    _scratch: ScratchDir,
}

impl Moto {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start() -> crate::Result<Self> {
        let program = moto_server()?;
        let scratch = ScratchDir::create("moto", None)?;
        let log = scratch.path().join("log");
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", "0"]);
        let mut guard = ProcessGuard::spawn(&command, None, "TERM", &log)?;
        guard.wait_ready("moto_server", PATIENCE, || address_in(&log).is_some())?;
        let endpoint = address_in(&log).ok_or(Error::State("moto_server named its port and took it back"))?;
        let python = program.with_file_name("python");
        Ok(Self { endpoint, python, _guard: guard, _scratch: scratch })
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Runs lines of Python with AWS's own client: `client(service)` makes one, `endpoint` is the URL. Returns what is
    /// printed.
    ///
    /// # Errors
    /// They fail; the error has what they wrote.
    pub fn python(&self, lines: &str) -> crate::Result<String> {
        let script = format!(
            "import boto3\nendpoint = {:?}\ndef client(service):\n    return boto3.client(service, endpoint_url=endpoint, \
             region_name='us-east-1', aws_access_key_id='id', aws_secret_access_key='key')\n{lines}\n",
            self.endpoint
        );
        let output = Command::new(&self.python)
            .args(["-c", &script])
            .output()
            .map_err(Error::io("start", &self.python))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let output_text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Error::Program {
            program: "python".to_owned(),
            status: output.status.to_string(),
            output: output_text,
        })
    }
}

/// The address that a log names.
fn address_in(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let at = text.find("http://127.0.0.1:")?;
    // The line may be half-written.
    let (address, _) = text[at..].split_once(char::is_whitespace)?;
    Some(address.trim_end_matches('/').to_owned())
}
