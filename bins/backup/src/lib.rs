//! What the backup programs do; each program is one screen on top of one module.

pub mod database;
