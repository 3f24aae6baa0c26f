//! Repositories as one text, for flags: `./backups` or `s3://bucket/prefix?region=eu-west-1&path-style=true`.

use super::document::{Entry, Node, Table};
use super::error::{ConfigError, Origin};

/// The sections that the text of a `--repository` stands for.
pub(super) fn parse(text: &str, origin: &Origin) -> Result<Table, ConfigError> {
    let bad = |problem: String| ConfigError::Value {
        key: "repository".to_owned(),
        origin: origin.clone(),
        problem,
    };
    let entry = |node| Entry { origin: origin.clone(), node };
    let loose = |text: &str| entry(Node::Loose(text.to_owned()));
    if text.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    match text.split_once("://") {
        None => Ok(Table::from([("name".to_owned(), loose(text)), ("path".to_owned(), loose(text))])),
        Some(("file", path)) if path.starts_with('/') => {
            Ok(Table::from([("name".to_owned(), loose(path)), ("path".to_owned(), loose(path))]))
        }
        Some(("s3", rest)) => {
            let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
            let s3 = bucket(place, query, origin).map_err(bad)?;
            Ok(Table::from([
                ("name".to_owned(), loose(&format!("s3://{}", place.trim_end_matches('/')))),
                ("s3".to_owned(), entry(Node::Table(s3))),
            ]))
        }
        Some((scheme, _)) => Err(bad(format!(
            "{scheme}:// is not supported: write a directory such as ./backups, or s3://bucket/prefix?region=…"
        ))),
    }
}

fn bucket(place: &str, query: &str, origin: &Origin) -> Result<Table, String> {
    let entry = |text: String| Entry { origin: origin.clone(), node: Node::Loose(text) };
    if place.contains('@') {
        return Err(
            "credentials do not belong into the address: use the AWS environment, a profile, or the \
                    configuration file"
                .to_owned(),
        );
    }
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err("the bucket is missing: write s3://bucket/prefix".to_owned());
    }
    let mut table = Table::from([("bucket".to_owned(), entry(bucket.to_owned()))]);
    if !prefix.trim_end_matches('/').is_empty() {
        table.insert("prefix".to_owned(), entry(prefix.trim_end_matches('/').to_owned()));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} has no value"))?;
        if matches!(key, "access-key-id" | "secret-access-key" | "bucket" | "prefix" | "tags") {
            return Err(format!("{key} cannot be given in an address"));
        }
        if table.insert(key.to_owned(), entry(decoded(value)?)).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    Ok(table)
}

/// Undoes percent-encoding; a plus sign stays what it is.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} has a wrong percent sign");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let mut byte = [0];
                hex::decode_to_slice([*high, *low], &mut byte).map_err(|_| wrong())?;
                bytes.extend(byte);
                rest = tail;
            }
            (b'%', _) => return Err(wrong()),
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}
