//! A program: the message as one JSON object on its standard input, and its exit code as the answer.
//!
//! | exit code | outcome |
//! |---|---|
//! | 0 | accepted |
//! | 64 to 69, 78 | refused: usage, data, configuration |
//! | other | later |
//! | no end in time | unknown |
//!
//! Arguments come from the configuration alone, never from a message.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::process::{CommandRunner, CommandSpec, ProcessError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Channel, Draft, Message};
use crate::outbox::Outcome;
use crate::render::{Unit, clean_line, fit};

/// Longest text handed over, in bytes.
const TEXT: usize = 60_000;

/// A program.
#[derive(Debug)]
pub struct Command {
    runner: Arc<dyn CommandRunner>,
    command: Vec<String>,
    timeout: Duration,
}

impl Command {
    /// The program with its arguments, and the time it has.
    #[must_use]
    pub fn new(runner: Arc<dyn CommandRunner>, command: Vec<String>, timeout: Duration) -> Self {
        Self { runner, command, timeout }
    }

    async fn run(&self, input: Vec<u8>) -> Result<(), ProcessError> {
        let (program, args) =
            self.command.split_first().map_or(("", &[][..]), |(program, args)| (program.as_str(), args));
        let spec =
            CommandSpec::new(program).args(args.iter().cloned()).pipe_stdin().grace(Duration::from_secs(2));
        let mut child = self.runner.spawn(spec).await?;
        if let Some(mut stdin) = child.take_stdin() {
            // A program that does not read its input has decided already; its exit code says what.
            let write = tokio::task::spawn_blocking(move || stdin.write_all(&input));
            let ended = child.wait_or_cancel(&CancellationToken::new()).await;
            let _ = write.await;
            return ended;
        }
        child.wait_or_cancel(&CancellationToken::new()).await
    }
}

fn payload(message: &Message<'_>) -> String {
    let notice = message.notice;
    let line = |text: &str| fit(&clean_line(text), 2000, Unit::Bytes);
    json!({
        "id": notice.id,
        "thread": notice.thread,
        "kind": notice.kind,
        "severity": notice.severity,
        "status": notice.status,
        "created": notice.created.to_string(),
        "title": line(&notice.title),
        "subject": line(&message.letter.subject),
        "body": fit(&message.letter.body, TEXT, Unit::Bytes),
        "impact": line(&notice.impact),
        "commander": notice.commander.as_deref().map(line),
        "source": line(&notice.source),
    })
    .to_string()
}

#[async_trait]
impl Channel for Command {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Command
    }

    fn is_idempotent(&self) -> bool {
        false
    }

    fn per_minute(&self) -> u32 {
        600
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        vec![Draft::new(self.command.first().cloned().unwrap_or_default(), payload(message))]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        let running = self.run(format!("{}\n", payload(message)).into_bytes());
        let ended = tokio::time::timeout(self.timeout, running).await;
        match ended {
            Ok(Ok(())) => Outcome::Accepted { reference: None },
            Ok(Err(error @ ProcessError::Failed { .. })) => {
                let code = match &error {
                    ProcessError::Failed { status, .. } => status.code(),
                    _ => None,
                };
                let problem = error.to_string();
                match code {
                    Some(64..=69 | 78) => Outcome::Refused { problem },
                    Some(_) => Outcome::Later { problem },
                    None => Outcome::Unknown { problem },
                }
            }
            Ok(Err(error)) => Outcome::Later { problem: backstay_backup_core::error::describe(&error) },
            Err(_) => Outcome::Unknown { problem: format!("it did not end within {:?}", self.timeout) },
        }
    }
}
