//! A real SMTP server: `aiosmtpd`, which speaks STARTTLS, AUTH and SMTPUTF8.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Error, PortLease, ProcessGuard, Result, ScratchDir};

const SERVER: &str = include_str!("smtp_sink.py");

/// A running server; gone when dropped.
#[derive(Debug)]
pub struct SmtpSink {
    _guard: ProcessGuard,
    lease: PortLease,
    out: PathBuf,
    _directory: ScratchDir,
}

/// A mail as the server took it.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Mail {
    /// Sender of the envelope.
    pub from: String,
    /// Recipients of the envelope.
    pub to: Vec<String>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Whether its sender logged in.
    pub authenticated: bool,
    /// Headers and body.
    pub data: String,
}

impl Mail {
    /// A header of the mail, as it stands there, with its further lines.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.data.split("\r\n\r\n").next()?;
        let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let begin = format!("{}:", name.to_ascii_lowercase());
        let line = unfolded.lines().find(|line| line.to_ascii_lowercase().starts_with(&begin))?;
        Some(line[begin.len()..].trim().to_owned())
    }
}

impl SmtpSink {
    /// Starts one with these arguments of `smtp_sink.py`, such as `--greylist 1`.
    ///
    /// # Errors
    /// `aiosmtpd` is missing, or the server does not start.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let directory = ScratchDir::create("smtp", None)?;
        let program = directory.path().join("smtp_sink.py");
        std::fs::write(&program, SERVER).map_err(Error::io("write", &program))?;
        let (lease, out) = (PortLease::reserve()?, directory.path().join("mails"));
        let mut command = Command::new("/usr/bin/python3");
        command.arg(&program).args(["--port", &lease.port().to_string(), "--out"]).arg(&out).args(arguments);
        let mut guard = ProcessGuard::spawn(&command, None, "KILL", &directory.path().join("log"))?;
        let port = lease.port();
        let is_up = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        guard.wait_ready(
            "aiosmtpd (python3-aiosmtpd; scripts/setup.sh installs it)",
            Duration::from_secs(60),
            is_up,
        )?;
        Ok(Self { _guard: guard, lease, out, _directory: directory })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.lease.port()
    }

    /// The mails it took, in order.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn mails(&self) -> Result<Vec<Mail>> {
        let path: &Path = &self.out;
        let text = if path.exists() {
            std::fs::read_to_string(path).map_err(Error::io("read", path))?
        } else {
            String::new()
        };
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}
