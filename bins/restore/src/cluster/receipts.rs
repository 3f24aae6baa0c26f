//! Where receipts are kept.

use std::io::Write;
use std::path::{Path, PathBuf};

use backstay_backup_core::proof::{Proof, ProofKind};
use backstay_cli::{Context, Failure, Opened};
use backstay_postgres_ops::cluster_restore::ClusterReceipt;

const TOOL: &str = concat!("restore-cluster ", env!("CARGO_PKG_VERSION"));

/// Beside the data directory, never in it.
fn place(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(".backstay-restore.json");
    name.into()
}

/// Writes a receipt, in the place of an earlier one of the same directory.
pub(super) fn write(receipt: &ClusterReceipt) -> Result<PathBuf, Failure> {
    let place = place(&receipt.target);
    let failed = |error: std::io::Error| {
        let what = format!("the cluster is restored, but its receipt {} cannot be written", place.display());
        Failure::new(backstay_backup_core::Class::Temporary, format!("{what}: {error}"))
    };
    let text = serde_json::to_vec_pretty(receipt).map_err(|error| failed(error.into()))?;
    let temporary = place.with_extension("json.tmp");
    let mut file = std::fs::File::create(&temporary).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&temporary, &place).map_err(failed)?;
    Ok(place)
}

/// The receipt of the last restore into a directory.
pub(super) fn read(data: &Path) -> Result<ClusterReceipt, Failure> {
    let data = std::path::absolute(data).map_err(|error| Failure::usage(error.to_string()))?;
    let place = place(&data);
    let unusable = |problem: String| {
        Failure::usage(format!("the receipt {} cannot be read: {problem}", place.display()))
            .with_hint("name the directory that this program restored into")
    };
    let text = std::fs::read(&place).map_err(|error| unusable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))
}

/// Keeps the receipt beside every copy of its set; gives what did not work.
pub(super) async fn prove(ctx: &Context, opened: &Opened, receipt: &ClusterReceipt) -> Vec<String> {
    let (stanza, set) = (ctx.stanza().clone(), receipt.set.clone());
    let proof = Proof::new(ProofKind::RestoreTest, stanza, set, TOOL, receipt.finished, true);
    let proof = proof.restore(receipt.proof());
    let mut notes = Vec::new();
    for repository in opened.repositories.members() {
        let has_it = repository.manifest(ctx.stanza(), &receipt.set).await.is_ok();
        if has_it && let Err(error) = proof.store(repository).await {
            let failure = Failure::from(error);
            notes.push(format!("the receipt is not kept in {}: {}", repository.name(), failure.message()));
        }
    }
    notes
}
