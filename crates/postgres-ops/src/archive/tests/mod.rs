//! Tests against archives made here byte by byte; real ones of `pg_dump` are in the crate's `tests` folder.

mod filter;
mod rows;
mod sample;
mod scanner;
mod toc;
