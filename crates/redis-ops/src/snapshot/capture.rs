//! What is in no RDB: settings, modules, topology, users.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::Error;
use crate::server::{Server, Shard};

/// What one server says of itself.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Captured {
    server: String,
    primary: Option<String>,
    settings: BTreeMap<String, String>,
    pub(super) modules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_nodes: Option<String>,
    /// Lines of an ACL file; they hold hashes of passwords.
    #[serde(skip)]
    pub(super) users: Vec<String>,
    /// What it would not say.
    #[serde(skip)]
    pub(super) warnings: Vec<String>,
}

/// Asks a server for all that. What it does not say is a warning.
pub(super) async fn capture(server: &mut Server, shard: &Shard) -> Captured {
    let mut captured = Captured {
        server: shard.endpoint.to_string(),
        primary: shard.primary.as_ref().map(ToString::to_string),
        ..Captured::default()
    };
    match server.settings("*").await {
        Ok(settings) => {
            let harmless = settings.into_iter().filter(|(name, _)| !is_secret(name));
            captured.settings = harmless.collect();
        }
        Err(error) => captured.missed("its settings", &error),
    }
    match server.ask(&["MODULE", "LIST"], "MODULE LIST").await {
        Ok(modules) => captured.modules = module_names(&modules),
        Err(error) => captured.missed("its modules", &error),
    }
    match server.texts(&["ACL", "LIST"], "ACL LIST").await {
        Ok(users) => captured.users = users,
        Err(error) => captured.missed("its users", &error),
    }
    if !shard.slots.is_empty() {
        match server.text(&["CLUSTER", "NODES"], "CLUSTER NODES").await {
            Ok(nodes) => captured.cluster_nodes = Some(nodes),
            Err(error) => captured.missed("the nodes of its cluster", &error),
        }
    }
    captured
}

impl Captured {
    fn missed(&mut self, what: &str, error: &Error) {
        self.warnings
            .push(format!("{what} are not in the backup: {}", backstay_backup_core::error::describe(error)));
    }

    /// Whether the users are more than the one that every server has.
    pub(super) fn has_users(&self) -> bool {
        let only = self.users.as_slice();
        !(only.is_empty() || (only.len() == 1 && only[0].contains(" nopass ")))
    }
}

/// Settings that are passwords.
fn is_secret(name: &str) -> bool {
    name.ends_with("pass") || name.ends_with("auth")
}

/// The names in the answer to `MODULE LIST`: maps, or lists of keys and values.
fn module_names(answer: &redis::Value) -> Vec<String> {
    use redis::Value;
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    };
    let named = |pair: (&Value, &Value)| (text(pair.0)? == "name").then(|| text(pair.1))?;
    let name = |module: &Value| match module {
        Value::Array(parts) => parts.chunks_exact(2).find_map(|pair| named((&pair[0], &pair[1]))),
        Value::Map(pairs) => pairs.iter().find_map(|(key, value)| named((key, value))),
        _ => None,
    };
    let Value::Array(modules) = answer else { return Vec::new() };
    modules.iter().filter_map(name).collect()
}
