//! Ends what a stopped or failed run left running on the server.
//!
//! A backend notices that its client is gone when it next reads or writes; one that waits for a lock or builds an index
//! does neither for hours. All sessions of one run share a name that no other has ([`Server::with_own_session_name`]),
//! those of client programs included, so the run can end them whatever became of the programs.

use std::time::Duration;

use sqlx::postgres::PgConnection;

use crate::server::Server;

/// Longest time to wait for one backend, in milliseconds.
const BACKEND_PATIENCE: i64 = 3000;
/// Longest time for all; the server may be what failed.
const PATIENCE: Duration = Duration::from_secs(8);

/// Ends all sessions of the run that `server` names, except `connection` itself, and waits until they are gone.
///
/// Does what can be done: where the server does not answer, nothing of ours can be ended there.
pub(crate) async fn end(connection: &mut PgConnection, server: &Server) {
    let ending = async {
        sqlx::query(
            "select count(pg_terminate_backend(pid, $2)) from pg_stat_activity
             where application_name = $1 and usename = current_user and pid <> pg_backend_pid()",
        )
        .bind(&server.session_name)
        .bind(BACKEND_PATIENCE)
        .execute(&mut *connection)
        .await
    };
    match tokio::time::timeout(PATIENCE, ending).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the run's sessions could not be ended"),
        Err(_) => tracing::debug!("the run's sessions were not ended in time"),
    }
}
