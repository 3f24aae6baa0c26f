//! Makes a restored database durable, once.
//!
//! While a database is being filled nobody waits for the disk at a commit: what is not whole is worth nothing, and a
//! thousand definitions would each wait. The log is flushed in order, so one commit that does wait makes everything
//! before it durable, by whichever session it was committed.

use sqlx::Executor;
use sqlx::postgres::PgConnection;

use crate::error::Error;
use crate::inspect::query_error;
use crate::server::Server;

/// A transaction with a record of its own, since one without any may end without waiting for the disk. A server that
/// never waits does so here.
const DURABLE: &str = "
    begin;
    select set_config('synchronous_commit', 'local', true) where current_setting('synchronous_commit') = 'off';
    select pg_logical_emit_message(true, 'backstay', 'restored');
    commit";

/// Waits until everything that was committed on the server before is on its disk.
///
/// # Errors
/// [`Error::Query`].
pub(super) async fn make_durable(connection: &mut PgConnection, server: &Server) -> Result<(), Error> {
    let flushed = connection.execute(sqlx::raw_sql(DURABLE)).await;
    flushed.map(drop).map_err(query_error(server, "make the restored database durable"))
}
