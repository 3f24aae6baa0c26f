//! Asks whether the stanza is this cluster's, and remembers a good answer for a while.

use std::time::Duration;

use backstay_cli::Failure;
use backstay_postgres_ops::wal::{SegmentHeader, SystemId};
use backstay_postgres_ops::wal_archive::{ClusterIdentity, ClusterRegistry, WalArchiveError};

use super::TOOL;
use crate::data_directory::DataDirectory;
use crate::spool::Spool;

/// The note of a good answer. The spool is one of this cluster and this destination, so its age is all it says.
const NOTE: &str = "registered";
/// How long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(15 * 60);

/// Registers the cluster if the stanza has none; refuses it if the stanza is another's.
pub(super) async fn ensure(
    registry: &ClusterRegistry,
    system: SystemId,
    header: Option<SegmentHeader>,
    spool: Option<&Spool>,
) -> Result<(), WalArchiveError> {
    if spool.is_some_and(is_remembered) {
        return Ok(());
    }
    match header {
        Some(header) => {
            let cluster = ClusterIdentity { system, ..header.into() };
            registry.ensure(cluster, TOOL).await?;
        }
        // Texts say nothing of a cluster: they are let through, and the first segment registers it.
        None => registry.check(system).await?,
    }
    if let Some(spool) = spool {
        // Not remembered costs two requests for the next segment.
        let _ = spool.write(NOTE, &system.to_string());
    }
    Ok(())
}

fn is_remembered(spool: &Spool) -> bool {
    let age = std::fs::metadata(spool.file(NOTE)).and_then(|found| found.modified());
    // A note of the future is none: the clock was set back.
    age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < BELIEVED))
}

/// What a data directory says of its cluster.
pub(super) fn identity(data: &DataDirectory, system: Option<u64>) -> Result<ClusterIdentity, Failure> {
    let unable = |error: std::io::Error| {
        Failure::usage(format!("cannot read the cluster in {}: {error}", data.root().display()))
            .with_hint("run it in the data directory, as the user of the server")
    };
    let header = data.any_header().map_err(unable)?;
    let found = data.system().map_err(unable)?;
    if let Some(system) = system.filter(|system| *system != found.number()) {
        return Err(Failure::usage(format!("the cluster here is {found}, not {system}")));
    }
    Ok(ClusterIdentity { system: found, ..header.into() })
}
