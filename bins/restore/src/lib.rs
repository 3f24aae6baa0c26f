//! What the restore programs do; each program is one screen on top of one module.

mod choice;
pub mod cluster;
pub mod code;
pub mod config;
pub mod database;
pub mod redis;
