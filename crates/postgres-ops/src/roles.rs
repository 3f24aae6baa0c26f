//! Roles: stored as `pg_dumpall` writes them, recreated only where they are missing.
//!
//! A restore never changes a role that exists: its password, memberships and settings on the target are the
//! target's business. For a role that is missing, its `CREATE`, `ALTER`, `COMMENT` and `GRANT` statements run.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::error::Error;
use crate::ident::{quote_ident, quote_literal};
use crate::inspect::query_error;
use crate::server::Server;
use crate::sql_text::split_statements;

/// What became of the roles.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RolesReport {
    /// Roles that were created.
    pub created: Vec<String>,
    /// Statements that the server refused, without secrets: the first words and the reason.
    pub refused: Vec<String>,
}

/// Statements of a globals script that concern roles which are not on the server, in order. Pure.
#[must_use]
pub(crate) fn missing_role_statements(
    script: &str,
    existing: &BTreeSet<String>,
) -> (Vec<String>, Vec<String>) {
    let statements = split_statements(script);
    let missing: Vec<String> = statements
        .iter()
        .filter_map(|statement| statement.strip_prefix("CREATE ROLE "))
        .map(unquote_first)
        .filter(|role| !existing.contains(role))
        .collect();
    let wanted = statements.into_iter().filter(|statement| concerns(statement, &missing)).collect();
    (missing, wanted)
}

fn concerns(statement: &str, missing: &[String]) -> bool {
    let named = |prefix: &str| statement.strip_prefix(prefix).map(unquote_first);
    let by_prefix =
        ["CREATE ROLE ", "ALTER ROLE ", "COMMENT ON ROLE "].iter().find_map(|prefix| named(prefix));
    match by_prefix {
        Some(role) => missing.contains(&role),
        None if statement.starts_with("GRANT ") => {
            let member = statement.find(" TO ").map(|at| unquote_first(&statement[at + 4..]));
            member.is_some_and(|member| missing.contains(&member))
        }
        None => false,
    }
}

/// The identifier at the start of a text, without its quotes.
fn unquote_first(text: &str) -> String {
    match text.strip_prefix('"') {
        None => text.split([' ', ';']).next().unwrap_or_default().to_owned(),
        Some(inner) => {
            let mut name = String::new();
            let mut chars = inner.chars().peekable();
            while let Some(c) = chars.next() {
                match c {
                    '"' if chars.peek() == Some(&'"') => {
                        chars.next();
                        name.push('"');
                    }
                    '"' => break,
                    other => name.push(other),
                }
            }
            name
        }
    }
}

/// Creates the roles of a globals script that the server lacks.
///
/// # Errors
/// [`Error::Query`] when the roles cannot be listed; a refused statement is reported, not fatal.
pub(crate) async fn create_missing_roles(
    connection: &mut PgConnection,
    server: &Server,
    script: &str,
) -> Result<RolesReport, Error> {
    let rows = sqlx::query("select rolname::text as name from pg_roles")
        .fetch_all(&mut *connection)
        .await
        .map_err(query_error(server, "list roles"))?;
    let existing = rows.iter().map(|row| row.get("name")).collect();
    let (missing, statements) = missing_role_statements(script, &existing);
    let mut report = RolesReport { created: missing, refused: Vec::new() };
    for statement in statements {
        if let Err(error) = connection.execute(AssertSqlSafe(statement.clone())).await {
            // Only the first words: the rest may hold a password hash.
            let words: Vec<_> = statement.split_whitespace().take(3).collect();
            report.refused.push(format!("{}: {error}", words.join(" ")));
        }
    }
    Ok(report)
}

/// `ALTER DATABASE` statements that give a database its recorded settings. Pure.
#[must_use]
pub(crate) fn setting_statements(database: &str, settings: &[crate::facts::DatabaseSetting]) -> Vec<String> {
    settings
        .iter()
        .map(|setting| {
            let value = setting_value(&setting.name, &setting.value);
            let name = quote_setting(&setting.name);
            if setting.role.is_empty() {
                format!("ALTER DATABASE {} SET {name} TO {value}", quote_ident(database))
            } else {
                let role = quote_ident(&setting.role);
                format!("ALTER ROLE {role} IN DATABASE {} SET {name} TO {value}", quote_ident(database))
            }
        })
        .collect()
}

fn quote_setting(name: &str) -> String {
    name.split('.').map(quote_ident).collect::<Vec<_>>().join(".")
}

/// Settings that are lists of quoted names are stored as SQL text already; all others are plain values.
fn setting_value(name: &str, value: &str) -> String {
    const LISTS: [&str; 7] = [
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
        "oauth_validator_libraries",
    ];
    let is_list = LISTS.contains(&name.to_ascii_lowercase().as_str());
    if is_list && !value.is_empty() { value.to_owned() } else { quote_literal(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "SET client_encoding = 'UTF8';\nCREATE ROLE app;\nALTER ROLE app WITH LOGIN PASSWORD 'SCRAM;x';\n\
        CREATE ROLE \"odd \"\"name\";\nALTER ROLE \"odd \"\"name\" WITH NOLOGIN;\nCREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\n\
        GRANT app TO \"odd \"\"name\" GRANTED BY postgres;\nGRANT app TO postgres GRANTED BY postgres;\n";

    #[test]
    fn only_missing_roles_are_touched() {
        let existing = BTreeSet::from(["postgres".to_owned(), "app".to_owned()]);
        let (missing, statements) = missing_role_statements(SCRIPT, &existing);
        assert_eq!(missing, ["odd \"name"]);
        assert_eq!(statements.len(), 3);
        assert!(statements.iter().all(|statement| statement.contains("odd")));
    }

    #[test]
    fn nothing_runs_when_all_roles_exist() {
        let existing = ["postgres", "app", "odd \"name"].map(str::to_owned).into();
        assert!(missing_role_statements(SCRIPT, &existing).1.is_empty());
    }

    #[test]
    fn list_settings_keep_their_own_quoting() {
        assert_eq!(setting_value("search_path", "\"My Schema\", public"), "\"My Schema\", public");
        assert_eq!(setting_value("application_name", "it's"), "'it''s'");
    }
}
