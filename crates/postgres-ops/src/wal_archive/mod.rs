//! The write-ahead log of a cluster in repositories: one write-once object for each file.
//!
//! ```text
//! pg_wal/0000…FE ─ check header ─ zstd frames ─ age ─ seal ─ create-only put in every repository ─ receipt at the quorum
//! ```
//!
//! PostgreSQL gives a file to its `archive_command` again when a call failed, when the server crashed before it noted the
//! success, and sometimes without a reason. So a push of what is there already succeeds, by the seal that every object
//! carries ([`backstay_backup_core::sealed`]), and a push of something else under the same name is refused for ever:
//! two clusters write to one archive, and one of them must stop.
//!
//! | what fails | what remains, what is answered |
//! |---|---|
//! | the file is not what its name says, or of another cluster | nothing stored; refused, again and again |
//! | a store, until its retries are spent | whole objects in the others; success only at the quorum |
//! | the reply of a store is lost | the object is looked at: mine already |
//! | the same name with other content in a repository | it stays; refused, and the repository named |
//! | a copy that is read is damaged, or its store fails | another repository's copy; else an error, never "absent" |
//! | a file is nowhere, but something after it is | an error that names both: recovery must not end there |
//! | this process (kill -9) or the power | whole objects or nothing; PostgreSQL pushes again |

mod absence;
mod after;
mod error;
mod fetch;
mod fetch_file;
mod holdings;
mod presence;
mod push;
mod push_file;
mod registry;
mod runs;
mod survey;

pub use error::WalArchiveError;
pub use fetch::Fetched;
pub use fetch_file::{FetchedFile, OpenTarget};
pub use holdings::parse_key;
pub use push::{PushReceipt, WalArchive};
pub use push_file::{PreparedFile, WalSource, prepare};
pub use registry::{ClusterIdentity, ClusterRecord, ClusterRegistry};
pub use runs::{Run, Runs};
pub use survey::{HistoryState, RepositoryWal, TimelineWal, WalSurvey, survey_stanza};
