//! Values that must never be printed, and where they come from.
//!
//! A [`Secret`] redacts itself in every `Debug`; the only way to its content is [`Secret::expose`], which is easy to
//! search for in a review. Configuration never holds the value but a [`SecretRef`] that says where it is.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Class, Classified};

/// A value that is redacted wherever it is printed and never serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one call that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where a secret is kept: `{ env = "NAME" }`, `{ file = "/path" }` or `{ secrets-manager = "id", key = "field" }`.
///
/// A plain text is accepted as the secret itself, so that a first try is easy; the loader warns and names the
/// safer form.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[non_exhaustive]
pub enum SecretRef {
    /// Environment variable.
    Env {
        /// Its name.
        env: String,
    },
    /// File whose content, without the final newline, is the secret.
    File {
        /// Its path.
        file: PathBuf,
    },
    /// AWS Secrets Manager.
    SecretsManager {
        /// Name or ARN of the secret.
        #[serde(rename = "secrets-manager")]
        secrets_manager: String,
        /// Field of a JSON secret; the whole text without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// Id of one version; the current one without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    /// The value itself, which then stands in the configuration file.
    Literal(String),
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env { env } => write!(f, "env {env}"),
            Self::File { file } => write!(f, "file {}", file.display()),
            Self::SecretsManager { secrets_manager, .. } => write!(f, "secrets-manager {secrets_manager}"),
            Self::Literal(_) => f.write_str("[redacted]"),
        }
    }
}

/// Why a secret could not be had. Never contains the value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The environment variable is not set or not text.
    #[error("environment variable {name} is not set")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read secret file {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// No source for this kind of reference is built in.
    #[error("this program has no access to {kind}")]
    Unsupported {
        /// The kind.
        kind: &'static str,
    },
    /// The remote service refused or failed.
    #[error("cannot get secret {id}")]
    Service {
        /// Name of the secret.
        id: String,
        /// Whether repeating it may help.
        temporary: bool,
        /// The service's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The service proved that there is no such secret, or no such version of it any more.
    #[error("secret {id} {problem}")]
    Absent {
        /// Name of the secret.
        id: String,
        /// What is not there, in the service's words.
        problem: String,
    },
    /// The secret exists but has not the asked shape.
    #[error("secret {id} {problem}")]
    Shape {
        /// Name of the secret.
        id: String,
        /// What is wrong.
        problem: String,
    },
}

/// Something that resolves references to secrets.
#[async_trait]
pub trait SecretSource: fmt::Debug + Send + Sync + 'static {
    /// The secret behind a reference.
    ///
    /// # Errors
    /// [`SecretError::Unsupported`] for a kind that this source does not serve.
    async fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, SecretError>;

    /// Id of the version that a reference means now. The value itself is not asked for, so that whoever only writes versions
    /// down needs no right to it.
    ///
    /// # Errors
    /// [`SecretError::Unsupported`] for a kind that has no versions, or is not served.
    async fn version(&self, reference: &SecretRef) -> Result<String, SecretError>;
}

impl Classified for SecretError {
    fn class(&self) -> Class {
        match self {
            Self::Service { temporary: true, .. } => Class::Temporary,
            // Never absence: to `restore-wal` that is the end of the archive, and a missing password is not.
            _ => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoVariable { .. } => "set it where this command is started; cron starts with almost none",
            Self::Unsupported { .. } => "use { env = \"…\" } or { file = \"…\" }",
            Self::File { .. } => "check the path, and that only the user of this command may read the file",
            Self::Service { .. } | Self::Absent { .. } | Self::Shape { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
