//! Which cluster a stanza protects.
//!
//! A server that was made by `initdb` or `pg_upgrade` under the name of another one, or that was given the wrong stanza,
//! would archive a log beside the right one, and everybody would believe that the right one is archived. So the first
//! push registers its cluster, and from then on another cluster is refused until somebody says that it takes over.
//!
//! Registrations are create-only records, counted from 1; the last one counts. They lie in every repository, and one
//! that was absent when a cluster was registered gets the record as soon as it is asked again.

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::manifest::{FORMAT_MAJOR, ManifestError, seal, unseal};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::{Repository, layout};
use backstay_backup_core::store::{Attributes, PutMode, StoreError};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::WalArchiveError;
use crate::wal::{SegmentHeader, SegmentSize, SystemId};

/// Largest record that is read, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// What is known of a cluster when it is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// Its identity.
    pub system: SystemId,
    /// Major version of its server.
    pub major: u32,
    /// Bytes of its WAL segments.
    pub segment_size: SegmentSize,
}

impl From<SegmentHeader> for ClusterIdentity {
    fn from(header: SegmentHeader) -> Self {
        Self { system: header.system, major: header.major, segment_size: header.size }
    }
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ClusterRecord {
    /// Major version of the format.
    pub format: u32,
    /// The stanza.
    pub stanza: Stanza,
    /// Counted from 1; the highest one counts.
    pub number: u32,
    /// Identity of the cluster.
    pub system_identifier: SystemId,
    /// Major version of its server at that time.
    pub server_major: u32,
    /// Bytes of its WAL segments at that time.
    pub segment_size: u64,
    /// By the clock of whoever registered it.
    pub registered: Timestamp,
    /// Name and version of the registering program.
    pub tool: String,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// The newest registration, and who has it.
struct Current {
    record: Option<ClusterRecord>,
    /// Names of the repositories that were seen to have it.
    holders: Vec<String>,
}

impl Current {
    fn new(record: Option<ClusterRecord>, numbers: Vec<(&str, u32)>) -> Self {
        let newest = record.as_ref().map(|record| record.number);
        let holders = numbers.into_iter().filter(|(_, number)| Some(*number) == newest);
        Self { holders: holders.map(|(name, _)| name.to_owned()).collect(), record }
    }
}

/// The registrations of one stanza.
#[derive(Clone, Debug)]
pub struct ClusterRegistry {
    repositories: Repositories,
    stanza: Stanza,
}

impl ClusterRegistry {
    /// Those of a stanza. Asks nobody yet.
    #[must_use]
    pub fn new(repositories: Repositories, stanza: Stanza) -> Self {
        Self { repositories, stanza }
    }

    /// All registrations, oldest first, of all repositories.
    ///
    /// # Errors
    /// A repository that cannot be asked, a record that cannot be used, and [`WalArchiveError::Disputed`].
    pub async fn list(&self) -> Result<Vec<ClusterRecord>, WalArchiveError> {
        let mut all: Vec<ClusterRecord> = Vec::new();
        for repository in self.repositories.members() {
            for number in self.numbers(repository).await? {
                let record = self.read(repository, number).await?;
                match all.iter().find(|known| known.number == record.number) {
                    Some(known) => self.agree(known, &record)?,
                    None => all.push(record),
                }
            }
        }
        all.sort_by_key(|record| record.number);
        Ok(all)
    }

    /// Makes sure that the stanza is this cluster's: the first one that comes is registered. Costs a listing and a small
    /// read for each repository; the answer may be remembered.
    ///
    /// # Errors
    /// [`WalArchiveError::OtherCluster`]; a quorum that cannot be asked or does not take the record.
    ///
    /// # Cancel safety
    /// A dropped call leaves the record in some repositories; the next call completes the others.
    pub async fn ensure(
        &self,
        cluster: ClusterIdentity,
        tool: &str,
    ) -> Result<ClusterRecord, WalArchiveError> {
        let current = self.current().await?;
        let record = match current.record {
            Some(record) if record.system_identifier == cluster.system => record,
            Some(record) => {
                let (stanza, registered) = (self.stanza.clone(), record.system_identifier);
                return Err(WalArchiveError::OtherCluster { stanza, registered, found: cluster.system });
            }
            None => self.record(1, cluster, tool),
        };
        self.create(record, &current.holders).await
    }

    /// Makes sure that the stanza is not another cluster's, and registers nothing.
    ///
    /// # Errors
    /// As [`ClusterRegistry::ensure`].
    pub async fn check(&self, system: SystemId) -> Result<(), WalArchiveError> {
        match self.current().await?.record {
            Some(record) if record.system_identifier != system => {
                let (stanza, registered) = (self.stanza.clone(), record.system_identifier);
                Err(WalArchiveError::OtherCluster { stanza, registered, found: system })
            }
            _ => Ok(()),
        }
    }

    /// Registers a cluster that takes the place of whichever was registered before. Does nothing when it is the
    /// registered one already.
    ///
    /// # Errors
    /// As [`ClusterRegistry::ensure`]; another cluster that is registered at the same moment.
    ///
    /// # Cancel safety
    /// As [`ClusterRegistry::ensure`].
    pub async fn register(
        &self,
        cluster: ClusterIdentity,
        tool: &str,
    ) -> Result<ClusterRecord, WalArchiveError> {
        let number = match self.current().await {
            Ok(Current { record: Some(record), holders }) if record.system_identifier == cluster.system => {
                return self.create(record, &holders).await;
            }
            Ok(current) => current.record.map_or(1, |record| record.number + 1),
            // A new record above both settles it.
            Err(WalArchiveError::Disputed { .. }) => self.highest().await? + 1,
            Err(error) => return Err(error),
        };
        self.create(self.record(number, cluster, tool), &[]).await
    }

    /// The newest registration, of those repositories that answer, which must be a quorum.
    async fn current(&self) -> Result<Current, WalArchiveError> {
        let members = self.repositories.members();
        let answers = join_all(members.iter().map(|repository| self.newest(repository))).await;
        let mut found: Option<ClusterRecord> = None;
        let mut numbers = Vec::new();
        let (mut answered, mut problem) = (0, None);
        for (repository, answer) in members.iter().zip(answers) {
            match answer {
                Ok(record) => {
                    answered += 1;
                    numbers.extend(record.as_ref().map(|record| (repository.name(), record.number)));
                    match (&found, record) {
                        (Some(known), Some(record)) if known.number == record.number => {
                            self.agree(known, &record)?;
                        }
                        (Some(known), Some(record)) if known.number > record.number => {}
                        (_, Some(record)) => found = Some(record),
                        (_, None) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(repository = repository.name(), %error, "registration not read");
                    problem.get_or_insert(error);
                }
            }
        }
        match problem {
            Some(problem) if answered < self.repositories.quorum() => Err(problem),
            _ => Ok(Current::new(found, numbers)),
        }
    }

    async fn highest(&self) -> Result<u32, WalArchiveError> {
        let mut highest = 0;
        for repository in self.repositories.members() {
            highest = self.numbers(repository).await?.into_iter().fold(highest, u32::max);
        }
        Ok(highest)
    }

    async fn newest(&self, repository: &Repository) -> Result<Option<ClusterRecord>, WalArchiveError> {
        match self.numbers(repository).await?.into_iter().max() {
            Some(number) => self.read(repository, number).await.map(Some),
            None => Ok(None),
        }
    }

    async fn numbers(&self, repository: &Repository) -> Result<Vec<u32>, WalArchiveError> {
        let listing = repository.store().list(&layout::clusters(&self.stanza));
        let numbers = listing.try_filter_map(async |meta| Ok(layout::cluster_number(meta.key.file_name())));
        let numbers: Result<Vec<_>, _> = numbers.try_collect().await;
        Ok(numbers.map_err(|source| repository.failed("list registrations", source))?)
    }

    async fn read(&self, repository: &Repository, number: u32) -> Result<ClusterRecord, WalArchiveError> {
        let failed = |source| repository.failed("read a registration", source);
        let key = layout::cluster(&self.stanza, number);
        let opened = repository.store().get(&key, Some(0..MAX_RECORD)).await.map_err(failed)?;
        let bytes = opened.body.try_fold(Vec::new(), async |mut all: Vec<u8>, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        });
        let bytes = bytes.await.map_err(failed)?;
        let unusable = |source| {
            let repository = repository.name().to_owned();
            WalArchiveError::Registration { number, repository, source }
        };
        let record: ClusterRecord = unseal(&bytes).map_err(unusable)?;
        if record.number != number || record.stanza != self.stanza {
            let problem = format!("it is number {} of stanza {}", record.number, record.stanza);
            return Err(unusable(ManifestError::Damaged { problem }));
        }
        Ok(record)
    }

    /// Puts a record into every repository but its holders, unless it is there.
    async fn create(
        &self,
        record: ClusterRecord,
        holders: &[String],
    ) -> Result<ClusterRecord, WalArchiveError> {
        let body = seal(&record).map_err(|error| CoreError::Internal { what: error.to_string() })?;
        let body = Bytes::from(body);
        let (held, others): (Vec<_>, Vec<_>) = self
            .repositories
            .members()
            .iter()
            .partition(|member| holders.iter().any(|name| name == member.name()));
        let puts = others.iter().map(|repository| self.create_in(repository, &record, body.clone()));
        let (mut reached, mut problem) = (held.len(), None);
        for (repository, outcome) in others.iter().zip(join_all(puts).await) {
            match outcome {
                Ok(()) => reached += 1,
                Err(WalArchiveError::Repository(error)) => {
                    tracing::warn!(repository = repository.name(), %error, "registration not stored");
                    problem.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let needed = self.repositories.quorum();
        match problem {
            Some(source) if reached < needed => {
                Err(CoreError::Quorum { reached, needed, source: Box::new(source) }.into())
            }
            _ => Ok(record),
        }
    }

    async fn create_in(
        &self,
        repository: &Repository,
        record: &ClusterRecord,
        body: Bytes,
    ) -> Result<(), WalArchiveError> {
        let attributes = Attributes::default().content_type("application/json");
        let key = layout::cluster(&self.stanza, record.number);
        // Looked at first: a record is there almost always, and a role may be refused what it need not do.
        match self.read(repository, record.number).await {
            Ok(there) => return self.mine(&there, record),
            Err(WalArchiveError::Repository(CoreError::Store { source, .. })) if source.is_absent() => {}
            Err(error) => return Err(error),
        }
        match repository.store().put(&key, body, PutMode::Create, &attributes).await {
            Ok(_) => Ok(()),
            Err(StoreError::AlreadyExists { .. }) => {
                self.mine(&self.read(repository, record.number).await?, record)
            }
            Err(source) => Err(repository.failed("register the cluster", source).into()),
        }
    }

    /// Whether what is there is what was to be written.
    fn mine(&self, there: &ClusterRecord, record: &ClusterRecord) -> Result<(), WalArchiveError> {
        let (registered, found) = (there.system_identifier, record.system_identifier);
        if registered == found {
            return Ok(());
        }
        Err(WalArchiveError::OtherCluster { stanza: self.stanza.clone(), registered, found })
    }

    fn agree(&self, first: &ClusterRecord, second: &ClusterRecord) -> Result<(), WalArchiveError> {
        let (first, second) = (first.system_identifier, second.system_identifier);
        if first == second {
            return Ok(());
        }
        Err(WalArchiveError::Disputed { stanza: self.stanza.clone(), first, second })
    }

    fn record(&self, number: u32, cluster: ClusterIdentity, tool: &str) -> ClusterRecord {
        ClusterRecord {
            format: FORMAT_MAJOR,
            stanza: self.stanza.clone(),
            number,
            system_identifier: cluster.system,
            server_major: cluster.major,
            segment_size: cluster.segment_size.bytes(),
            registered: self.repositories.clock().now(),
            tool: tool.to_owned(),
            unknown: Map::new(),
        }
    }
}
