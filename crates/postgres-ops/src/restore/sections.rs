//! Runs sections of the main archive: definitions before the rows, and what comes after them.
//!
//! Attaching the index of a partition to that of its parent makes the parent's valid with the last one. Where
//! partitions have partitions, two sessions that attach at the same time can leave the topmost index invalid (seen on
//! PostgreSQL 15 with `pg_restore -j`), and no foreign key can refer to it. So attachments go one after another, between
//! what they need and what needs them.

use std::collections::HashSet;

use super::choose::is_preamble;
use super::job::Job;
use crate::archive::{ArchiveToc, DumpId, Section};
use crate::client::Client;
use crate::error::Error;
use crate::evidence::creates_public;
use crate::server::memory_path;

impl Job<'_> {
    /// Makes everything that rows need.
    pub(super) async fn pre_data(&self) -> Result<(), Error> {
        self.section(Section::PreData, 1, |_| true).await
    }

    /// Makes everything that comes after the rows and is not `built` yet.
    pub(super) async fn post_data(&self, built: &HashSet<DumpId>) -> Result<(), Error> {
        let Some(main) = self.archives.first() else { return Ok(()) };
        let jobs = self.options.jobs;
        let mut attachments = attachments(&main.toc);
        attachments.retain(|id| self.is_chosen(*id));
        if jobs < 2 || attachments.is_empty() {
            return self.section(Section::PostData, jobs, |id| !built.contains(&id)).await;
        }
        let after = main.toc.closure(attachments.iter().copied());
        let is_before = |id| !built.contains(&id) && !after.contains(&id);
        let is_after = |id| after.contains(&id) && !attachments.contains(&id);
        self.section(Section::PostData, jobs, is_before).await?;
        self.section(Section::PostData, 1, |id| attachments.contains(&id)).await?;
        self.section(Section::PostData, jobs, is_after).await
    }

    /// Runs the entries of a section of the main archive that are chosen and `wanted`.
    pub(super) async fn section(
        &self,
        section: Section,
        jobs: usize,
        wanted: impl Fn(DumpId) -> bool,
    ) -> Result<(), Error> {
        let Some(main) = self.archives.first() else { return Ok(()) };
        let name = match section {
            Section::PreData => "pre-data",
            Section::Data => "data",
            _ => "post-data",
        };
        let is_there = |id| main.toc.find(id).is_some_and(creates_public);
        let list = main.list(|id| {
            let is_preamble = main.toc.find(id).is_some_and(is_preamble);
            is_preamble || (self.is_chosen(id) && wanted(id) && !is_there(id))
        })?;
        let mut arguments = self.arguments(&list);
        arguments.push(format!("--section={name}"));
        if jobs > 1 {
            arguments.push(format!("--jobs={jobs}"));
        }
        arguments.push(memory_path(&main.file));
        Client::start("pg_restore", &self.prepared.tool, &arguments, &self.server).await?.finish().await
    }
}

/// Attachments of indexes of partitions to those of their parents.
fn attachments(toc: &ArchiveToc) -> HashSet<DumpId> {
    toc.entries().iter().filter(|entry| entry.desc == "INDEX ATTACH").map(|entry| entry.dump_id).collect()
}
