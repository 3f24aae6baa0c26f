//! Definitions, rows and indexes: everything that `pg_restore` does.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstay_backup_core::progress::Progress;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::choose::is_preamble;
use super::job::{Job, OpenArchive, read_error};
use super::units::{Unit, plan_units};
use crate::archive::{DumpId, Section};
use crate::client::{Client, lost_thread};
use crate::error::Error;
use crate::server::memory_path;

impl Job<'_> {
    pub(super) fn is_chosen(&self, id: DumpId) -> bool {
        self.chosen.as_ref().is_none_or(|chosen| chosen.contains(&id))
    }

    pub(super) fn arguments(&self, list: &OwnedFd) -> Vec<String> {
        let mut arguments = vec![
            "--format=custom".to_owned(),
            "--exit-on-error".to_owned(),
            "--no-password".to_owned(),
            format!("--dbname={}", dbname(&self.server.database)),
            format!("--use-list={}", memory_path(list)),
        ];
        if self.options.no_owner {
            arguments.push("--no-owner".to_owned());
        }
        if self.options.no_privileges {
            arguments.push("--no-privileges".to_owned());
        }
        if self.options.no_tablespaces {
            arguments.push("--no-tablespaces".to_owned());
        }
        arguments
    }

    /// Loads all rows; returns the post-data entries that were built on the way.
    pub(super) async fn load(&self) -> Result<HashSet<DumpId>, Error> {
        self.progress.begin("data");
        let lengths: Vec<Vec<u64>> = self.archives.iter().map(|archive| archive.source.lengths()).collect();
        let units = plan_units(&self.facts.archives, &lengths, self.options.large_table, |archive, id| {
            self.is_wanted(archive, id)
        });
        self.progress.expect_bytes(units.iter().map(Unit::bytes).sum());
        self.load_positions().await?;
        let loading = AtomicUsize::new(units.len());
        let built: Vec<Vec<DumpId>> = stream::iter(units)
            .map(|unit| self.load_unit(unit, &loading))
            .buffer_unordered(self.options.jobs.max(1))
            .try_collect()
            .await?;
        Ok(built.into_iter().flatten().collect())
    }

    /// Entries of further archives are chosen by the name of their table, since numbers differ between archives.
    pub(super) fn is_wanted(&self, archive: usize, id: DumpId) -> bool {
        if archive == 0 {
            return self.is_chosen(id);
        }
        let (Some(main), Some(other)) = (self.archives.first(), self.archives.get(archive)) else {
            return false;
        };
        let name = other.toc.table_name(id);
        let in_main = name.and_then(|(schema, name)| main.find_table(schema.as_bytes(), name.as_bytes()));
        in_main.is_none_or(|table| self.is_chosen(table))
    }

    /// Entries of the data section that have no bytes: positions of sequences.
    pub(super) async fn load_positions(&self) -> Result<(), Error> {
        let Some(main) = self.archives.first() else { return Ok(()) };
        let without_bytes = |id: DumpId| {
            main.toc.find(id).is_some_and(|entry| entry.section == Section::Data && !entry.has_data())
        };
        self.section(Section::Data, 1, without_bytes).await
    }

    /// Loads a unit; returns the indexes it built. `loading` counts the units that are not loaded yet.
    async fn load_unit(&self, unit: Unit, loading: &AtomicUsize) -> Result<Vec<DumpId>, Error> {
        let Some(archive) = self.archives.get(unit.archive) else { return Ok(Vec::new()) };
        if let Some(statements) = self.copy_statements(archive, &unit) {
            self.copy_unit(archive, &unit, &statements).await?;
        } else {
            self.feed_unit(archive, &unit).await?;
        }
        let others = loading.fetch_sub(1, Ordering::Relaxed) > 1;
        // When nothing else loads, all the small indexes that are left are better built several at a time.
        if unit.single || others { self.build_indexes(archive, &unit.ids).await } else { Ok(Vec::new()) }
    }

    /// Loads a unit through `pg_restore`.
    async fn feed_unit(&self, archive: &OpenArchive, unit: &Unit) -> Result<(), Error> {
        let ids: HashSet<DumpId> = unit.ids.iter().copied().collect();
        let list = archive.list(|id| ids.contains(&id) || archive.toc.find(id).is_some_and(is_preamble))?;
        let mut arguments = self.arguments(&list);
        arguments.push("--section=data".to_owned());
        let mut client =
            Client::start_with_input("pg_restore", &self.prepared.tool, &arguments, &self.server).await?;
        let pipe = client.take_stdin()?;
        let (source, prefix, spans) =
            (archive.source.clone(), Arc::clone(&archive.prefix), unit.spans.clone());
        let progress = self.progress.clone();
        let feeding = tokio::task::spawn_blocking(move || {
            let mut pipe = Counted { pipe, progress };
            pipe.pipe.write_all(&prefix)?;
            source.copy(&spans, &mut pipe)
        });
        let fed = feeding.await.map_err(|error| lost_thread("pg_restore", &error))?;
        match fed {
            Ok(()) => client.finish().await,
            // It closed the pipe early: its own words say why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => client.finish().await,
            Err(error) => Err(read_error(error)),
        }
    }

    /// Builds the indexes of tables that have just been loaded, while others still load.
    async fn build_indexes(&self, archive: &OpenArchive, data: &[DumpId]) -> Result<Vec<DumpId>, Error> {
        let Some(main) = self.archives.first() else { return Ok(Vec::new()) };
        let names = data.iter().filter_map(|id| archive.toc.table_name(*id)).collect();
        let tables = main.toc.tables_named(&names);
        let indexes: HashSet<DumpId> = main
            .toc
            .indexes_of(&tables)
            .filter(|entry| entry.section == Section::PostData && self.is_chosen(entry.dump_id))
            .map(|entry| entry.dump_id)
            .collect();
        if indexes.is_empty() {
            return Ok(Vec::new());
        }
        self.section(Section::PostData, 1, |id| indexes.contains(&id)).await?;
        Ok(indexes.into_iter().collect())
    }
}

/// A name that `--dbname` cannot mistake for a connection string.
fn dbname(database: &str) -> String {
    if database.contains('=') || database.contains("://") {
        return format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"));
    }
    database.to_owned()
}

/// Counts what goes down a pipe.
struct Counted {
    pipe: std::io::PipeWriter,
    progress: Progress,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.pipe.write(bytes)?;
        self.progress.add_bytes(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}
