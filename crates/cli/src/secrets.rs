//! Resolves references to secrets with what this program was built with.

use std::collections::BTreeMap;

use async_trait::async_trait;
use backstay_backup_core::secret::{Secret, SecretError, SecretRef, SecretSource};
use backstay_backup_core::secret_sources::Chain;

/// Environment, files, literals and, where built in, AWS Secrets Manager.
pub(crate) fn chain(environment: &BTreeMap<String, String>) -> Chain {
    Chain::local(environment.clone()).with(Remote)
}

/// Services, each connected to when a reference first asks for it.
#[derive(Debug)]
struct Remote;

#[cfg(feature = "secrets-manager")]
#[async_trait]
impl SecretSource for Remote {
    async fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, SecretError> {
        secrets_manager(reference).await?.resolve(reference).await
    }

    async fn version(&self, reference: &SecretRef) -> Result<String, SecretError> {
        secrets_manager(reference).await?.version(reference).await
    }
}

/// A connection, where the reference means that service.
#[cfg(feature = "secrets-manager")]
async fn secrets_manager(
    reference: &SecretRef,
) -> Result<backstay_storage_s3::secrets_manager::SecretsManagerSource, SecretError> {
    use backstay_storage_s3::secrets_manager::{SecretsManagerOptions, SecretsManagerSource};
    let SecretRef::SecretsManager { secrets_manager, .. } = reference else {
        return Err(SecretError::Unsupported { kind: "this kind of secret" });
    };
    let failed = |error| SecretError::Service {
        id: secrets_manager.clone(),
        temporary: false,
        source: Box::new(error),
    };
    SecretsManagerSource::open(SecretsManagerOptions::default()).await.map_err(failed)
}

#[cfg(not(feature = "secrets-manager"))]
#[async_trait]
impl SecretSource for Remote {
    async fn resolve(&self, _: &SecretRef) -> Result<Secret<String>, SecretError> {
        Err(SecretError::Unsupported { kind: "AWS Secrets Manager" })
    }

    async fn version(&self, _: &SecretRef) -> Result<String, SecretError> {
        Err(SecretError::Unsupported { kind: "AWS Secrets Manager" })
    }
}
