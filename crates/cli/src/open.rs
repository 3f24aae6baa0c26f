//! Opens the configured repositories: the store, its wrappers, the repository on top.

use std::path::Path;
use std::sync::Arc;

use backstay_backup_core::Class;
use backstay_backup_core::config::{Checksums, LockMode, Place, RepositoryConfig, S3Config, Sse};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::limit::{Limit, Limits};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::retry::{Retry, RetryPolicy};
use backstay_backup_core::store::SharedStore;
use backstay_storage_s3::{Credentials, Encryption, S3Options, S3Store};

use crate::context::Context;
use crate::failure::Failure;

/// What the repositories are opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read,
    /// A missing or empty place becomes a repository.
    Write,
}

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

pub(crate) async fn repositories(context: &Context, purpose: Purpose) -> Result<Opened, Failure> {
    let configured = &context.config.repository;
    if configured.is_empty() {
        return Err(Failure::usage("no repository is configured")
            .with_hint("add --repository ./backups, or a [[repository]] section to the configuration"));
    }
    let mut members = Vec::new();
    let mut unavailable = Vec::new();
    for config in configured {
        match repository(context, config, purpose).await {
            Ok(repository) => members.push(repository),
            Err(failure) => unavailable.push(Unavailable { name: config.name.clone(), failure }),
        }
    }
    let needed = if purpose == Purpose::Write { context.config.quorum } else { 1 };
    if members.len() < needed {
        return Err(unavailable.swap_remove(0).failure);
    }
    for Unavailable { name, failure } in &unavailable {
        tracing::warn!(repository = name, "left out: {}", failure.to_string().replace('\n', "; "));
    }
    let quorum = context.config.quorum.min(members.len());
    Ok(Opened { repositories: Repositories::new(members, quorum, context.clock.clone())?, unavailable })
}

async fn repository(
    context: &Context,
    config: &RepositoryConfig,
    purpose: Purpose,
) -> Result<Repository, Failure> {
    let store = store(context, config, purpose).await?;
    match purpose {
        Purpose::Read => Ok(Repository::open(&config.name, store).await?),
        Purpose::Write => Ok(Repository::open_or_create(&config.name, store, context.clock.as_ref()).await?),
    }
}

/// The store of a repository with its limits, and with retries where there is a network.
pub(crate) async fn store(
    context: &Context,
    config: &RepositoryConfig,
    purpose: Purpose,
) -> Result<SharedStore, Failure> {
    let store: SharedStore = match config.place() {
        Place::Directory(path) => local(path, purpose).await?,
        Place::S3(s3) => {
            let store = S3Store::open(s3_options(context, s3).await?).await;
            let store = store.map_err(|error| Failure::new(Class::Usage, error))?;
            Arc::new(Retry::new(Arc::new(store), RetryPolicy::default()))
        }
        other => return Err(Failure::new(Class::Internal, format!("no store for {other:?}"))),
    };
    let mut limits =
        Limits::default().bytes_per_second(config.limits.bytes_per_second.map(|size| size.bytes()));
    if let Some(calls) = config.limits.concurrency {
        limits = limits.concurrency(usize::try_from(calls.get()).unwrap_or(usize::MAX));
    }
    Ok(Arc::new(Limit::new(store, limits)))
}

/// Opens a directory. For a backup a missing one is made, but a directory with other things in it is not taken over.
async fn local(path: &Path, purpose: Purpose) -> Result<SharedStore, Failure> {
    let root = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || match (purpose, in_use(&root)) {
        (Purpose::Write, true) => Err(Failure::usage(format!(
            "directory {} has other things in it and is no repository",
            root.display()
        ))
        .with_hint("name an empty or missing directory; the first backup makes it a repository")),
        (Purpose::Write, false) => Ok(LocalStore::create(root)?),
        (Purpose::Read, _) => Ok(LocalStore::open(root)?),
    });
    let store = opened.await.map_err(|error| Failure::new(Class::Internal, error))??;
    Ok(Arc::new(store))
}

/// Whether a directory holds something, but no repository.
fn in_use(root: &Path) -> bool {
    let description = backstay_backup_core::repository::layout::description();
    let filled = std::fs::read_dir(root).is_ok_and(|mut entries| {
        // What begins with a dot (`.snapshot`, `.nfs…`) belongs to file systems, `lost+found` too.
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name();
                !name.as_encoded_bytes().starts_with(b".") && name != "lost+found"
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
