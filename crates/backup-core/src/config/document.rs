//! A TOML document as a tree in which every value knows its line.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};

/// Keys of one section.
pub(super) type Table = BTreeMap<String, Entry>;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) node: Node,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    /// Text of a flag, a variable or an address, which may stand for any kind of value.
    Loose(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Entry>),
    Table(Table),
    /// A kind that no key takes.
    Other(&'static str),
}

impl Node {
    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Loose(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a section",
            Self::Other(kind) => kind,
        }
    }
}

/// Reads a document; `file` names it in messages.
pub(super) fn parse(file: &str, text: &str) -> Result<Table, ConfigError> {
    let lines = Lines { file: file.into(), text };
    let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        file: file.to_owned(),
        line: lines.number(error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    })?;
    Ok(lines.table(document.get_ref()))
}

/// Reads a single value that was given as text, such as `{ env = "NAME" }`.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let document = format!("value = {text}");
    let table = DeTable::parse(&document).ok()?;
    let lines = Lines { file: "".into(), text: &document };
    let (_, entry) = lines.table(table.get_ref()).into_iter().next()?;
    Some(moved_to(entry, origin).node)
}

fn moved_to(entry: Entry, origin: &Origin) -> Entry {
    let node = match entry.node {
        Node::List(items) => Node::List(items.into_iter().map(|item| moved_to(item, origin)).collect()),
        Node::Table(table) => {
            Node::Table(table.into_iter().map(|(key, item)| (key, moved_to(item, origin))).collect())
        }
        other => other,
    };
    Entry { origin: origin.clone(), node }
}

struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
}

impl Lines<'_> {
    fn number(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn origin(&self, offset: usize) -> Origin {
        Origin::File { file: Arc::clone(&self.file), line: self.number(offset) }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        table
            .iter()
            .map(|(key, value)| {
                let origin = self.origin(key.span().start);
                (key.get_ref().to_string(), Entry { origin, node: self.node(value) })
            })
            .collect()
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        match value.get_ref() {
            DeValue::String(text) => Node::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Node::Other("a number too large to count"), Node::Integer),
            DeValue::Boolean(answer) => Node::Boolean(*answer),
            DeValue::Array(items) => Node::List(
                items
                    .iter()
                    .map(|item| Entry { origin: self.origin(item.span().start), node: self.node(item) })
                    .collect(),
            ),
            DeValue::Table(table) => Node::Table(self.table(table)),
            DeValue::Float(_) => Node::Other("a fraction"),
            DeValue::Datetime(_) => Node::Other("a date"),
        }
    }
}
