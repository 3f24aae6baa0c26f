//! Compares the restored database with the facts of the set.

use std::collections::{BTreeMap, HashSet};
use std::io;

use futures::future::try_join;
use sqlx::{Connection, Executor};

use super::job::Job;
use crate::archive::ArchiveToc;
use crate::client::{Client, lost_thread};
use crate::compare::{Comparison, Evidence, compare};
use crate::error::Error;
use crate::evidence;
use crate::facts::{DefinitionFacts, SequenceFacts, TableFacts};
use crate::inspect;
use crate::tools::Tool;

impl Job<'_> {
    pub(super) async fn compare(&mut self) -> Result<Comparison, Error> {
        self.progress.begin("compare");
        let (recorded, restored) = if self.options.is_whole() {
            (self.facts.tables.clone(), self.facts.sequences.clone())
        } else {
            self.chosen_facts()
        };
        let encoding = &self.facts.database.encoding;
        let mut connection = self.server.connect().await?;
        if self.options.analyze {
            let analyzed = connection.execute("analyze").await;
            analyzed.map_err(inspect::query_error(&self.server, "analyze"))?;
        }
        let mut expected = Evidence { tables: recorded, sequences: restored, ..Evidence::default() };
        let counting = evidence::live_tables(&self.server, &expected.tables, encoding, self.options.jobs);
        let (tables, definitions) = try_join(counting, self.live_definitions()).await?;
        let mut found = Evidence {
            tables,
            sequences: evidence::live_sequences(&mut connection, &self.server, &expected.sequences).await?,
            ..Evidence::default()
        };
        if self.options.is_whole() {
            expected.large_objects = self.facts.large_objects.clone();
            let live = evidence::live_large_objects(&mut connection, &self.server).await?;
            found.large_objects = live.unwrap_or_else(|| {
                self.warnings
                    .push("large objects could not be compared: the role may not read them".to_owned());
                expected.large_objects.clone()
            });
            match definitions {
                Ok(definitions) => {
                    expected.definitions = Some(self.expected_definitions());
                    found.definitions = Some(definitions);
                }
                Err(reason) => self.warnings.push(format!("definitions were not compared: {reason}")),
            }
            if self.adopted && !self.options.no_owner && !self.facts.partial {
                let major = inspect::server_facts(&mut connection, &self.server).await?.major();
                let live = inspect::database_facts(&mut connection, &self.server, major).await?;
                expected.database = Some(self.facts.database.clone());
                found.database = Some(live);
            }
        }
        let _ = connection.close().await;
        Ok(compare(&expected, &found))
    }

    pub(super) fn chosen_facts(&self) -> (Vec<TableFacts>, Vec<SequenceFacts>) {
        let Some(main) = self.archives.first() else { return Default::default() };
        let names: HashSet<(String, String)> = main
            .toc
            .entries()
            .iter()
            .filter(|entry| self.is_chosen(entry.dump_id))
            .filter(|entry| entry.desc == "TABLE" || entry.desc == "SEQUENCE SET")
            .filter_map(|entry| {
                Some((
                    entry.namespace.as_ref()?.to_str_lossy().into_owned(),
                    entry.tag.to_str_lossy().into_owned(),
                ))
            })
            .collect();
        let has = |schema: &String, name: &String| names.contains(&(schema.clone(), name.clone()));
        let tables = self.facts.tables.iter().filter(|table| has(&table.schema, &table.name)).cloned();
        let sequences = self.facts.sequences.iter().filter(|s| has(&s.schema, &s.name)).cloned();
        (tables.collect(), sequences.collect())
    }

    /// Those recorded, or those of them that could be restored.
    fn expected_definitions(&self) -> BTreeMap<String, DefinitionFacts> {
        match (&self.chosen, self.archives.first()) {
            (Some(chosen), Some(main)) => {
                evidence::definitions_of(&main.toc, |entry| chosen.contains(&entry.dump_id))
            }
            _ => self.facts.definitions.clone(),
        }
    }

    /// The definitions of the restored database, or why they could not be compared: that takes the same client and
    /// server, owners and privileges as recorded, and the whole set.
    async fn live_definitions(&self) -> Result<Result<BTreeMap<String, DefinitionFacts>, String>, Error> {
        if !self.options.is_whole() {
            return Ok(Err("a part was restored".to_owned()));
        }
        if self.options.no_owner || self.options.no_privileges {
            return Ok(Err("owners or privileges were left out".to_owned()));
        }
        let pg_restore = &self.prepared.tool;
        let tool = Tool::new(pg_restore.folder().join("pg_dump"), pg_restore.major);
        if tool.major != self.facts.client_major || !tool.path.is_file() {
            let needed = self.facts.client_major;
            return Ok(Err(format!("that needs pg_dump {needed}, the one that wrote the dump")));
        }
        let mut connection = self.server.connect().await?;
        let live = inspect::server_facts(&mut connection, &self.server).await?;
        let _ = connection.close().await;
        if live.major() != self.facts.server_version_num / 10_000 {
            return Ok(Err("the server has another major version".to_owned()));
        }
        let toc = self.dump_definitions(&tool).await?;
        Ok(Ok(evidence::definitions(&toc)))
    }

    pub(super) async fn dump_definitions(&self, tool: &Tool) -> Result<ArchiveToc, Error> {
        let arguments =
            ["--format=custom", "--compress=0", "--schema-only", "--no-password"].map(str::to_owned);
        let mut client = Client::start("pg_dump", tool, &arguments, &self.server).await?;
        let mut pipe = client.take_stdout()?;
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut pipe, &mut bytes).map(|_| bytes)
        });
        let bytes = reading.await.map_err(|error| lost_thread("pg_dump", &error))?;
        client.finish().await?;
        let bytes = bytes.map_err(|source| Error::Spawn { program: "pg_dump", source })?;
        ArchiveToc::parse(&bytes).map_err(|source| Error::Archive { source })
    }
}
