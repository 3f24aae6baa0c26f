//! Where secrets come from without a service: the environment, files, the configuration itself.
//!
//! [`Chain`] asks its sources in turn; the first that serves the kind of a reference answers, be it with an error. A
//! source for a service (AWS Secrets Manager) lives with the client of that service and joins the chain.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::secret::{Secret, SecretError, SecretRef, SecretSource};

/// Largest secret file in bytes; a larger one is surely another file.
pub const MAX_SECRET: u64 = 64 << 10;

/// Secrets in environment variables, from a map that the program hands in.
pub struct EnvSecrets(BTreeMap<String, String>);

impl EnvSecrets {
    /// Serves the variables of this map.
    #[must_use]
    pub fn new(environment: BTreeMap<String, String>) -> Self {
        Self(environment)
    }
}

impl fmt::Debug for EnvSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvSecrets").finish_non_exhaustive()
    }
}

#[async_trait]
impl SecretSource for EnvSecrets {
    async fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, SecretError> {
        let SecretRef::Env { env } = reference else {
            return Err(SecretError::Unsupported { kind: kind(reference) });
        };
        match self.0.get(env) {
            Some(value) if !value.is_empty() => Ok(Secret::new(value.clone())),
            _ => Err(SecretError::NoVariable { name: env.clone() }),
        }
    }

    async fn version(&self, reference: &SecretRef) -> Result<String, SecretError> {
        Err(SecretError::Unsupported { kind: kind(reference) })
    }
}

/// Secrets in files. A file that others can read is accepted with a warning.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSecrets;

#[async_trait]
impl SecretSource for FileSecrets {
    async fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, SecretError> {
        let SecretRef::File { file } = reference else {
            return Err(SecretError::Unsupported { kind: kind(reference) });
        };
        let path = file.clone();
        let failed = |source| SecretError::File { path: file.clone(), source };
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let content = read.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)?;
        shaped(file, content)
    }

    async fn version(&self, reference: &SecretRef) -> Result<String, SecretError> {
        Err(SecretError::Unsupported { kind: kind(reference) })
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let facts = file.metadata()?;
    if facts.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    let mode = facts.mode() & 0o7777;
    // Only a regular file has permissions that mean something: a pipe of the shell is nobody else's.
    if facts.is_file() && mode & 0o077 != 0 {
        tracing::warn!(
            file = %path.display(),
            mode = %format_args!("{mode:04o}"),
            "other users can read this secret file; chmod 600 makes it private"
        );
    }
    let mut content = Vec::new();
    file.take(MAX_SECRET + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn shaped(path: &Path, content: Vec<u8>) -> Result<Secret<String>, SecretError> {
    let wrong = |problem: &str| SecretError::Shape {
        id: PathBuf::from(path).display().to_string(),
        problem: problem.to_owned(),
    };
    if content.len() as u64 > MAX_SECRET {
        return Err(wrong("is larger than 64 KiB, so it is no secret"));
    }
    let mut text = String::from_utf8(content).map_err(|_| wrong("is not text"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(wrong("is empty")) } else { Ok(Secret::new(text)) }
}

/// Secrets that stand in the configuration itself; the loader has warned.
#[derive(Clone, Copy, Debug, Default)]
pub struct LiteralSecrets;

#[async_trait]
impl SecretSource for LiteralSecrets {
    async fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, SecretError> {
        match reference {
            SecretRef::Literal(value) => Ok(Secret::new(value.clone())),
            other => Err(SecretError::Unsupported { kind: kind(other) }),
        }
    }

    async fn version(&self, reference: &SecretRef) -> Result<String, SecretError> {
        Err(SecretError::Unsupported { kind: kind(reference) })
    }
}

/// Several sources, asked in order.
#[derive(Clone, Debug, Default)]
pub struct Chain(Vec<Arc<dyn SecretSource>>);

impl Chain {
    /// Environment (the map handed in), files and literals.
    #[must_use]
    pub fn local(environment: BTreeMap<String, String>) -> Self {
        Self::default().with(EnvSecrets::new(environment)).with(FileSecrets).with(LiteralSecrets)
    }

    /// Adds a source at the end.
    #[must_use]
    pub fn with(mut self, source: impl SecretSource) -> Self {
        self.0.push(Arc::new(source));
        self
    }
}

#[async_trait]
impl SecretSource for Chain {
    async fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, SecretError> {
        for source in &self.0 {
            match source.resolve(reference).await {
                Err(SecretError::Unsupported { .. }) => {}
                answer => return answer,
            }
        }
        Err(SecretError::Unsupported { kind: kind(reference) })
    }

    async fn version(&self, reference: &SecretRef) -> Result<String, SecretError> {
        for source in &self.0 {
            match source.version(reference).await {
                Err(SecretError::Unsupported { .. }) => {}
                answer => return answer,
            }
        }
        Err(SecretError::Unsupported { kind: kind(reference) })
    }
}

fn kind(reference: &SecretRef) -> &'static str {
    match reference {
        SecretRef::Env { .. } => "environment variables",
        SecretRef::File { .. } => "secret files",
        SecretRef::SecretsManager { .. } => "AWS Secrets Manager",
        SecretRef::Literal(_) => "literal secrets",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Chain {
        Chain::local(BTreeMap::from([
            ("SET".to_owned(), "s3cret".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ]))
    }

    async fn file(content: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, content).unwrap();
        let secret = chain().resolve(&SecretRef::File { file: path.clone() }).await;
        let hide = |error: SecretError| error.to_string().replace(&path.display().to_string(), "FILE");
        secret.map(|secret| secret.expose().clone()).map_err(hide)
    }

    #[tokio::test]
    async fn variables_resolve_and_absent_or_empty_ones_do_not() {
        let get = async |name: &str| chain().resolve(&SecretRef::Env { env: name.to_owned() }).await;
        assert_eq!(get("SET").await.unwrap().expose(), "s3cret");
        assert!(matches!(get("EMPTY").await, Err(SecretError::NoVariable { .. })));
        assert!(matches!(get("ABSENT").await, Err(SecretError::NoVariable { .. })));
        assert!(!format!("{:?}", chain()).contains("s3cret"));
    }

    #[tokio::test]
    async fn a_file_loses_one_final_newline_only() {
        assert_eq!(file(b"a b\r\n").await.unwrap(), "a b");
        assert_eq!(file(b"two\nlines\n\n").await.unwrap(), "two\nlines\n");
    }

    #[tokio::test]
    async fn files_that_cannot_be_secrets_are_refused() {
        assert_eq!(file(b"\n").await.unwrap_err(), "secret FILE is empty");
        assert_eq!(file(&[0xff]).await.unwrap_err(), "secret FILE is not text");
        let large = vec![b'x'; 70_000];
        assert_eq!(file(&large).await.unwrap_err(), "secret FILE is larger than 64 KiB, so it is no secret");
        let folder = tempfile::tempdir().unwrap();
        let as_file = SecretRef::File { file: folder.path().to_owned() };
        assert!(matches!(chain().resolve(&as_file).await, Err(SecretError::File { .. })));
    }

    #[tokio::test]
    async fn a_chain_says_what_it_has_no_access_to() {
        let reference =
            SecretRef::SecretsManager { secrets_manager: "x".to_owned(), key: None, version: None };
        let error = chain().resolve(&reference).await.unwrap_err();
        assert_eq!(error.to_string(), "this program has no access to AWS Secrets Manager");
    }
}
