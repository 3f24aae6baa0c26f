//! Where receipts are kept.

use std::io::Write;
use std::path::{Path, PathBuf};

use backstay_backup_core::Class;
use backstay_backup_core::proof::{Proof, ProofKind};
use backstay_cli::{Context, Failure, Opened};
use backstay_redis_ops::restore::RestoreReceipt;

const TOOL: &str = concat!("restore-redis ", env!("CARGO_PKG_VERSION"));
/// Servers load nothing of that name.
const NAME: &str = "backstay-restore.json";

/// Writes a receipt into the data directory, in the place of an earlier one.
pub(super) fn write(receipt: &RestoreReceipt) -> Result<PathBuf, Failure> {
    let place = receipt.expected.directory.join(NAME);
    let failed = |error: std::io::Error| {
        let what = format!("the data is restored, but its receipt {} cannot be written", place.display());
        Failure::new(Class::Temporary, format!("{what}: {error}"))
    };
    let text = serde_json::to_vec_pretty(receipt).map_err(|error| failed(error.into()))?;
    let temporary = place.with_extension("json.tmp");
    let mut file = std::fs::File::create(&temporary).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&temporary, &place).map_err(failed)?;
    Ok(place)
}

/// The receipt of the last restore into a directory.
pub(super) fn read(directory: &Path) -> Result<RestoreReceipt, Failure> {
    let place = directory.join(NAME);
    let unusable = |problem: String| {
        Failure::usage(format!("the receipt {} cannot be read: {problem}", place.display()))
            .with_hint("name the directory that this program restored into")
    };
    let text = std::fs::read(&place).map_err(|error| unusable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))
}

/// Keeps the receipt beside every copy of its set; gives what did not work.
pub(super) async fn prove(ctx: &Context, opened: &Opened, receipt: &RestoreReceipt) -> Vec<String> {
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
