//! What the doctor says.

use std::fmt;

use backstay_backup_core::key::{Key, Prefix};
use serde::{Serialize, Serializer};

use super::Role;

/// One question to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Probe {
    /// What was written comes back.
    RoundTrip,
    /// A second create of a key is refused.
    CreateOnly,
    /// Of writers that create one key at the same moment exactly one succeeds.
    CreateRace,
    /// A multipart upload cannot replace an existing object.
    CreateOnlyUpload,
    /// A replacement with an outdated tag, or of a missing key, is refused.
    CompareAndSwap,
    /// Of writers that replace one version at the same moment exactly one succeeds.
    SwapRace,
    /// A listing shows what was just written.
    ListAfterWrite,
    /// A finished upload is whole, an aborted one is gone.
    Multipart,
    /// The store's clock agrees with ours.
    Clock,
    /// The credential deletes exactly when it should be able to.
    DeletePermission,
    /// The credential cannot replace objects without condition.
    OverwritePermission,
    /// Bytes that do not match their checksum are refused.
    WrongChecksum,
    /// Bytes sent with a checksum behind them are stored without the framing.
    TrailingChecksum,
    /// A locked version cannot be deleted, nor its lock shortened.
    ObjectLock,
    /// Storage class and encryption are the ones asked for.
    StoredAs,
}

impl Probe {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 15] = [
        Self::RoundTrip,
        Self::CreateOnly,
        Self::CreateRace,
        Self::CreateOnlyUpload,
        Self::CompareAndSwap,
        Self::SwapRace,
        Self::ListAfterWrite,
        Self::Multipart,
        Self::Clock,
        Self::DeletePermission,
        Self::OverwritePermission,
        Self::WrongChecksum,
        Self::TrailingChecksum,
        Self::ObjectLock,
        Self::StoredAs,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundTrip => "round-trip",
            Self::CreateOnly => "create-only",
            Self::CreateRace => "create-race",
            Self::CreateOnlyUpload => "create-only-upload",
            Self::CompareAndSwap => "compare-and-swap",
            Self::SwapRace => "swap-race",
            Self::ListAfterWrite => "list-after-write",
            Self::Multipart => "multipart",
            Self::Clock => "clock",
            Self::DeletePermission => "delete-permission",
            Self::OverwritePermission => "overwrite-permission",
            Self::WrongChecksum => "wrong-checksum",
            Self::TrailingChecksum => "trailing-checksum",
            Self::ObjectLock => "object-lock",
            Self::StoredAs => "stored-as",
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An answer, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The question makes no sense for this store or was not asked.
    NotApplicable,
    /// The store does what Backstay relies on.
    Safe,
    /// It could not be found out; never to be read as safe.
    Unknown,
    /// The store does not do it.
    Unsafe,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotApplicable => "not applicable",
            Self::Safe => "safe",
            Self::Unknown => "unknown",
            Self::Unsafe => "unsafe",
        })
    }
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The question.
    pub probe: Probe,
    /// The answer.
    pub status: Status,
    /// What was seen and what it means for backups.
    pub meaning: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// An object that the doctor had to leave in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Leftover {
    /// Its key.
    pub key: Key,
    /// Why it is still there.
    pub reason: String,
}

/// Everything the doctor found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The store.
    pub location: String,
    /// What the credential was said to be for.
    pub role: Role,
    /// The worst status of all findings, [`Status::NotApplicable`] aside.
    pub verdict: Status,
    /// One finding for every [`Probe`], in the order of [`Probe::ALL`].
    pub findings: Vec<Finding>,
    /// Folder of the probe objects.
    #[serde(serialize_with = "text")]
    pub folder: Prefix,
    /// Objects still in it.
    pub leftovers: Vec<Leftover>,
}

impl Diagnosis {
    /// The finding of one probe.
    #[must_use]
    pub fn finding(&self, probe: Probe) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.probe == probe)
    }
}

fn text<S: Serializer>(folder: &Prefix, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(folder)
}

/// The verdict over findings: unknown is no safety, and nothing asked is nothing known.
pub(super) fn verdict(findings: &[Finding]) -> Status {
    let worst = findings.iter().map(|finding| finding.status).max();
    match worst {
        None | Some(Status::NotApplicable) => Status::Unknown,
        Some(status) => status,
    }
}

/// An answer before it is known which probe gave it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) meaning: String,
    pub(super) remedy: Option<String>,
}

impl Answer {
    pub(super) fn safe(meaning: impl Into<String>) -> Self {
        Self { status: Status::Safe, meaning: meaning.into(), remedy: None }
    }

    pub(super) fn not_applicable(meaning: impl Into<String>) -> Self {
        Self { status: Status::NotApplicable, meaning: meaning.into(), remedy: None }
    }

    pub(super) fn unknown(meaning: impl Into<String>) -> Self {
        Self { status: Status::Unknown, meaning: meaning.into(), remedy: None }
    }

    pub(super) fn unsafe_because(meaning: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Unsafe, meaning: meaning.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn of(self, probe: Probe) -> Finding {
        Finding { probe, status: self.status, meaning: self.meaning, remedy: self.remedy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_never_safe() {
        let safe = || Answer::safe("").of(Probe::RoundTrip);
        let unknown = || Answer::unknown("").of(Probe::Clock);
        let bad = || Answer::unsafe_because("", "").of(Probe::CreateOnly);
        let skipped = || Answer::not_applicable("").of(Probe::ObjectLock);
        assert_eq!(verdict(&[safe(), skipped()]), Status::Safe);
        assert_eq!(verdict(&[safe(), unknown(), skipped()]), Status::Unknown);
        assert_eq!(verdict(&[unknown(), bad(), safe()]), Status::Unsafe);
        assert_eq!(verdict(&[skipped()]), Status::Unknown);
    }

    #[test]
    fn names_are_the_same_in_text_and_json() {
        for probe in Probe::ALL {
            assert_eq!(serde_json::to_value(probe).unwrap(), probe.as_str());
        }
    }
}
