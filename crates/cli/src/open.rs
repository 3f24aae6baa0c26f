//! Opens the configured repositories: the store, its wrappers, the repository on top.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use backstay_backup_core::config::{Checksums, LockMode, Place, RepositoryConfig, S3Config, Sse};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::limit::{Limit, Limits};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::retry::{Retry, RetryPolicy};
use backstay_backup_core::store::{SharedStore, StoreError};
use backstay_backup_core::{Class, Error as CoreError};
use backstay_storage_s3::{Credentials, Encryption, S3Options, S3Store};
use futures::future::{join, join_all};

use crate::context::Context;
use crate::failure::Failure;

/// The repositories that could be opened, and those that could not.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// Those to work with; at least one.
    pub repositories: Repositories,
    /// Those left out.
    pub unavailable: Vec<Unavailable>,
}

/// A configured repository that could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unavailable {
    /// Its name.
    pub name: String,
    /// Why.
    pub failure: Failure,
}

/// A store as it is, without retries and limits, for whoever wants to look at its nature.
#[derive(Clone, Debug)]
pub enum BareStore {
    /// A directory.
    Directory(SharedStore),
    /// A bucket.
    S3(S3Store),
}

/// One attempt to open a repository.
enum Attempt {
    Opened(Repository),
    /// The place exists, or could be made, and is no repository.
    Fresh(Failure),
    Failed(Failure),
}

/// Opens the repositories that exist.
pub(crate) async fn existing(context: &Context) -> Result<Opened, Failure> {
    at_least(context, 1).await
}

/// Opens the repositories that exist, and no fewer than the quorum.
pub(crate) async fn quorum(context: &Context) -> Result<Opened, Failure> {
    at_least(context, context.config.quorum).await
}

async fn at_least(context: &Context, needed: usize) -> Result<Opened, Failure> {
    let configured = configured(context)?;
    let attempts = join_all(configured.iter().map(|config| attempt(context, config))).await;
    conclude_all(context, configured, attempts, needed)
}

/// Opens the repositories that exist, and reads from them meanwhile: `work` gets all that are configured, and what it
/// found counts when each of them has turned out to be a repository. Else it is done again, with those that are.
///
/// It must only read: what it reads from may be anything.
pub(crate) async fn meanwhile<T>(
    context: &Context,
    work: impl AsyncFn(Repositories) -> T,
) -> Result<(Opened, T), Failure> {
    let configured = configured(context)?;
    let stores = join_all(configured.iter().map(|config| store(context, config, false))).await;
    let assumed = configured.iter().zip(&stores).filter_map(|(config, store)| {
        store.as_ref().ok().map(|store| Repository::assume(&config.name, Arc::clone(store)))
    });
    let assumed: Vec<Repository> = assumed.collect();
    if assumed.len() < configured.len() {
        let opened = existing(context).await?;
        let found = work(opened.repositories.clone()).await;
        return Ok((opened, found));
    }
    let quorum = context.config.quorum.min(assumed.len());
    let attempts = join_all(assumed.iter().map(proven));
    let reading = work(Repositories::new(assumed.clone(), quorum, context.clock.clone())?);
    let (attempts, found) = join(attempts, reading).await;
    let opened = conclude_all(context, configured, attempts, 1)?;
    if opened.unavailable.is_empty() {
        return Ok((opened, found));
    }
    let found = work(opened.repositories.clone()).await;
    Ok((opened, found))
}

fn conclude_all(
    context: &Context,
    configured: &[RepositoryConfig],
    attempts: Vec<Attempt>,
    needed: usize,
) -> Result<Opened, Failure> {
    let (mut members, mut unavailable) = (Vec::new(), Vec::new());
    for (config, attempt) in configured.iter().zip(attempts) {
        match attempt {
            Attempt::Opened(repository) => members.push(repository),
            Attempt::Fresh(failure) | Attempt::Failed(failure) => {
                unavailable.push(Unavailable { name: config.name.clone(), failure });
            }
        }
    }
    conclude(context, members, unavailable, needed)
}

/// Opens the repositories that exist and creates the others, if `check` finds nothing against it.
pub(crate) async fn or_create(
    context: &Context,
    check: impl Future<Output = Result<(), Failure>>,
) -> Result<Opened, Failure> {
    let mut found = Vec::new();
    let mut any_fresh = false;
    for config in configured(context)? {
        let attempt = attempt(context, config).await;
        any_fresh |= matches!(attempt, Attempt::Fresh(_));
        found.push((config, attempt));
    }
    if any_fresh {
        check.await?;
    }
    let mut members = Vec::new();
    let mut unavailable = Vec::new();
    for (config, attempt) in found {
        let result = match attempt {
            Attempt::Opened(repository) => Ok(repository),
            Attempt::Fresh(_) => create(context, config).await,
            Attempt::Failed(failure) => Err(failure),
        };
        match result {
            Ok(repository) => members.push(repository),
            Err(failure) => unavailable.push(Unavailable { name: config.name.clone(), failure }),
        }
    }
    conclude(context, members, unavailable, context.config.quorum)
}

pub(crate) fn configured(context: &Context) -> Result<&[RepositoryConfig], Failure> {
    match context.config.repository.as_slice() {
        [] => Err(Failure::usage("no repository is configured")
            .with_hint("add --repository ./backups, or a [[repository]] section to the configuration")),
        configured => Ok(configured),
    }
}

fn conclude(
    context: &Context,
    members: Vec<Repository>,
    mut unavailable: Vec<Unavailable>,
    needed: usize,
) -> Result<Opened, Failure> {
    if members.len() < needed {
        return Err(unavailable.swap_remove(0).failure);
    }
    for Unavailable { name, failure } in &unavailable {
        tracing::warn!(repository = name, "left out: {}", failure.to_string().replace('\n', "; "));
    }
    let quorum = context.config.quorum.min(members.len());
    Ok(Opened { repositories: Repositories::new(members, quorum, context.clock.clone())?, unavailable })
}

async fn attempt(context: &Context, config: &RepositoryConfig) -> Attempt {
    let store = match store(context, config, false).await {
        Ok(store) => store,
        Err(failure) if is_missing_directory(config, &failure) => return Attempt::Fresh(failure),
        Err(failure) => return Attempt::Failed(failure),
    };
    proven(&Repository::assume(&config.name, store)).await
}

/// Asks whether it is a repository.
async fn proven(assumed: &Repository) -> Attempt {
    match Repository::open(assumed.name(), Arc::clone(assumed.store())).await {
        Ok(repository) => Attempt::Opened(repository),
        Err(error @ CoreError::NotARepository { .. }) => Attempt::Fresh(error.into()),
        Err(error) => Attempt::Failed(error.into()),
    }
}

fn is_missing_directory(config: &RepositoryConfig, failure: &Failure) -> bool {
    let missing = matches!(failure.error().downcast_ref(), Some(StoreError::Missing { .. }));
    missing && matches!(config.place(), Place::Directory(_))
}

async fn create(context: &Context, config: &RepositoryConfig) -> Result<Repository, Failure> {
    let store = store(context, config, true).await?;
    Ok(Repository::open_or_create(&config.name, store, context.clock.as_ref()).await?)
}

/// The store of a repository with its limits, and with retries where there is a network.
async fn store(context: &Context, config: &RepositoryConfig, create: bool) -> Result<SharedStore, Failure> {
    let store: SharedStore = match bare(context, config, create).await? {
        BareStore::Directory(store) => store,
        BareStore::S3(store) => Arc::new(Retry::new(Arc::new(store), RetryPolicy::default())),
    };
    let rate = config.limits.bytes_per_second.map(|size| size.bytes());
    let mut limits = Limits::default().bytes_per_second(rate);
    if let Some(calls) = config.limits.concurrency {
        limits = limits.concurrency(usize::try_from(calls.get()).unwrap_or(usize::MAX));
    }
    Ok(Arc::new(Limit::new(store, limits)))
}

/// The store of a repository as it is.
pub(crate) async fn bare(
    context: &Context,
    config: &RepositoryConfig,
    create: bool,
) -> Result<BareStore, Failure> {
    match config.place() {
        Place::Directory(path) => local(path, create).await.map(BareStore::Directory),
        Place::S3(s3) => bucket(context, s3).await.map(BareStore::S3),
        other => Err(Failure::new(Class::Internal, format!("no store for {other:?}"))),
    }
}

/// A bucket as it is.
pub(crate) async fn bucket(context: &Context, config: &S3Config) -> Result<S3Store, Failure> {
    let store = S3Store::open(s3_options(context, config).await?).await;
    store.map_err(|error| Failure::new(Class::Usage, error))
}

/// Opens a directory. For a backup a missing one is made, but a directory with other things in it is not taken over.
async fn local(path: &Path, create: bool) -> Result<SharedStore, Failure> {
    let root = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || match (create, in_use(&root)) {
        _ if root.metadata().is_ok_and(|found| !found.is_dir()) => {
            Err(Failure::usage(format!("{} is not a directory", root.display()))
                .with_hint("name an empty or missing directory; the first backup makes it a repository"))
        }
        (true, true) => Err(Failure::usage(format!(
            "directory {} has other things in it and is no repository",
            root.display()
        ))
        .with_hint("name an empty or missing directory; the first backup makes it a repository")),
        (true, false) => Ok(LocalStore::create(root)?),
        (false, _) => Ok(LocalStore::open(root)?),
    });
    let store = opened.await.map_err(|error| Failure::new(Class::Internal, error))??;
    Ok(Arc::new(store))
}

/// Whether a directory holds something, but no repository.
fn in_use(root: &Path) -> bool {
    let description = backstay_backup_core::repository::layout::description();
    let filled = std::fs::read_dir(root).is_ok_and(|mut entries| {
        // What begins with a dot (`.snapshot`, `.nfs…`) belongs to file systems, `lost+found` too; `probe` is what
        // `check-storage` may leave.
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name();
                !name.as_encoded_bytes().starts_with(b".") && name != "lost+found" && name != "probe"
            })
        })
    });
    filled && !root.join(description.as_str()).exists()
}

async fn s3_options(context: &Context, config: &S3Config) -> Result<S3Options, Failure> {
    let prefix = Prefix::parse(&config.prefix).map_err(|error| Failure::new(Class::Usage, error))?;
    let mut options = S3Options::new(&config.bucket)
        .prefix(prefix)
        .path_style(config.path_style)
        .conditional_writes(config.conditional_writes)
        .credentials(credentials(context, config).await?)
        .checksums(match config.checksums {
            Checksums::Compatible => backstay_storage_s3::Checksums::Compatible,
            _ => backstay_storage_s3::Checksums::default(),
        });
    if let Some(region) = &config.region {
        options = options.region(region);
    }
    if let Some(endpoint) = &config.endpoint {
        options = options.endpoint(endpoint);
    }
    if let Some(class) = &config.storage_class {
        options = options.storage_class(class);
    }
    match config.sse {
        Some(Sse::Aes256) => options = options.encryption(Encryption::Aes256),
        Some(_) => {
            options = options.encryption(Encryption::Kms { key: config.kms_key.clone(), bucket_key: true });
        }
        None => {}
    }
    if let Some(lock) = config.object_lock {
        options = options.lock(match lock.mode {
            LockMode::Compliance => backstay_storage_s3::LockMode::Compliance,
            _ => backstay_storage_s3::LockMode::Governance,
        });
    }
    Ok(config.tags.iter().fold(options, |options, (name, value)| options.tag(name, value)))
}

async fn credentials(context: &Context, config: &S3Config) -> Result<Credentials, Failure> {
    match (&config.access_key_id, &config.secret_access_key) {
        (Some(id), Some(secret)) => Ok(Credentials::Static {
            access_key_id: context.secret(id).await?.expose().clone(),
            secret_access_key: context.secret(secret).await?,
            session_token: None,
        }),
        _ => Ok(Credentials::Chain { profile: config.profile.clone() }),
    }
}
