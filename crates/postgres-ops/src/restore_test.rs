//! Proves a logical set by restoring it into a throwaway server and comparing every fact.

use std::time::Duration;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Column, Connection, Row, TypeInfo, ValueRef};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::inspect::query_error;
use crate::restore::{RestoreOptions, RestoreReceipt, restore_database};
use crate::server::Server;
use crate::throwaway::{Throwaway, ThrowawayOptions};

/// Longest run of one of the user's checks.
const CHECK_TIME: Duration = Duration::from_secs(300);

/// A query of the user's that must hold in the restored database.
///
/// It passes when it returns at least one row whose first column is neither null nor `false`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SqlCheck {
    /// What it checks, for the report.
    pub name: String,
    /// The query.
    pub sql: String,
}

/// Outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckResult {
    /// What it checked.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What was found, or why the query failed.
    pub found: String,
}

/// Outcome of a restore test.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestoreTestReport {
    /// Receipt of the restore.
    pub receipt: RestoreReceipt,
    /// The user's checks.
    pub checks: Vec<CheckResult>,
    /// Begin to end, the making of the server included, in seconds.
    pub seconds: f64,
}

impl RestoreTestReport {
    /// Whether everything is equal and every check holds.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.receipt.comparison.is_equal() && self.checks.iter().all(|check| check.passed)
    }
}

/// Restores a set into a throwaway server, compares it and runs the user's checks.
///
/// # Errors
/// [`Error::NotEqual`] when facts differ, and whatever stops a restore.
///
/// # Cancel safety
/// A dropped or cancelled call leaves no server and no files.
pub async fn test_restore(
    repositories: &Repositories,
    manifest: &Manifest,
    identities: &Identities,
    checks: &[SqlCheck],
    throwaway: &ThrowawayOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<RestoreTestReport, Error> {
    let begin = std::time::Instant::now();
    let running = tokio::select! {
        started = Throwaway::start(throwaway) => started?,
        () = cancel.cancelled() => return Err(CoreError::Cancelled.into()),
    };
    let options = RestoreOptions { tools: throwaway.tools.clone(), ..RestoreOptions::default() };
    let restored =
        restore_database(running.server(), repositories, manifest, identities, &options, progress, cancel)
            .await;
    let outcome = match restored {
        Ok(receipt) => {
            let server = running.server().with_database(&receipt.database);
            run_checks(&server, checks).await.map(|checks| (receipt, checks))
        }
        Err(error) => Err(error),
    };
    running.stop().await;
    let (receipt, checks) = outcome?;
    Ok(RestoreTestReport { receipt, checks, seconds: begin.elapsed().as_secs_f64() })
}

pub(crate) async fn run_checks(server: &Server, checks: &[SqlCheck]) -> Result<Vec<CheckResult>, Error> {
    let mut results = Vec::with_capacity(checks.len());
    for check in checks {
        let mut connection = server.connect().await?;
        let query = sqlx::query(AssertSqlSafe(check.sql.clone())).fetch_optional(&mut connection);
        let (passed, found) = match tokio::time::timeout(CHECK_TIME, query).await {
            Err(_) => (false, format!("not done after {} s", CHECK_TIME.as_secs())),
            Ok(Err(error)) => (false, error.to_string()),
            Ok(Ok(None)) => (false, "no row".to_owned()),
            Ok(Ok(Some(row))) => judge(&row),
        };
        results.push(CheckResult { name: check.name.clone(), passed, found });
        connection.close().await.map_err(query_error(server, "end a check"))?;
    }
    Ok(results)
}

fn judge(row: &sqlx::postgres::PgRow) -> (bool, String) {
    let Ok(value) = row.try_get_raw(0) else { return (false, "no column".to_owned()) };
    if value.is_null() {
        return (false, "null".to_owned());
    }
    let kind = row.columns().first().map_or("", |column| column.type_info().name()).to_owned();
    match kind.as_str() {
        "BOOL" => {
            let holds = row.try_get::<bool, _>(0).unwrap_or(false);
            (holds, holds.to_string())
        }
        "INT8" => (true, row.try_get::<i64, _>(0).map_or(kind, |number| number.to_string())),
        "INT4" => (true, row.try_get::<i32, _>(0).map_or(kind, |number| number.to_string())),
        "TEXT" => (true, row.try_get::<String, _>(0).unwrap_or(kind)),
        _ => (true, format!("a value of type {kind}")),
    }
}
