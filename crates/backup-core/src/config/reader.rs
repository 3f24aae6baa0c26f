//! Reads keys through the layers: a flag wins over the environment, the environment over the file.
//!
//! A key is looked up where its section is decoded, so the list of known keys is what was asked for: nothing has to
//! be kept in step by hand. `compression.level` is `BACKSTAY_COMPRESSION_LEVEL` in the environment and
//! `--option compression.level=…` on the command line.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use super::Setting;
use super::document::{Entry, Node, Table, parse_value};
use super::error::{ConfigError, ConfigWarning, Origin};
use super::units::{ByteSize, TimeSpan};
use crate::key::Prefix;
use crate::secret::SecretRef;

/// What lies above the file, and what was asked so far.
pub(super) struct Layers<'a> {
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) settings: &'a [Setting],
    /// Folder against which relative paths of the file are resolved.
    pub(super) base: Option<PathBuf>,
    pub(super) warnings: RefCell<Vec<ConfigWarning>>,
    asked: RefCell<BTreeSet<String>>,
}

/// One section.
pub(super) struct Reader<'a> {
    pub(super) layers: &'a Layers<'a>,
    path: String,
    table: Option<&'a Table>,
    known: RefCell<Vec<&'static str>>,
}

/// Name of the environment variable of a key.
pub(super) fn variable(path: &str) -> String {
    let upper = path.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    std::iter::once("BACKSTAY_").map(str::to_owned).chain(upper.map(String::from)).collect()
}

/// The candidate that a misspelt word probably means.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

impl<'a> Layers<'a> {
    pub(super) fn new(environment: &'a BTreeMap<String, String>, settings: &'a [Setting]) -> Self {
        Self { environment, settings, base: None, warnings: RefCell::default(), asked: RefCell::default() }
    }

    pub(super) fn warn(&self, message: String) {
        self.warnings.borrow_mut().push(ConfigWarning { message });
    }

    /// The value that a flag or variable gives the key.
    fn above(&self, path: &str) -> Option<Entry> {
        self.asked.borrow_mut().insert(path.to_owned());
        if let Some(setting) = self.settings.iter().rev().find(|setting| setting.key == path) {
            let origin = Origin::Flag { flag: setting.flag.clone() };
            return Some(Entry { origin, node: Node::Loose(setting.value.clone()) });
        }
        let variable = variable(path);
        let text = self.environment.get(&variable)?.clone();
        // An empty variable is how many schedulers spell an absent one.
        let origin = Origin::Environment { variable };
        (!text.is_empty()).then_some(Entry { origin, node: Node::Loose(text) })
    }

    /// Refuses flags for keys that do not exist, and points out variables that look misspelt.
    pub(super) fn finish(&self) -> Result<(), ConfigError> {
        let asked = self.asked.borrow();
        if let Some(setting) = self.settings.iter().find(|setting| !asked.contains(&setting.key)) {
            return Err(ConfigError::UnknownKey {
                key: setting.key.clone(),
                origin: Origin::Flag { flag: setting.flag.clone() },
                suggestion: nearest(&setting.key, asked.iter().map(String::as_str)),
            });
        }
        let variables: BTreeSet<String> = asked.iter().map(|path| variable(path)).collect();
        for name in self.environment.keys().filter(|name| name.starts_with("BACKSTAY_")) {
            let misspelt = !variables.contains(name)
                && variables.iter().any(|known| strsim::damerau_levenshtein(name, known) <= 2);
            if let (true, Some(known)) = (misspelt, nearest(name, variables.iter().map(String::as_str))) {
                self.warn(format!("environment variable {name} has no effect: did you mean {known}?"));
            }
        }
        Ok(())
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a Layers<'a>, path: &str, table: Option<&'a Table>) -> Self {
        Self { layers, path: path.to_owned(), table, known: RefCell::default() }
    }

    pub(super) fn key_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn find(&self, key: &'static str) -> Option<Entry> {
        let in_file = self.in_file(key);
        self.layers.above(&self.key_path(key)).or_else(|| in_file.cloned())
    }

    /// Where the value of a key comes from.
    pub(super) fn origin(&self, key: &'static str) -> Option<Origin> {
        self.find(key).map(|entry| entry.origin)
    }

    /// What the file itself says of a key.
    pub(super) fn in_file(&self, key: &'static str) -> Option<&'a Entry> {
        self.known.borrow_mut().push(key);
        self.table.and_then(|table| table.get(key))
    }

    pub(super) fn bad<P: Display>(&self, key: &str, origin: &Origin, problem: P) -> ConfigError {
        ConfigError::Value { key: self.key_path(key), origin: origin.clone(), problem: problem.to_string() }
    }

    fn mismatch(&self, key: &str, entry: &Entry, expected: &str) -> ConfigError {
        self.bad(key, &entry.origin, format_args!("expected {expected}, found {}", entry.node.kind()))
    }

    /// A section below this one; empty when it is not there.
    pub(super) fn section(&self, key: &'static str) -> Result<Reader<'a>, ConfigError> {
        let table = match self.in_file(key) {
            None => None,
            Some(Entry { node: Node::Table(table), .. }) => Some(table),
            Some(entry) => return Err(self.mismatch(key, entry, "a section")),
        };
        Ok(Reader::new(self.layers, &self.key_path(key), table))
    }

    /// Every section of a list such as `[[repository]]`, decoded, with where it stands; no two have the same name. A single
    /// one may be written with single brackets.
    pub(super) fn each<T>(
        &self,
        key: &'static str,
        forms: &str,
        decode: impl Fn(&'a Entry) -> Result<T, ConfigError>,
        name: impl Fn(&T) -> &str,
    ) -> Result<Vec<(T, &'a Origin)>, ConfigError> {
        let Some(entry) = self.in_file(key) else { return Ok(Vec::new()) };
        let items = match &entry.node {
            Node::List(items) => items.as_slice(),
            Node::Table(_) => std::slice::from_ref(entry),
            _ => return Err(self.bad(key, &entry.origin, forms)),
        };
        let mut all: Vec<(T, &'a Origin)> = Vec::new();
        for item in items {
            let one = decode(item)?;
            if all.iter().any(|(other, _)| name(other) == name(&one)) {
                let problem = format!("two sections are called {:?}: give each a `name`", name(&one));
                return Err(self.bad(key, &item.origin, problem));
            }
            all.push((one, &item.origin));
        }
        Ok(all)
    }

    /// Whether the file has it at all.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<(String, Origin)>, ConfigError> {
        match self.find(key) {
            None => Ok(None),
            Some(Entry { node: Node::Text(text) | Node::Loose(text), origin }) if !text.is_empty() => {
                Ok(Some((text, origin)))
            }
            Some(Entry { node: Node::Text(_) | Node::Loose(_), origin }) => {
                Err(self.bad(key, &origin, "it is empty"))
            }
            Some(entry) => Err(self.mismatch(key, &entry, "a text")),
        }
    }

    /// A text that parses into a value.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        self.text(key)?
            .map(|(text, origin)| text.parse().map_err(|error| self.bad(key, &origin, error)))
            .transpose()
    }

    pub(super) fn string(&self, key: &'static str) -> Result<Option<String>, ConfigError> {
        Ok(self.text(key)?.map(|(text, _)| text))
    }

    /// One of some words, with the value that each stands for.
    pub(super) fn choice<T: Clone>(
        &self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Result<Option<T>, ConfigError> {
        let Some((text, origin)) = self.text(key)? else { return Ok(None) };
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(Some(value.clone()));
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        Err(self.bad(key, &origin, format_args!("{text:?} is not one of {}", names.join(", "))))
    }

    /// A whole number in a range.
    pub(super) fn number(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, ConfigError> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        let number = match &entry.node {
            Node::Integer(number) => *number,
            Node::Loose(text) => text.trim().parse().map_err(|_| {
                self.bad(key, &entry.origin, format_args!("{text:?} is no whole number: write one such as 7"))
            })?,
            _ => return Err(self.mismatch(key, &entry, "a whole number")),
        };
        if range.contains(&number) {
            return Ok(Some(number));
        }
        let (low, high) = (range.start(), range.end());
        let wanted = if *high >= i64::from(u32::MAX) {
            format!("at least {low}")
        } else {
            format!("from {low} to {high}")
        };
        Err(self.bad(key, &entry.origin, format_args!("{number} is out of range: it must be {wanted}")))
    }

    /// A positive count.
    pub(super) fn count(&self, key: &'static str) -> Result<Option<u32>, ConfigError> {
        let number = self.number(key, 1..=i64::from(u32::MAX))?;
        Ok(number.map(|number| u32::try_from(number).expect("the range was checked")))
    }

    pub(super) fn boolean(&self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        match &entry.node {
            Node::Boolean(answer) => Ok(Some(*answer)),
            Node::Loose(text) => match text.trim() {
                "true" | "yes" | "1" => Ok(Some(true)),
                "false" | "no" | "0" => Ok(Some(false)),
                _ => Err(self.bad(key, &entry.origin, format_args!("{text:?} is neither true nor false"))),
            },
            _ => Err(self.mismatch(key, &entry, "true or false")),
        }
    }

    pub(super) fn size(&self, key: &'static str) -> Result<Option<ByteSize>, ConfigError> {
        if let Some(Entry { node: Node::Integer(number), origin }) = self.find(key) {
            let size = u64::try_from(number).map_err(|_| self.bad(key, &origin, "it is negative"))?;
            return Ok(Some(ByteSize(size)));
        }
        self.parsed(key)
    }

    pub(super) fn span(&self, key: &'static str) -> Result<Option<TimeSpan>, ConfigError> {
        if let Some(Entry { node: Node::Integer(number), origin }) = self.find(key) {
            return Err(self.bad(
                key,
                &origin,
                format_args!("it has no unit: write \"{number}d\" or \"{number}h\""),
            ));
        }
        self.parsed(key)
    }

    /// A path; one of the file is relative to the file's own folder.
    pub(super) fn path(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.text(key)?.map(|(text, origin)| self.resolved(PathBuf::from(text), &origin)))
    }

    pub(super) fn resolved(&self, path: PathBuf, origin: &Origin) -> PathBuf {
        match (&self.layers.base, origin) {
            (Some(base), Origin::File { .. }) => base.join(path),
            _ => path,
        }
    }

    /// A list of texts; a flag or variable separates them by commas.
    pub(super) fn list(&self, key: &'static str) -> Result<Option<Vec<(String, Origin)>>, ConfigError> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        let items = match entry.node {
            Node::List(items) => items,
            Node::Loose(text) => text
                .split(',')
                .map(|item| Entry { origin: entry.origin.clone(), node: Node::Text(item.trim().to_owned()) })
                .collect(),
            _ => return Err(self.mismatch(key, &entry, "a list of texts")),
        };
        let texts = items.into_iter().map(|item| match item.node {
            Node::Text(text) => Ok((text, item.origin)),
            _ => Err(self.mismatch(key, &item, "a text in the list")),
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// Pairs of a table of texts.
    pub(super) fn pairs(&self, key: &'static str) -> Result<Option<BTreeMap<String, String>>, ConfigError> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        let table = match entry.node {
            Node::Table(table) => table,
            Node::Loose(ref text) => return self.loose_pairs(key, text, &entry.origin).map(Some),
            _ => return Err(self.mismatch(key, &entry, "a section of texts")),
        };
        let pairs = table.into_iter().map(|(name, item)| match item.node {
            Node::Text(text) => Ok((name, text)),
            _ => Err(self.mismatch(key, &item, "texts only")),
        });
        pairs.collect::<Result<_, _>>().map(Some)
    }

    fn loose_pairs(
        &self,
        key: &str,
        text: &str,
        origin: &Origin,
    ) -> Result<BTreeMap<String, String>, ConfigError> {
        let pair = |item: &str| {
            let (name, value) = item.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        };
        let wrong = || self.bad(key, origin, "write it as name=value,name=value");
        text.split(',').map(|item| pair(item).ok_or_else(wrong)).collect()
    }

    /// A reference to a secret. A flag may only refer, never contain.
    pub(super) fn secret(&self, key: &'static str) -> Result<Option<SecretRef>, ConfigError> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        let origin = &entry.origin;
        match (&entry.node, origin) {
            (Node::Table(table), _) => self.reference(key, table, origin).map(Some),
            (Node::Text(text), _) => {
                self.layers.warn(format!(
                    "`{}` {origin} is the secret itself: keep it outside and write {{ file = \"…\" }} or {{ env = \"…\" }}",
                    self.key_path(key)
                ));
                Ok(Some(SecretRef::Literal(text.clone())))
            }
            (Node::Loose(text), _) if text.trim_start().starts_with('{') => match parse_value(text, origin) {
                Some(Node::Table(table)) => self.reference(key, &table, origin).map(Some),
                _ => Err(self.bad(key, origin, SECRET_FORMS)),
            },
            (Node::Loose(_), Origin::Environment { variable }) => {
                Ok(Some(SecretRef::Env { env: variable.clone() }))
            }
            (Node::Loose(_), _) => Err(self.bad(
                key,
                origin,
                format_args!("arguments can be read by every user of the machine; {SECRET_FORMS}"),
            )),
            _ => Err(self.mismatch(key, &entry, "a secret")),
        }
    }

    /// A text, unless a table stands there.
    pub(super) fn text_if_no_table(
        &self,
        key: &'static str,
    ) -> Result<Option<(String, Origin)>, ConfigError> {
        match self.find(key).map(|entry| entry.node) {
            Some(Node::Table(_)) => Ok(None),
            Some(Node::Loose(text)) if text.trim_start().starts_with('{') => Ok(None),
            _ => self.text(key),
        }
    }

    /// A reference to something that is not secret by itself, so that it may stand there as it is.
    pub(super) fn reference_or_text(&self, key: &'static str) -> Result<Option<SecretRef>, ConfigError> {
        match self.text_if_no_table(key)? {
            Some((text, _)) => Ok(Some(SecretRef::Literal(text))),
            None => self.secret(key),
        }
    }

    /// A folder inside a bucket.
    pub(super) fn parsed_prefix(&self, key: &'static str) -> Result<String, ConfigError> {
        let Some((text, origin)) = self.text(key)? else { return Ok(String::new()) };
        let folder = text.trim_matches('/');
        Prefix::parse(folder).map_err(|error| self.bad(key, &origin, error))?;
        Ok(folder.to_owned())
    }

    fn reference(&self, key: &'static str, table: &Table, origin: &Origin) -> Result<SecretRef, ConfigError> {
        let path = self.key_path(key);
        let empty = BTreeMap::new();
        let alone = Layers::new(&empty, &[]);
        let reader = Reader::new(&alone, &path, Some(table));
        let env = reader.string("env")?;
        let file = reader.text("file")?;
        let manager = reader.string("secrets-manager")?;
        let (field, version) = (reader.string("key")?, reader.string("version")?);
        reader.finish()?;
        match (env, file, manager, field, version) {
            (Some(env), None, None, None, None) => Ok(SecretRef::Env { env }),
            (None, Some((file, origin)), None, None, None) => {
                Ok(SecretRef::File { file: self.resolved(PathBuf::from(file), &origin) })
            }
            (None, None, Some(secrets_manager), key, version) => {
                Ok(SecretRef::SecretsManager { secrets_manager, key, version })
            }
            _ => Err(self.bad(key, origin, SECRET_FORMS)),
        }
    }

    /// Refuses the keys that nobody asked for.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let known = self.known.borrow();
        let strange = |(key, entry): (&String, &'a Entry)| {
            (!known.contains(&key.as_str())).then(|| (entry.origin.clone(), key.clone()))
        };
        let first =
            self.table.into_iter().flatten().filter_map(strange).min_by_key(|(origin, _)| match origin {
                Origin::File { line, .. } => *line,
                _ => 0,
            });
        match first {
            None => Ok(()),
            Some((origin, key)) => {
                let suggestion = nearest(&key, known.iter().copied()).map(|near| self.key_path(&near));
                let key = self.key_path(&key);
                Err(ConfigError::UnknownKey { key, origin, suggestion })
            }
        }
    }
}

const SECRET_FORMS: &str =
    "write { env = \"NAME\" }, { file = \"/path\" } or { secrets-manager = \"name\", key = \"field\" }";
