//! Rows of a large table, sent to the server by this process itself.
//!
//! ```text
//! object → verify, decrypt, decompress → framing off → 256 KiB of COPY text → COPY … WITH (FREEZE)
//! ```
//!
//! `pg_restore` would read the same bytes from a pipe a few at a time. Here nothing is between the object and the
//! server, and the rows are written frozen: the table is emptied and filled in one transaction, so PostgreSQL may
//! mark them visible to all at once, and neither the first reader nor the first vacuum writes every page again.
//! Only tables whose rows are plain COPY text in UTF-8 go this way; everything else goes through `pg_restore`.

use std::io::{self, Write};

use backstay_backup_core::progress::Progress;
use bytes::Bytes;
use sqlx::postgres::{PgConnection, PgCopyIn};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::sync::mpsc;

use super::job::{Job, OpenArchive, read_error};
use super::units::Unit;
use crate::archive::{TablePayload, TocEntry, copy_table};
use crate::client::lost_thread;
use crate::error::Error;
use crate::inspect::query_error;

/// Sent at once.
const PIECE: usize = 256 << 10;
/// The settings under which `pg_restore` loads rows, and those that change how text is read. The restore as a whole
/// ends durable ([`super::durable`]).
const SESSION: &str = "
    select set_config(name, '0', false) from pg_settings
        where name in ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout');
    select set_config('search_path', '', false);
    set default_transaction_read_only = off;
    set synchronous_commit = off;
    set row_security = off;
    set xmloption = content;
    set check_function_bodies = off;
    set datestyle = iso;
    set intervalstyle = postgres;
    set timezone = 'UTC'";

/// What is sent to the server before the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopyStatements {
    empty: String,
    copy: String,
}

impl CopyStatements {
    /// The statements in place of one that `pg_dump` wrote; nothing for one that it would not write like this.
    fn instead_of(statement: &str) -> Option<Self> {
        let copy = statement.trim_end().strip_suffix(" FROM stdin;")?;
        let table = copy_table(statement)?;
        Some(Self {
            empty: format!("begin; truncate only {table}"),
            copy: format!("{copy} FROM stdin WITH (FREEZE)"),
        })
    }
}

/// The statements for an entry whose rows can be sent as they are.
fn statements(entry: &TocEntry, encoding: Option<&str>) -> Option<CopyStatements> {
    let sendable = encoding == Some("UTF8") && entry.is_table_data() && entry.is_copy_text();
    let statement = entry.copy_stmt.as_ref().filter(|_| sendable)?.as_str()?;
    let (schema, table) = (entry.namespace.as_ref()?.as_str()?, entry.tag.as_str()?);
    // The rows of some partitions are sent to the root of their tree, which cannot be emptied for each.
    is_name(copy_table(statement)?, schema, table).then(|| CopyStatements::instead_of(statement))?
}

/// Whether `text` is that qualified name, each part quoted or not.
fn is_name(text: &str, schema: &str, table: &str) -> bool {
    let spellings = |name: &str| [name.to_owned(), format!("\"{}\"", name.replace('"', "\"\""))];
    spellings(schema).iter().any(|schema| {
        let table_text = text.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.'));
        table_text.is_some_and(|text| spellings(table).iter().any(|table| text == table))
    })
}

impl Job<'_> {
    /// How the rows of a unit can be sent by this process; nothing if `pg_restore` has to do it.
    ///
    /// Emptying a table that somebody may already use is out of the question, so only a database that was made for
    /// this restore is filled this way.
    pub(super) fn copy_statements(&self, archive: &OpenArchive, unit: &Unit) -> Option<CopyStatements> {
        let entry = archive.toc.find(*unit.ids.first()?)?;
        (self.made && unit.single).then(|| statements(entry, archive.toc.encoding().as_deref()))?
    }

    /// Sends the rows of a unit that is a single table.
    pub(super) async fn copy_unit(
        &self,
        archive: &OpenArchive,
        unit: &Unit,
        statements: &CopyStatements,
    ) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel(2);
        let start = unit.spans.first().map_or(0, |span| span.start);
        let payload = TablePayload::new(archive.toc.header().int_size, unit.ids[0], start);
        let (source, spans, progress) = (archive.source.clone(), unit.spans.clone(), self.progress.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let mut rows = RowSender { payload, sender, progress };
            let read = source.copy(&spans, &mut rows).and_then(|()| rows.end());
            rows.conclude(read);
        });
        let sent = self.send_rows(statements, receiver).await;
        reading.await.map_err(|error| lost_thread("the reader of the set", &error))?;
        sent
    }

    async fn send_rows(
        &self,
        statements: &CopyStatements,
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Result<(), Error> {
        let failed = || query_error(&self.server, "load rows");
        let mut connection = self.server.connect().await?;
        connection.execute(sqlx::raw_sql(SESSION)).await.map_err(failed())?;
        let empty = sqlx::raw_sql(AssertSqlSafe(statements.empty.clone()));
        connection.execute(empty).await.map_err(failed())?;
        let mut copy: PgCopyIn<&mut PgConnection> =
            connection.copy_in_raw(&statements.copy).await.map_err(failed())?;
        loop {
            match pieces.recv().await {
                Some(Piece::Rows(rows)) => drop(copy.send(rows).await.map_err(failed())?),
                Some(Piece::End) => break,
                // The transaction ends with the connection, and the table is as empty as before.
                Some(Piece::Broken(error)) => return Err(read_error(error)),
                None => return Err(read_error(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        copy.finish().await.map_err(failed())?;
        connection.execute("commit").await.map_err(failed())?;
        let _ = connection.close().await;
        Ok(())
    }
}

/// What the reader says to the sender.
enum Piece {
    Rows(Bytes),
    End,
    Broken(io::Error),
}

/// Takes the bytes of a block and passes its rows on. Blocking.
struct RowSender {
    payload: TablePayload,
    sender: mpsc::Sender<Piece>,
    progress: Progress,
}

impl RowSender {
    fn pass(&mut self) -> io::Result<()> {
        let rows = Bytes::from(self.payload.take());
        self.sender.blocking_send(Piece::Rows(rows)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn end(&mut self) -> io::Result<()> {
        self.payload.finish().map_err(invalid)?;
        self.pass()
    }

    fn conclude(self, read: io::Result<()>) {
        let last = read.map_or_else(Piece::Broken, |()| Piece::End);
        // Whoever stopped listening knows why.
        let _ = self.sender.blocking_send(last);
    }
}

impl Write for RowSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.payload.push(bytes).map_err(invalid)?;
        self.progress.add_bytes(bytes.len() as u64);
        if self.payload.len() >= PIECE {
            self.pass()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn invalid(error: crate::archive::ArchiveError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_partition_is_another_table() {
        assert!(is_name("s.t", "s", "t"));
        assert!(is_name("\"S\".\"a.\"\"b\"", "S", "a.\"b"));
        assert!(!is_name("s.root", "s", "t"));
        assert!(!is_name("other.t", "s", "t"));
    }

    #[test]
    fn a_statement_becomes_one_that_freezes() {
        let of = |statement| CopyStatements::instead_of(statement).map(|made| (made.empty, made.copy));
        assert_eq!(
            of("COPY public.\"a b\" (id, \"FROM stdin;\") FROM stdin;\n"),
            Some((
                "begin; truncate only public.\"a b\"".to_owned(),
                "COPY public.\"a b\" (id, \"FROM stdin;\") FROM stdin WITH (FREEZE)".to_owned()
            ))
        );
        assert_eq!(of("COPY s.none  FROM stdin;\n").unwrap().1, "COPY s.none  FROM stdin WITH (FREEZE)");
        assert_eq!(of("COPY s.t (a) FROM '/etc/passwd';"), None);
        assert_eq!(of("drop table s.t"), None);
    }
}
