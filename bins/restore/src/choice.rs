//! Which set is restored, when none is named.

use backstay_backup_core::catalog::{Catalog, Filter, SetSummary};
use backstay_cli::Failure;

/// The newest good set that fits. Newer ones that are not good are told: whoever expects their state should know.
pub(crate) fn newest_good<'a>(catalog: &'a Catalog, filter: &Filter) -> Result<&'a SetSummary, Failure> {
    let chosen = catalog.newest_good(filter)?;
    let mut of_the_same = filter.clone();
    of_the_same.database = chosen.manifest.as_ref().map(|manifest| manifest.source.database.clone());
    let fits = |set: &SetSummary| catalog.select(&of_the_same).any(|fitting| fitting.id == set.id);
    for set in catalog.sets.iter().take_while(|set| set.id != chosen.id).filter(|set| !set.is_good()) {
        if set.manifest.is_none() || fits(set) {
            let problems = set.problems().join("; ");
            tracing::warn!(set = %set.id, problems, "a newer set is passed over, because it is not good");
        }
    }
    Ok(chosen)
}
