//! Secrets kept in AWS Secrets Manager.
//!
//! A secret is asked for anew on every call, so a rotated password is picked up by the next operation. Repeated
//! attempts are the SDK's here (three within the time limit): no wrapper of ours stands around a secret source.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{Builder, Region};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use backstay_backup_core::secret::{Secret, SecretError, SecretRef, SecretSource};
use serde_json::Value;

use crate::client::{ANY_REGION, Error, check_endpoint, load_chain, static_credentials};
use crate::options::Credentials;
use crate::reply::{Reply, chain};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;
/// Label of the version that is in use.
const CURRENT: &str = "AWSCURRENT";

/// Where Secrets Manager is and who asks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SecretsManagerOptions {
    /// Region; without one the credential chain's.
    pub region: Option<String>,
    /// URL of another service with this protocol.
    pub endpoint: Option<String>,
    /// Where the credentials come from.
    pub credentials: Credentials,
    /// Limit of one resolution with all its attempts; 30 s by default.
    pub limit: Duration,
}

impl Default for SecretsManagerOptions {
    fn default() -> Self {
        Self {
            region: None,
            endpoint: None,
            credentials: Credentials::Chain { profile: None },
            limit: Duration::from_secs(30),
        }
    }
}

impl SecretsManagerOptions {
    /// Sets the region.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets the URL of the service.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Sets where the credentials come from.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Sets the limit of one resolution.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// A source for references of the kind [`SecretRef::SecretsManager`].
#[derive(Clone)]
pub struct SecretsManagerSource {
    client: Client,
}

impl fmt::Debug for SecretsManagerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretsManagerSource").finish_non_exhaustive()
    }
}

impl SecretsManagerSource {
    /// Makes a source; sends nothing.
    ///
    /// # Errors
    /// Impossible options, and a missing region.
    pub async fn open(options: SecretsManagerOptions) -> Result<Self, Error> {
        let mut builder = match static_credentials(&options.credentials)? {
            Some(credentials) => Builder::new().credentials_provider(credentials),
            None => Builder::from(
                &Box::pin(load_chain(
                    &options.credentials,
                    options.region.as_deref(),
                    options.endpoint.is_some(),
                ))
                .await,
            ),
        };
        if let Some(endpoint) = &options.endpoint {
            check_endpoint(endpoint)?;
            builder = builder.endpoint_url(endpoint.trim_end_matches('/'));
        }
        if let Some(region) = options.region {
            builder = builder.region(Region::new(region));
        }
        let limits =
            TimeoutConfig::builder().connect_timeout(CONNECT_LIMIT).operation_timeout(options.limit).build();
        let conf = builder
            .behavior_version(BehaviorVersion::v2026_01_12())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(limits)
            .build();
        let conf = match (conf.region(), &options.endpoint) {
            (Some(_), _) => conf,
            (None, Some(_)) => conf.to_builder().region(Region::from_static(ANY_REGION)).build(),
            (None, None) => return Err(Error::NoRegion { what: "Secrets Manager".to_owned() }),
        };
        Ok(Self { client: Client::from_conf(conf) })
    }
}

#[async_trait]
impl SecretSource for SecretsManagerSource {
    async fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, SecretError> {
        let wanted = Wanted::of(reference)?;
        let id = wanted.id;
        let mut call = self.client.get_secret_value().secret_id(id);
        if let Some(version) = wanted.version {
            call = call.version_id(version);
        }
        let reply = Box::pin(call.send()).await.map_err(|error| service_error(id, &error))?;
        let shape = |problem: String| SecretError::Shape { id: id.to_owned(), problem };
        let text = text_of(&reply).ok_or_else(|| shape("is not text".to_owned()))?;
        match wanted.key {
            None => Ok(Secret::new(text)),
            Some(key) => field(&text, key).map(Secret::new).map_err(shape),
        }
    }

    async fn version(&self, reference: &SecretRef) -> Result<String, SecretError> {
        let Wanted { id, version, .. } = Wanted::of(reference)?;
        let call = self.client.describe_secret().secret_id(id);
        let reply = Box::pin(call.send()).await.map_err(|error| service_error(id, &error))?;
        let versions = reply.version_ids_to_stages();
        let is_meant = |id: &String, stages: &[String]| match version {
            Some(version) => id == version,
            None => stages.iter().any(|stage| stage == CURRENT),
        };
        let mut found = versions.into_iter().flatten().filter(|(id, stages)| is_meant(id, stages));
        found.next().map(|(id, _)| id.clone()).ok_or_else(|| SecretError::Absent {
            id: id.to_owned(),
            problem: match version {
                Some(version) => format!("has no version {version} any more"),
                None => "has no current version".to_owned(),
            },
        })
    }
}

/// What a reference asks of this service.
struct Wanted<'a> {
    id: &'a str,
    key: Option<&'a str>,
    version: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn of(reference: &'a SecretRef) -> Result<Self, SecretError> {
        match reference {
            SecretRef::SecretsManager { secrets_manager, key, version } => {
                Ok(Self { id: secrets_manager, key: key.as_deref(), version: version.as_deref() })
            }
            SecretRef::Env { .. } => Err(SecretError::Unsupported { kind: "environment variables" }),
            SecretRef::File { .. } => Err(SecretError::Unsupported { kind: "secret files" }),
            _ => Err(SecretError::Unsupported { kind: "this kind of secret" }),
        }
    }
}

fn text_of(reply: &GetSecretValueOutput) -> Option<String> {
    match (reply.secret_string(), reply.secret_binary()) {
        (Some(text), _) => Some(text.to_owned()),
        (None, Some(bytes)) => String::from_utf8(bytes.as_ref().to_vec()).ok(),
        (None, None) => None,
    }
}

/// One field of a JSON object; never repeats any of its content in an error.
fn field(text: &str, key: &str) -> Result<String, String> {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
        return Err(format!("is no JSON object, so it has no field {key}"));
    };
    match fields.get(key) {
        Some(Value::String(value)) => Ok(value.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(_) => Err(format!("has a field {key} that is neither text nor number")),
        None => Err(format!("has no field {key}")),
    }
}

fn service_error<E, R>(id: &str, error: &SdkError<E, R>) -> SecretError
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: fmt::Debug + 'static,
{
    let (temporary, reply) = match error.as_service_error() {
        // The service says this only to whoever may ask.
        Some(refusal) if refusal.code() == Some("ResourceNotFoundException") => {
            let words = Reply::new(refusal.message().unwrap_or("there is no such secret")).to_string();
            return SecretError::Absent { id: id.to_owned(), problem: format!("is not there: {words}") };
        }
        Some(refusal) => {
            let code = refusal.code().unwrap_or("unknown error");
            let temporary = matches!(
                code,
                "InternalServiceError"
                    | "InternalFailure"
                    | "ServiceUnavailable"
                    | "ThrottlingException"
                    | "Throttling"
            );
            (temporary, Reply::new(format!("{code}: {}", refusal.message().unwrap_or_default())))
        }
        None => {
            let text = chain(error);
            let no_credentials = text.contains("credentials provider") || text.contains("no providers");
            (!no_credentials, Reply::new(text))
        }
    };
    SecretError::Service { id: id.to_owned(), temporary, source: Box::new(reply) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_and_an_error_tells_nothing() {
        let text = r#"{"password":"hush","port":5432,"list":["hush"]}"#;
        assert_eq!(field(text, "password").unwrap(), "hush");
        assert_eq!(field(text, "port").unwrap(), "5432");
        for problem in
            [field(text, "user"), field(text, "list"), field("hush", "x"), field("[\"hush\"]", "x")]
        {
            let problem = problem.unwrap_err();
            assert!(!problem.contains("hush"), "{problem}");
        }
    }
}
