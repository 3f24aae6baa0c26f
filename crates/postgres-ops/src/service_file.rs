//! PostgreSQL's connection service file: named sets of connection parameters that `psql` and `pg_dump` know too.
//!
//! Read the way `libpq` reads it, so that one file means the same to every program: the first section of that name
//! counts, keys are not trimmed around `=`, comments begin with `#`. The `ldap://` lines of `libpq` are not
//! supported and are refused instead of ignored.

use std::collections::BTreeMap;
use std::fmt;

/// The parameters of one service.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Service(BTreeMap<String, String>);

impl Service {
    /// The value of a parameter such as `host` or `dbname`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All parameters by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values stay out: one of them may be a password.
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Why a service file does not give the service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceFileError {
    /// No section of that name.
    #[error("no service {service:?} in the service file{}", known(services))]
    Unknown {
        /// The service.
        service: String,
        /// Those there are.
        services: Vec<String>,
    },
    /// A line of the service that means nothing.
    #[error("line {line} of the service file {problem}")]
    Line {
        /// 1-based line.
        line: usize,
        /// What is wrong, without the line's content.
        problem: &'static str,
    },
}

fn known(services: &[String]) -> String {
    if services.is_empty() { String::new() } else { format!(": it has {}", services.join(", ")) }
}

/// Finds a service in the text of a service file.
///
/// # Errors
/// There is no such service, or its section is not well-formed; other sections are not looked at.
pub fn find_service(text: &str, service: &str) -> Result<Service, ServiceFileError> {
    let mut services = Vec::new();
    let mut found = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            let name = name.split(']').next().unwrap_or_default();
            services.push(name.to_owned());
            found = (name == service).then(BTreeMap::new);
        } else if let Some(parameters) = &mut found {
            let (key, value) =
                parameter(line).map_err(|problem| ServiceFileError::Line { line: number + 1, problem })?;
            // As in libpq, the first value of a key counts.
            parameters.entry(key).or_insert(value);
        }
    }
    found.map(Service).ok_or_else(|| ServiceFileError::Unknown { service: service.to_owned(), services })
}

fn parameter(line: &str) -> Result<(String, String), &'static str> {
    if line.starts_with("ldap://") {
        return Err("asks a directory server, which is not supported");
    }
    match line.split_once('=') {
        None => Err("has no '='"),
        Some(("service" | "servicefile", _)) => {
            Err("refers to another service, which PostgreSQL does not allow")
        }
        Some((key, _)) if key.is_empty() || !key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') => {
            Err("has no parameter name directly before its '='")
        }
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "# ours\n[shop]\nhost=db.example\n  port=5433  \nhost=later\npassword=a=b #c\n\n[other]\nbroken\n[shop]\nuser=x\n";

    #[test]
    fn the_first_section_of_the_name_counts() {
        let service = find_service(FILE, "shop").unwrap();
        let pairs: Vec<_> = service.iter().collect();
        assert_eq!(pairs, [("host", "db.example"), ("password", "a=b #c"), ("port", "5433")]);
        assert_eq!(format!("{service:?}"), r#"["host", "password", "port"]"#);
    }

    #[test]
    fn what_libpq_refuses_is_refused_with_its_line() {
        assert_eq!(
            find_service(FILE, "other").unwrap_err().to_string(),
            "line 9 of the service file has no '='"
        );
        for line in ["host = x", "=x", "service=y", "ldap://host/dn"] {
            assert!(matches!(
                find_service(&format!("[a]\n{line}"), "a"),
                Err(ServiceFileError::Line { line: 2, .. })
            ));
        }
        let unknown = find_service("[a]\n[b]\n", "c").unwrap_err();
        assert_eq!(unknown.to_string(), "no service \"c\" in the service file: it has a, b");
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "(\\[a\\]\n)?\\PC*(\n\\PC*)*") {
            let _ = find_service(&text, "a");
        }
    }
}
