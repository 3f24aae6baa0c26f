//! An S3 server for tests, the demo and benchmarks: correct where it matters, and wrong on demand.
//!
//! The ready-made servers let two concurrent creates win, ignore object lock, or store bytes whose checksum they
//! reject, so a client tested against them proves little. This one answers real clients over HTTP (signature and
//! chunked-body handling by the `s3s` crate) and decides every write in one critical section:
//!
//! ```text
//! signature → role → clock → fault rules → body to a blob, hashed on the way → checksums compared
//!          → one lock: conditions, object lock, journal line, visible → access log → reply (or none)
//! ```
//!
//! It does: objects with ranges, metadata, tags, storage class and encryption headers; multipart uploads; versions and
//! delete markers; retention and legal holds; conditional writes; all S3 checksums as header or trailer; roles
//! ([`Credential`]); an access log ([`S3Server::access_log`]); faults and misbehaviour while it runs ([`FaultControl`]).
//! Objects live in memory or in a directory; a directory can be opened again. Large bodies stream through either way.
//!
//! It does not: TLS, virtual-hosted buckets, bucket policies beyond the three roles, ACLs, copies, lifecycle,
//! replication, encryption (the headers are kept, the bytes stay plain), keys brought by the client, or several
//! checksums on one object. A repeated `CompleteMultipartUpload` gets `NoSuchUpload`, as S3's documentation allows. An
//! encryption header is only echoed when it was sent. Content-MD5 and checksums of requests without an object (such as
//! `DeleteObjects`) are not compared. Regions are not compared either. Nothing is fsynced: a directory survives the death of the
//! process, not of the machine.
//!
//! ```no_run
//! use backstay_testkit::s3::{Credential, Effect, FaultRule, Faults, S3Options, S3Server};
//!
//! # async fn example() -> Result<(), backstay_testkit::s3::Error> {
//! let options = S3Options::memory().bucket("backups").credential(Credential::writer("ak", "sk"));
//! let server = S3Server::start(options).await?;
//! server.faults().set(Faults::default().rule(FaultRule::on("PutObject", Effect::LoseReply).nth(3)));
//! // … point a client at `server.endpoint()`, path style …
//! assert!(server.access_log().iter().all(|record| !record.overwrote));
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

mod access_log;
mod api;
mod attributes;
mod blob;
mod conditions;
mod core;
mod digest;
mod error;
mod faults;
mod front;
mod lock;
mod model;
mod moto;
mod note;
mod ops_bucket;
mod ops_complete;
mod ops_delete;
mod ops_get;
mod ops_list;
mod ops_marks;
mod ops_multipart;
mod ops_put;
mod ops_uploads;
mod options;
mod permissions;
mod receive;
mod server;
mod store;

pub use access_log::AccessRecord;
pub use error::Error;
pub use faults::{Effect, FaultControl, FaultRule, Faults, Misbehaviour};
pub use moto::{Moto, moto_server};
pub use options::{BucketOptions, Credential, MIN_PART_SIZE, Role, S3Options};
pub use server::S3Server;
