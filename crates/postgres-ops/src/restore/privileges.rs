//! Privileges on the database itself, which are in no dump of its content.
//!
//! They are recorded as PostgreSQL prints them (`role=CTc*/grantor`) and given back after the data is compared: before
//! that, a missing CONNECT could lock out the role that restores.

use sqlx::{AssertSqlSafe, Executor, Row};

use super::job::Job;
use crate::compare::Comparison;
use crate::error::Error;
use crate::facts::DatabaseFacts;
use crate::ident::quote_ident;
use crate::inspect::{PRIVILEGES, query_error};

/// One entry of an access list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    /// Who has the privileges; empty for everybody.
    grantee: String,
    /// Privileges by name.
    plain: Vec<&'static str>,
    /// Privileges that may be passed on.
    with_option: Vec<&'static str>,
    /// Who gave them.
    grantor: String,
}

impl Job<'_> {
    /// Gives the recorded privileges and adds them to the comparison. What the server refuses becomes a warning.
    ///
    /// # Errors
    /// [`Error::Query`] when the privileges cannot be read back.
    pub(super) async fn grant(&mut self, comparison: &mut Comparison) -> Result<(), Error> {
        let recorded = &self.facts.database;
        if !self.made || !self.options.is_whole() || self.options.no_privileges {
            return Ok(());
        }
        let database = &self.prepared.target.filled_as;
        let mut refused = Vec::new();
        for statement in statements(database, recorded, !self.options.no_owner) {
            if let Err(error) = self.admin.execute(AssertSqlSafe(statement.clone())).await {
                refused.push(format!("{statement}: {error}"));
            }
        }
        if refused.is_empty() && self.adopted && !self.options.no_owner {
            let query = format!("select {PRIVILEGES} as privileges from pg_database d where d.datname = $1");
            let row = sqlx::query(AssertSqlSafe(query))
                .bind(database)
                .fetch_one(&mut self.admin)
                .await
                .map_err(query_error(&self.server, "read the database's privileges"))?;
            let found: Vec<String> = row.get("privileges");
            let label = || "privileges on the database".to_owned();
            comparison.fact(label, &recorded.privileges.join("; "), &found.join("; "));
        }
        self.warnings.extend(refused);
        Ok(())
    }
}

/// The statements that give a database its recorded privileges; none for the defaults. Pure.
fn statements(database: &str, facts: &DatabaseFacts, owner: bool) -> Vec<String> {
    let grants: Vec<Grant> = facts.privileges.iter().filter_map(|item| parse(item)).collect();
    if grants.is_empty() {
        return Vec::new();
    }
    let target = quote_ident(database);
    let mut statements = vec![format!("REVOKE ALL ON DATABASE {target} FROM PUBLIC")];
    if owner {
        statements.push(format!("REVOKE ALL ON DATABASE {target} FROM {}", quote_ident(&facts.owner)));
    }
    // What the owner gave comes first: others may have passed it on.
    let (first, later): (Vec<&Grant>, Vec<&Grant>) =
        grants.iter().partition(|grant| grant.grantor == facts.owner);
    for grant in first.into_iter().chain(later) {
        // Without the recorded owner, the role that restores owns the database and has everything.
        if owner || grant.grantee != facts.owner {
            statements.extend(grant.statements(&target, owner && grant.grantor != facts.owner));
        }
    }
    statements
}

impl Grant {
    fn statements(&self, database: &str, as_grantor: bool) -> Vec<String> {
        let grantee = if self.grantee.is_empty() { "PUBLIC".to_owned() } else { quote_ident(&self.grantee) };
        let both = [(&self.plain, ""), (&self.with_option, " WITH GRANT OPTION")];
        let given = both.into_iter().filter(|(privileges, _)| !privileges.is_empty());
        given
            .map(|(privileges, option)| {
                let grant =
                    format!("GRANT {} ON DATABASE {database} TO {grantee}{option}", privileges.join(", "));
                if as_grantor {
                    // One implicit transaction: a refusal takes the change of role back.
                    format!("SET ROLE {}; {grant}; RESET ROLE", quote_ident(&self.grantor))
                } else {
                    grant
                }
            })
            .collect()
    }
}

/// Reads `grantee=letters/grantor`, either name in double quotes where it has to be.
fn parse(item: &str) -> Option<Grant> {
    let (grantee, rest) = name(item)?;
    let rest = rest.strip_prefix('=')?;
    let (letters, grantor) = rest.split_once('/')?;
    let (grantor, _) = name(grantor)?;
    let mut grant = Grant { grantee, plain: Vec::new(), with_option: Vec::new(), grantor };
    let mut letters = letters.chars().peekable();
    while let Some(letter) = letters.next() {
        let privilege = match letter {
            'C' => "CREATE",
            'T' => "TEMPORARY",
            'c' => "CONNECT",
            _ => return None,
        };
        let option = letters.next_if_eq(&'*').is_some();
        if option { &mut grant.with_option } else { &mut grant.plain }.push(privilege);
    }
    Some(grant)
}

/// A role's name at the start of a text, without its quotes, and what follows.
fn name(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find('=').unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(privileges: &[&str]) -> DatabaseFacts {
        let privileges = privileges.iter().map(|text| (*text).to_owned()).collect();
        DatabaseFacts { owner: "shop".to_owned(), privileges, ..DatabaseFacts::default() }
    }

    #[test]
    fn privileges_come_back_as_they_were_printed() {
        let recorded = facts(&["=T/shop", "\"odd \"\"=/role\"=c/app", "app=Cc*/shop", "shop=CTc/shop"]);
        let expected = [
            "REVOKE ALL ON DATABASE \"x\" FROM PUBLIC",
            "REVOKE ALL ON DATABASE \"x\" FROM \"shop\"",
            "GRANT TEMPORARY ON DATABASE \"x\" TO PUBLIC",
            "GRANT CREATE ON DATABASE \"x\" TO \"app\"",
            "GRANT CONNECT ON DATABASE \"x\" TO \"app\" WITH GRANT OPTION",
            "GRANT CREATE, TEMPORARY, CONNECT ON DATABASE \"x\" TO \"shop\"",
            "SET ROLE \"app\"; GRANT CONNECT ON DATABASE \"x\" TO \"odd \"\"=/role\"; RESET ROLE",
        ];
        assert_eq!(statements("x", &recorded, true), expected);
        let without_owner = statements("x", &recorded, false);
        assert!(without_owner.iter().all(|text| !text.contains("\"shop\"") && !text.contains("ROLE")));
    }

    #[test]
    fn the_defaults_need_no_statement_and_an_empty_list_strikes_everybody() {
        assert!(statements("x", &facts(&[]), true).is_empty());
        assert_eq!(statements("x", &facts(&["=/shop"]), true).len(), 2);
    }

    #[test]
    fn what_is_no_entry_is_left_alone() {
        for text in ["", "app", "app=c", "app=Z/shop", "\"app=c/shop"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
