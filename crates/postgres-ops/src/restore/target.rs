//! The database that a restore fills: made beside whatever exists, swapped in by rename at the very end.
//!
//! | target before | default | with `replace` |
//! |---|---|---|
//! | absent | filled under a temporary name, then renamed | same |
//! | empty | filled in place | filled beside, then swapped |
//! | not empty | refused | filled beside, then swapped |
//!
//! The swap is one transaction of two renames: at no moment is there no database of that name, and the old one
//! lives on under another name until the operator drops it. A failed restore drops only what it made itself.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::error::Error;
use crate::facts::DatabaseFacts;
use crate::ident::{MAX_NAME, quote_ident, quote_literal};
use crate::inspect::query_error;
use crate::roles::setting_statements;
use crate::server::Server;

/// State of the target before the restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// There is no such database.
    Absent,
    /// It exists and holds nothing of a user's.
    Empty,
    /// It holds something.
    Filled,
}

/// How the target will be filled.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TargetPlan {
    /// Name it has in the end.
    pub database: String,
    /// State found.
    pub state: TargetState,
    /// Name under which it is filled.
    pub filled_as: String,
    /// Name under which the old database is kept, when there is one to replace.
    pub kept_as: Option<String>,
}

/// Decides how to fill the target. Pure.
///
/// # Errors
/// [`Error::Target`] for a database that is not empty and may not be replaced.
pub(crate) fn plan_target(
    database: &str,
    state: TargetState,
    replace: bool,
    suffix: &str,
) -> Result<TargetPlan, Error> {
    let beside = |what: &str| suffixed(database, &format!("_{what}_{suffix}"));
    let (filled_as, kept_as) = match (state, replace) {
        (TargetState::Absent, _) => (beside("restoring"), None),
        (TargetState::Empty, false) => (database.to_owned(), None),
        (TargetState::Empty | TargetState::Filled, true) => (beside("restoring"), Some(beside("before"))),
        (TargetState::Filled, false) => {
            let problem = "exists and is not empty".to_owned();
            let remedy = "give another name with --target-database, or --replace, which keeps the old database under another name";
            return Err(Error::Target { database: database.to_owned(), problem, remedy });
        }
    };
    Ok(TargetPlan { database: database.to_owned(), state, filled_as, kept_as })
}

/// Appends a suffix to a name, shortening the name at a character boundary where the whole would be too long.
fn suffixed(name: &str, suffix: &str) -> String {
    let mut keep = name.len().min(MAX_NAME.saturating_sub(suffix.len()));
    while !name.is_char_boundary(keep) {
        keep -= 1;
    }
    format!("{}{suffix}", &name[..keep])
}

/// Looks at the target. `admin` is a connection to another database of the same server.
///
/// # Errors
/// [`Error::Query`], or a connection error for a database that exists but cannot be entered.
pub(crate) async fn target_state(admin: &mut PgConnection, server: &Server) -> Result<TargetState, Error> {
    let exists = sqlx::query("select from pg_database where datname = $1")
        .bind(&server.database)
        .fetch_optional(admin)
        .await
        .map_err(query_error(server, "look for the target"))?
        .is_some();
    if !exists {
        return Ok(TargetState::Absent);
    }
    let mut inside = server.connect().await?;
    // Objects made by initdb have low numbers; extensions and their objects count as content too.
    let row = sqlx::query(
        "select exists (select from pg_class where oid >= 16384 and relnamespace not in
                          (select oid from pg_namespace where nspname ~ '^pg_(toast|temp)'))
             or exists (select from pg_proc where oid >= 16384)
             or exists (select from pg_type where oid >= 16384)
             or exists (select from pg_namespace where oid >= 16384 and nspname !~ '^pg_(toast|temp)')
             or exists (select from pg_largeobject_metadata) as filled",
    )
    .fetch_one(&mut inside)
    .await
    .map_err(query_error(server, "look into the target"))?;
    let _ = inside.close().await;
    Ok(if row.get("filled") { TargetState::Filled } else { TargetState::Empty })
}

/// The names a restore needs besides that of its target must be free, or it would fail at its very end.
///
/// # Errors
/// [`Error::Target`], [`Error::Query`].
pub(crate) async fn refuse_taken_names(
    admin: &mut PgConnection,
    server: &Server,
    plan: &TargetPlan,
) -> Result<(), Error> {
    if plan.filled_as == plan.database {
        return Ok(());
    }
    let names: Vec<&str> = [plan.filled_as.as_str()].into_iter().chain(plan.kept_as.as_deref()).collect();
    let taken =
        sqlx::query("select datname::text as name from pg_database where datname = any($1) order by 1")
            .bind(&names)
            .fetch_optional(admin)
            .await
            .map_err(query_error(server, "look for databases in the way"))?;
    match taken.map(|row| row.get::<String, _>("name")) {
        None => Ok(()),
        Some(name) if name == plan.filled_as => Err(left_over(name)),
        Some(name) => {
            let problem = "exists: an earlier restore of the same set kept the old database there".to_owned();
            Err(Error::Target {
                database: name,
                problem,
                remedy: "drop or rename it and run the same command again",
            })
        }
    }
}

/// The unfinished work of an earlier restore.
fn left_over(database: String) -> Error {
    let problem = "exists: another restore of the same set left it there, or is running".to_owned();
    let remedy = "if none is running, drop it (DROP DATABASE … WITH (FORCE)) and run the same command again";
    Error::Target { database, problem, remedy }
}

/// Creates the database with its recorded encoding and collation. Owner and settings come last, see [`adopt`].
///
/// # Errors
/// [`Error::Target`] when it exists, [`Error::Query`].
pub(crate) async fn create(
    admin: &mut PgConnection,
    server: &Server,
    name: &str,
    facts: &DatabaseFacts,
) -> Result<(), Error> {
    let statement = create_statement(name, facts);
    match admin.execute(AssertSqlSafe(statement)).await {
        Ok(_) => Ok(()),
        Err(error) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some("42P04") => {
            Err(left_over(name.to_owned()))
        }
        Err(source) => Err(query_error(server, "create the database")(source)),
    }
}

fn create_statement(name: &str, facts: &DatabaseFacts) -> String {
    let mut statement = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quote_ident(name),
        quote_literal(&facts.encoding),
        quote_literal(&facts.collate),
        quote_literal(&facts.ctype),
    );
    match (facts.locale_provider.as_str(), &facts.locale) {
        ("i", Some(locale)) => {
            statement += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", quote_literal(locale));
        }
        ("b", Some(locale)) => {
            statement += &format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", quote_literal(locale));
        }
        _ => {}
    }
    statement
}

/// Gives the restored database its recorded owner, settings, connection limit and comment.
///
/// # Errors
/// Never for a refused statement: each is returned in words, since the data is there.
pub(crate) async fn adopt(
    admin: &mut PgConnection,
    name: &str,
    facts: &DatabaseFacts,
    owner: bool,
) -> Vec<String> {
    let mut refused = Vec::new();
    for statement in adopt_statements(name, facts, owner) {
        if let Err(error) = admin.execute(AssertSqlSafe(statement.clone())).await {
            refused.push(format!("{statement}: {error}"));
        }
    }
    refused
}

fn adopt_statements(name: &str, facts: &DatabaseFacts, owner: bool) -> Vec<String> {
    let database = quote_ident(name);
    let mut statements = Vec::new();
    if owner && !facts.owner.is_empty() {
        statements.push(format!("ALTER DATABASE {database} OWNER TO {}", quote_ident(&facts.owner)));
    }
    if facts.connection_limit >= 0 {
        statements.push(format!("ALTER DATABASE {database} CONNECTION LIMIT {}", facts.connection_limit));
    }
    if let Some(comment) = &facts.comment {
        statements.push(format!("COMMENT ON DATABASE {database} IS {}", quote_literal(comment)));
    }
    statements.extend(setting_statements(name, &facts.settings));
    statements
}

/// Puts the filled database in its place: one transaction, or nothing happens.
///
/// # Errors
/// [`Error::Target`] when somebody is connected to the old database, [`Error::Query`].
pub(crate) async fn swap_in(
    admin: &mut PgConnection,
    server: &Server,
    plan: &TargetPlan,
    disconnect: bool,
) -> Result<(), Error> {
    if plan.filled_as == plan.database {
        return Ok(());
    }
    if disconnect && plan.kept_as.is_some() {
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and pid <> pg_backend_pid()")
            .bind(&plan.database)
            .execute(&mut *admin)
            .await
            .map_err(query_error(server, "disconnect the old database's users"))?;
    }
    let mut statements = vec!["BEGIN".to_owned()];
    if let Some(kept) = &plan.kept_as {
        statements.push(rename(&plan.database, kept));
    }
    statements.push(rename(&plan.filled_as, &plan.database));
    statements.push("COMMIT".to_owned());
    match admin.execute(AssertSqlSafe(statements.join("; "))).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
            let _ = admin.execute("ROLLBACK").await;
            match code.as_str() {
                "55006" => Err(in_use(admin, plan).await),
                "42P04" => Err(Error::Target {
                    database: plan.database.clone(),
                    problem: format!(
                        "appeared meanwhile; the restored data is in database {}",
                        plan.filled_as
                    ),
                    remedy: "rename one of them, or drop the restored one and run again with --replace",
                }),
                _ => Err(query_error(server, "rename the database")(error)),
            }
        }
    }
}

fn rename(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", quote_ident(from), quote_ident(to))
}

async fn in_use(admin: &mut PgConnection, plan: &TargetPlan) -> Error {
    let sessions = sqlx::query("select count(*)::int8 as n from pg_stat_activity where datname = $1")
        .bind(&plan.database)
        .fetch_one(admin)
        .await
        .map_or(0, |row| row.get::<i64, _>("n"));
    let problem =
        format!("is in use by {sessions} sessions; the restored data is in database {}", plan.filled_as);
    let remedy = "end them and rename by hand, or drop the restored one and run again with --disconnect";
    Error::Target { database: plan.database.clone(), problem, remedy }
}

/// Drops a database that this restore made. Errors are returned in words.
pub(crate) async fn drop_made(admin: &mut PgConnection, name: &str) -> Option<String> {
    let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_ident(name));
    admin.execute(AssertSqlSafe(statement)).await.err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_database_is_only_replaced_on_request() {
        assert!(plan_target("shop", TargetState::Filled, false, "x").is_err());
        let plan = plan_target("shop", TargetState::Filled, true, "x").unwrap();
        assert_eq!(
            (plan.filled_as.as_str(), plan.kept_as.as_deref()),
            ("shop_restoring_x", Some("shop_before_x"))
        );
        assert_eq!(plan_target("shop", TargetState::Empty, false, "x").unwrap().filled_as, "shop");
        assert_eq!(plan_target("shop", TargetState::Absent, true, "x").unwrap().kept_as, None);
    }

    #[test]
    fn long_names_keep_their_suffix() {
        let plan = plan_target(&"ä".repeat(31), TargetState::Absent, false, "0123456789").unwrap();
        assert!(plan.filled_as.len() <= MAX_NAME && plan.filled_as.ends_with("_restoring_0123456789"));
    }

    #[test]
    fn providers_go_into_the_statement() {
        let facts = DatabaseFacts {
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
            locale_provider: "i".into(),
            locale: Some("de-AT".into()),
            ..DatabaseFacts::default()
        };
        let statement = create_statement("it's", &facts);
        assert!(statement.ends_with("LOCALE_PROVIDER icu ICU_LOCALE 'de-AT'"), "{statement}");
        assert!(statement.starts_with("CREATE DATABASE \"it's\" TEMPLATE template0"));
    }
}
