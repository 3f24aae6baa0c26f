//! What a spool is valid for: where to, from which cluster, of which directory.

use std::io;

use backstay_backup_core::config::Config;
use backstay_postgres_ops::wal::SystemId;
use xxhash_rust::xxh3::Xxh3;

use crate::data_directory::DataDirectory;

/// A number that differs as soon as the stanza, the repositories, the quorum, the keys, the cluster or its data directory
/// do: a segment that was archived somewhere else is not archived here.
pub(crate) fn key(config: &Config, system: SystemId, data: &DataDirectory) -> io::Result<u128> {
    let mut hasher = Xxh3::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(config.stanza.as_str());
    add(&config.quorum.to_string());
    for recipient in &config.encryption.recipients {
        add(recipient);
    }
    for repository in &config.repository {
        add(&repository.name);
        // Names what is configured; secrets show themselves only as references.
        add(&format!("{:?}", repository.place()));
    }
    add(&system.to_string());
    add(&format!("{:?}", data.identity()?));
    Ok(hasher.digest128())
}
