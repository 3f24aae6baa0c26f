//! Everything that one restore holds on to.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::RestoreOptions;
use super::choose::{choose, keys_to_nowhere};
use super::obstacles;
use super::source::ArchiveSource;
use super::target::{self, TargetPlan, TargetState, plan_target};
use crate::archive::{ArchiveToc, DumpId, TocEntry};
use crate::client::lost_thread;
use crate::error::{ConnectError, Error};
use crate::facts::LogicalFacts;
use crate::ident::check_name;
use crate::inspect;
use crate::roles::RolesReport;
use crate::server::{Server, memory_file};
use crate::tools::{Tool, find_tool};

/// What is known before anything is touched.
pub(super) struct Prepared {
    pub(super) tool: Tool,
    pub(super) target: TargetPlan,
    pub(super) superuser: bool,
}

impl Prepared {
    pub(super) async fn new(
        server: &Server,
        manifest: &Manifest,
        facts: &LogicalFacts,
        options: &RestoreOptions,
    ) -> Result<Self, Error> {
        let name = options.target.clone().unwrap_or_else(|| facts.database.name.clone());
        check_name("database", &name)?;
        obstacles::refuse_a_part_for_the_whole(manifest, options, &name)?;
        let mut admin = connect_admin(server, &name).await?;
        let found = inspect::server_facts(&mut admin, server).await?;
        // The newest of both: older programs cannot read newer archives, nor talk to newer servers.
        let (needed, than) = if facts.client_major > found.major() {
            (facts.client_major, "the pg_dump that made the set")
        } else {
            (found.major(), "the server")
        };
        let search = options.tools.clone();
        let finding = tokio::task::spawn_blocking(move || find_tool("pg_restore", needed, than, &search));
        let tool = finding.await.map_err(|error| lost_thread("pg_restore", &error))??;
        let state = target::target_state(&mut admin, &server.with_database(&name)).await?;
        if options.replace && !options.disconnect && state != TargetState::Absent {
            obstacles::refuse_users(&mut admin, server, &name).await?;
        }
        let in_place = !options.is_whole() && state == TargetState::Filled && !options.replace;
        let target = if in_place {
            TargetPlan { database: name.clone(), state, filled_as: name, kept_as: None }
        } else {
            let suffix = &manifest.set.as_str()[manifest.set.as_str().len() - 10..];
            plan_target(&name, state, options.replace, suffix)?
        };
        target::refuse_taken_names(&mut admin, server, &target).await?;
        let _ = admin.close().await;
        Ok(Self { tool, target, superuser: found.superuser })
    }
}

/// A connection to a database that is not the target.
pub(super) async fn connect_admin(server: &Server, target: &str) -> Result<PgConnection, Error> {
    let first = if target == "postgres" { "template1" } else { "postgres" };
    match server.with_database(first).connect().await {
        Err(Error::Connect(ConnectError::NoDatabase { .. })) => {
            server.with_database("template1").connect().await
        }
        other => other,
    }
}

/// One restore.
pub(super) struct Job<'a> {
    pub(super) server: Server,
    pub(super) admin: PgConnection,
    pub(super) repositories: &'a Repositories,
    pub(super) manifest: Arc<Manifest>,
    pub(super) identities: Arc<Identities>,
    pub(super) options: &'a RestoreOptions,
    pub(super) facts: &'a LogicalFacts,
    pub(super) prepared: Prepared,
    pub(super) progress: &'a Progress,
    pub(super) archives: Vec<OpenArchive>,
    pub(super) chosen: Option<HashSet<DumpId>>,
    pub(super) made: bool,
    /// Whether the target got every recorded property of the database.
    pub(super) adopted: bool,
    pub(super) roles: RolesReport,
    pub(super) warnings: Vec<String>,
}

/// An archive with its table of contents in memory, where `pg_restore` can read it.
pub(super) struct OpenArchive {
    pub(super) source: ArchiveSource,
    pub(super) toc: ArchiveToc,
    pub(super) prefix: Arc<Vec<u8>>,
    pub(super) file: OwnedFd,
}

impl<'a> Job<'a> {
    #[expect(clippy::too_many_arguments, reason = "gathers everything a restore needs, once")]
    pub(super) async fn open(
        server: &Server,
        repositories: &'a Repositories,
        manifest: &Arc<Manifest>,
        identities: &Identities,
        options: &'a RestoreOptions,
        facts: &'a LogicalFacts,
        prepared: Prepared,
        progress: &'a Progress,
    ) -> Result<Self, Error> {
        let identities = Arc::new(identities.clone());
        let mut archives = Vec::with_capacity(facts.archives.len());
        for stored in &facts.archives {
            let source = ArchiveSource::new(repositories, manifest, &identities, stored)?;
            archives.push(OpenArchive::read(source, stored.toc_length).await?);
        }
        let mut warnings = Vec::new();
        let chosen = match archives.first() {
            Some(main) if !options.is_whole() => {
                let with_needs = prepared.target.state != TargetState::Filled || options.replace;
                let chosen = choose(&main.toc, &options.tables, &options.schemas, with_needs);
                if chosen.is_empty() {
                    let problem = "holds no table or schema of that name".to_owned();
                    let remedy = Some("without --table and --schema everything is restored");
                    return Err(Error::Unsuitable { set: manifest.set.to_string(), problem, remedy });
                }
                Some(chosen)
            }
            Some(main) if facts.partial => {
                let lost = keys_to_nowhere(&main.toc);
                warnings.extend(lost.iter().map(|entry| {
                    let key = entry.tag.to_str_lossy();
                    format!("foreign key {key} was left out: the table that it refers to is not in the set")
                }));
                let lost: HashSet<DumpId> = lost.iter().map(|entry| entry.dump_id).collect();
                let all = main.toc.entries().iter().map(|entry| entry.dump_id);
                Some(all.filter(|id| !lost.contains(id)).collect())
            }
            _ => None,
        };
        let mut admin = connect_admin(server, &prepared.target.database).await?;
        if let Some(main) = archives.first() {
            let is_chosen = |entry: &TocEntry| chosen.as_ref().is_none_or(|ids| ids.contains(&entry.dump_id));
            let wanted: Vec<&TocEntry> = main.toc.entries().iter().filter(|entry| is_chosen(entry)).collect();
            if !options.no_tablespaces {
                obstacles::refuse_missing_tablespaces(&mut admin, server, manifest, &wanted).await?;
            }
            if prepared.target.state == TargetState::Filled && prepared.target.kept_as.is_none() {
                let target = server.with_database(&prepared.target.database);
                obstacles::refuse_existing(&target, &wanted).await?;
            }
        }
        Ok(Self {
            admin,
            server: server.with_database(&prepared.target.filled_as).with_hasty_programs(),
            repositories,
            manifest: Arc::clone(manifest),
            identities,
            options,
            facts,
            prepared,
            progress,
            archives,
            chosen,
            made: false,
            adopted: false,
            roles: RolesReport::default(),
            warnings,
        })
    }
}

impl OpenArchive {
    pub(super) async fn read(source: ArchiveSource, toc_length: u64) -> Result<Self, Error> {
        let reader = source.clone();
        let reading = tokio::task::spawn_blocking(move || reader.prefix(toc_length));
        let read = reading.await.map_err(|error| lost_thread("the table of contents", &error))?;
        let (prefix, toc) = read.map_err(read_error)?;
        let file = memory_file("backstay-toc", &prefix)
            .map_err(|source| Error::Spawn { program: "pg_restore", source })?;
        Ok(Self { source, toc, prefix: Arc::new(prefix), file })
    }

    /// A list file for `pg_restore --use-list`, in the order of the table of contents.
    pub(super) fn list(&self, wanted: impl Fn(DumpId) -> bool) -> Result<OwnedFd, Error> {
        let ids: HashSet<DumpId> =
            self.toc.entries().iter().map(|entry| entry.dump_id).filter(|id| wanted(*id)).collect();
        let text = self.toc.restore_list(&ids);
        memory_file("backstay-list", text.as_bytes())
            .map_err(|source| Error::Spawn { program: "pg_restore", source })
    }

    pub(super) fn find_table(&self, schema: &[u8], name: &[u8]) -> Option<DumpId> {
        let fits = |entry: &&crate::archive::TocEntry| {
            entry.desc == "TABLE"
                && entry.tag.as_bytes() == name
                && entry.namespace.as_ref().is_some_and(|namespace| namespace.as_bytes() == schema)
        };
        self.toc.entries().iter().find(fits).map(|entry| entry.dump_id)
    }
}

/// Unwraps a repository's error from the I/O error that carried it through a reader.
pub(super) fn read_error(error: io::Error) -> Error {
    match error.downcast::<CoreError>() {
        Ok(error) => Error::Repository(error),
        Err(error) => Error::Spawn { program: "the reader of the set", source: error },
    }
}
