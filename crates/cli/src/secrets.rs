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

#[async_trait]
impl SecretSource for Remote {
    #[cfg(feature = "secrets-manager")]
    async fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, SecretError> {
        use backstay_storage_s3::secrets_manager::{SecretsManagerOptions, SecretsManagerSource};
        let SecretRef::SecretsManager { secrets_manager, .. } = reference else {
            return Err(SecretError::Unsupported { kind: "this kind of secret" });
        };
        let failed = |error| SecretError::Service {
            id: secrets_manager.clone(),
            temporary: false,
            source: Box::new(error),
        };
        let source = SecretsManagerSource::open(SecretsManagerOptions::default()).await.map_err(failed)?;
        source.resolve(reference).await
    }

    #[cfg(not(feature = "secrets-manager"))]
    async fn resolve(&self, _: &SecretRef) -> Result<Secret<String>, SecretError> {
        Err(SecretError::Unsupported { kind: "AWS Secrets Manager" })
    }
}
