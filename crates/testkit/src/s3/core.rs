//! What all requests of one server share.

use s3s::dto::Timestamp;

use super::access_log::AccessLog;
use super::conditions::RivalGate;
use super::faults::FaultControl;
use super::options::Credential;
use super::store::Store;

#[derive(Debug)]
pub(super) struct Core {
    pub(super) store: Store,
    pub(super) credentials: Vec<Credential>,
    pub(super) min_part_size: u64,
    pub(super) opaque_etags: bool,
    pub(super) faults: FaultControl,
    pub(super) log: AccessLog,
    pub(super) gate: RivalGate,
}

impl Core {
    pub(super) fn credential(&self, access_key: &str) -> Option<&Credential> {
        self.credentials.iter().find(|credential| credential.access_key == access_key)
    }

    /// The time by the server's clock.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from(self.faults.now())
    }
}
