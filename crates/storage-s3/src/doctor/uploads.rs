//! Multipart uploads: whole, or not at all.

use backstay_backup_core::key::Key;
use backstay_backup_core::store::{Attributes, PartNumber, PartTag, StoreError, UploadId};
use bytes::Bytes;

use super::finding::Answer;
use super::run::{Answered, Run};

const PART: &[u8] = b"the last part of an upload may be short";

impl Run {
    pub(super) async fn multipart(&self) -> Answered {
        let whole = self.key("multipart/whole");
        let (upload, part) = self.started(&whole).await?;
        if self.exists(&whole).await? {
            return Ok(Answer::unsafe_because(
                "an upload is visible before it is complete",
                "do not use this store: readers can see half an object",
            ));
        }
        self.store.complete_upload(&whole, &upload, &[part]).await?;
        let other = match self.read(&whole).await {
            Ok(bytes) if bytes == PART => None,
            Ok(_) => Some("a completed upload has other bytes than its parts"),
            Err(StoreError::Checksum { .. }) => {
                Some("a completed upload does not match the checksum the store computed")
            }
            Err(error) => return Err(error),
        };
        if let Some(meaning) = other {
            return Ok(Answer::unsafe_because(
                meaning,
                "try checksums = \"compatible\"; if that does not help, do not use this store",
            ));
        }
        self.aborted().await
    }

    async fn aborted(&self) -> Answered {
        const ABORT_REMEDY: &str = "add a lifecycle rule that aborts incomplete uploads after some days; their parts are stored \
                                    and billed";
        let gone = self.key("multipart/aborted");
        let (upload, _) = self.started(&gone).await?;
        let pending = self.store.list_uploads(&self.folder("multipart")).await?;
        let listed = pending.iter().any(|pending| pending.key == gone);
        self.store.abort_upload(&gone, &upload).await?;
        if self.exists(&gone).await? {
            return Ok(Answer::unsafe_because("an aborted upload became visible", "do not use this store"));
        }
        let pending = self.store.list_uploads(&self.folder("multipart")).await?;
        if pending.iter().any(|pending| pending.key == gone) {
            return Ok(Answer::unsafe_because("an aborted upload is still there", ABORT_REMEDY));
        }
        if !listed {
            return Ok(Answer::unsafe_because(
                "pending uploads are not listed, so those of crashed writers cannot be found",
                ABORT_REMEDY,
            ));
        }
        Ok(Answer::safe("uploads become visible whole, and leave nothing when aborted"))
    }

    pub(super) async fn create_only_upload(&self) -> Answered {
        let key = self.key("multipart/existing");
        let first = Bytes::from_static(b"first");
        self.create(&key, &first).await?;
        let (upload, part) = self.started(&key).await?;
        let completed = self.store.complete_upload(&key, &upload, &[part]).await;
        let kept = self.read(&key).await? == first;
        let refused = match completed {
            Ok(_) => false,
            Err(StoreError::AlreadyExists { .. }) => true,
            Err(error) => {
                self.store.abort_upload(&key, &upload).await?;
                return Err(error);
            }
        };
        if !refused || !kept {
            return Ok(Answer::unsafe_because(
                "a multipart upload replaced an existing object",
                "use a store that knows If-None-Match for CompleteMultipartUpload (Amazon S3 does); large backups \
                 can be overwritten here",
            ));
        }
        self.store.abort_upload(&key, &upload).await?;
        if !self.store.capabilities().create_only {
            return Ok(Answer::unsafe_because(
                "conditional writes are switched off or missing: two uploads of one key can both succeed",
                "keys are unique by themselves, so this matters only with hostile or misconfigured writers",
            ));
        }
        Ok(Answer::safe("a multipart upload cannot replace an existing object"))
    }

    /// An upload with one part in it.
    async fn started(&self, key: &Key) -> Result<(UploadId, PartTag), StoreError> {
        let upload = self.store.start_upload(key, &Attributes::default()).await?;
        let first = PartNumber { number: 1, offset: 0 };
        let part = self.store.put_part(key, &upload, first, Bytes::from_static(PART)).await?;
        Ok((upload, part))
    }
}
