//! Records before a header that say what has no room in it: `length key=value\n`.

use std::collections::BTreeMap;

/// Appends a record. Its length counts the digits of itself.
pub(super) fn put(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Reads all records.
///
/// # Errors
/// A record that is none, or a key twice: then two readers could understand two things.
pub(super) fn parse(mut bytes: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, &'static str> {
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let broken = "a record of its extended header is broken";
        let blank = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or(broken)?;
        let digits = std::str::from_utf8(&bytes[..blank]).map_err(|_| broken)?;
        let canonical = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        let length: usize = digits.parse().map_err(|_| broken)?;
        if !canonical || length <= blank + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(broken);
        }
        let record = &bytes[blank + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(broken)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || records.insert(key.to_vec(), value.to_vec()).is_some() {
            return Err("a record of its extended header is there twice");
        }
        bytes = &bytes[length..];
    }
    Ok(records)
}

/// The name of an extended attribute as part of a key, where `=` would end it.
pub(super) fn escape(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'=' => escaped.extend_from_slice(b"%3D"),
            b'%' => escaped.extend_from_slice(b"%25"),
            byte => escaped.push(*byte),
        }
    }
    escaped
}

/// The reverse of [`escape`].
pub(super) fn unescape(mut name: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(name.len());
    while let Some((first, rest)) = name.split_first() {
        let (byte, rest) = match (first, rest) {
            (b'%', [b'3', b'D', rest @ ..]) => (b'=', rest),
            (b'%', [b'2', b'5', rest @ ..]) => (b'%', rest),
            (b'%', _) => return None,
            (byte, rest) => (*byte, rest),
        };
        plain.push(byte);
        name = rest;
    }
    Some(plain)
}
