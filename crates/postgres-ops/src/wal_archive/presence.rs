use backstay_backup_core::store::StoreError;
use futures::future::join_all;

use super::{WalArchive, WalArchiveError};
use crate::wal::WalFile;

impl WalArchive {
    /// Whether the quorum has a file. Its content is not read.
    ///
    /// # Errors
    /// [`WalArchiveError::Repository`] when so many repositories fail that those that answer decide nothing.
    pub async fn is_stored(&self, file: WalFile) -> Result<bool, WalArchiveError> {
        let key = self.key(file)?;
        let members = self.repositories().members();
        let heads = members.iter().map(|repository| async {
            match repository.store().head(&key).await {
                Ok(_) => Ok(true),
                Err(StoreError::Absent { .. }) => Ok(false),
                Err(source) => Err(repository.failed("look for WAL", source)),
            }
        });
        let (mut stored, mut absent, mut failed) = (0, 0, None);
        for head in join_all(heads).await {
            match head {
                Ok(true) => stored += 1,
                Ok(false) => absent += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let quorum = self.repositories().quorum();
        match failed {
            // Also if all that failed had it.
            Some(error) if stored < quorum && absent + quorum <= members.len() => Err(error.into()),
            _ => Ok(stored >= quorum),
        }
    }
}
