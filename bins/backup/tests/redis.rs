//! `backup-redis` on real servers: one, a replicated one, a cluster, Sentinels, of several versions.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "redis/bad_input.rs"]
mod bad_input;
#[path = "redis/certificates.rs"]
mod certificates;
#[path = "redis/harm.rs"]
mod harm;
#[path = "redis/one.rs"]
mod one;
#[path = "redis/scene.rs"]
mod scene;
#[path = "redis/settings.rs"]
mod settings;
mod support;
#[path = "redis/topologies.rs"]
mod topologies;
#[path = "redis/versions.rs"]
mod versions;
