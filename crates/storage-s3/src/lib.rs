//! Backstay's object store on Amazon S3 and the services that speak its protocol.
//!
//! - [`S3Store`] implements the seam of `backstay_backup_core::store`: create-only puts, compare-and-swap for leases,
//!   multipart uploads, ranged reads, listings as a stream. It does one attempt per call; repeating is the work of
//!   `backstay_backup_core::retry`, in one place for every kind of store.
//! - [`doctor`] asks a store for proof: many services accept the headers of conditional writes, checksums and object
//!   lock and ignore them. It works on every [`ObjectStore`](backstay_backup_core::store::ObjectStore), local
//!   directories too.
//! - `secrets_manager` (feature `secrets-manager`) resolves secrets kept in AWS Secrets Manager.
//!
//! # Permissions
//! A writer needs `s3:PutObject`, `s3:GetObject`, `s3:ListBucket`, `s3:ListBucketMultipartUploads` and
//! `s3:AbortMultipartUpload`, and should have no `s3:DeleteObject`; with object lock also `s3:PutObjectRetention`, with
//! tags `s3:PutObjectTagging`. **`s3:ListBucket` matters for reading too**: without it S3 answers 403 for an object that
//! does not exist, so absence can never be proven and every reader stops with "not allowed".
//!
//! # Credentials
//! Either given as values, and then neither the environment nor any file is read, or found by the AWS chain
//! (environment, profile, container, instance), which is the one place where this library lets a dependency look at
//! the environment: the caller asks for it with [`Credentials::Chain`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
pub mod doctor;
mod errors;
mod headers;
mod listing;
mod multipart;
mod options;
mod questions;
mod reply;
#[cfg(feature = "secrets-manager")]
pub mod secrets_manager;
mod store;
mod time;

pub use client::Error;
pub use options::{Checksums, Credentials, Encryption, LockMode, PayloadSigning, S3Options, Timeouts};
pub use store::S3Store;
