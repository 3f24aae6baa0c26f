//! What a server reads at its start, according to its configuration.
//!
//! Which file a server loads depends on `appendonly`: with it an old append-only file wins over any snapshot, and without
//! one it starts empty, without an error; without it append-only files are ignored. A restore that does not know this
//! ends with an empty server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::RestoreError;
use super::glob;

/// Depth of `include` that is followed.
const MOST_INCLUDES: usize = 16;

/// The settings that decide what a server loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ServerConfiguration {
    /// Its data directory, where it says so.
    pub directory: Option<PathBuf>,
    /// Whether it loads and writes append-only files.
    pub append_only: bool,
    /// Folder of append-only files, of version 7 and newer.
    pub append_directory: String,
    /// Name that append-only files begin with; of the one file before version 7.
    pub append_file: String,
    /// Name of the snapshot.
    pub snapshot_file: String,
    /// Name of the file in which a node of a cluster keeps what it serves.
    pub cluster_file: String,
    /// Whether it takes snapshots by itself, also when it stops.
    pub save_points: bool,
    /// Where this is known from.
    pub origin: String,
}

impl ServerConfiguration {
    /// What a server does that was told nothing but this.
    #[must_use]
    pub fn usual(append_only: bool, origin: &str) -> Self {
        Self {
            directory: None,
            append_only,
            append_directory: "appendonlydir".to_owned(),
            append_file: "appendonly.aof".to_owned(),
            snapshot_file: "dump.rdb".to_owned(),
            cluster_file: "nodes.conf".to_owned(),
            save_points: true,
            origin: origin.to_owned(),
        }
    }

    /// Reads a configuration file with everything it includes.
    ///
    /// # Errors
    /// A file that cannot be read, names that are paths, includes that never end.
    pub fn read(path: &Path) -> Result<Self, RestoreError> {
        let mut reader = Reader::default();
        reader.file(path, 0)?;
        Self::usual(false, &path.display().to_string()).with(&reader.settings)
    }

    /// From what `CONFIG GET` of a running server says.
    ///
    /// # Errors
    /// Names that are paths.
    pub fn from_server(settings: &BTreeMap<String, String>, origin: &str) -> Result<Self, RestoreError> {
        Self::usual(false, origin).with(settings)
    }

    fn with(mut self, settings: &BTreeMap<String, String>) -> Result<Self, RestoreError> {
        let get = |name: &str| settings.get(name);
        self.directory = get("dir").map(PathBuf::from);
        if let Some(value) = get("appendonly") {
            self.append_only = value.eq_ignore_ascii_case("yes");
        }
        for (name, place) in [
            ("appenddirname", &mut self.append_directory),
            ("appendfilename", &mut self.append_file),
            ("dbfilename", &mut self.snapshot_file),
            ("cluster-config-file", &mut self.cluster_file),
        ] {
            let Some(value) = get(name) else { continue };
            if !is_plain_name(value) {
                let problem = format!("{name} in {} is {value:?}, which is no name of a file", self.origin);
                return Err(RestoreError::usage(problem, "correct the configuration of the server"));
            }
            place.clone_from(value);
        }
        if let Some(value) = get("save") {
            self.save_points = !value.trim().is_empty();
        }
        Ok(self)
    }
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != "." && name != ".."
}

#[derive(Default)]
struct Reader {
    settings: BTreeMap<String, String>,
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), RestoreError> {
        if depth > MOST_INCLUDES {
            let problem = format!("{} is included without an end", path.display());
            return Err(RestoreError::usage(problem, "correct the configuration of the server"));
        }
        let bytes = std::fs::read(path).map_err(RestoreError::io("read", path))?;
        for line in String::from_utf8_lossy(&bytes).lines() {
            let words = split_words(line);
            let Some((name, values)) = words.split_first() else { continue };
            match name.to_ascii_lowercase().as_str() {
                "include" => {
                    for pattern in values {
                        for included in expand(pattern)? {
                            self.file(&included, depth + 1)?;
                        }
                    }
                }
                "save" => self.save(values),
                name => {
                    self.settings.insert(name.to_owned(), values.join(" "));
                }
            }
        }
        Ok(())
    }

    /// Lines of `save` add up; an empty one takes them all away.
    fn save(&mut self, values: &[String]) {
        let points = self.settings.entry("save".to_owned()).or_default();
        let added = values.join(" ");
        if added.is_empty() {
            points.clear();
        } else {
            points.push(' ');
            points.push_str(&added);
        }
    }
}

/// The files that an `include` means; version 7 and newer take patterns. A pattern without a match is no error.
fn expand(pattern: &str) -> Result<Vec<PathBuf>, RestoreError> {
    let path = Path::new(pattern);
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    if !name.iter().any(|byte| b"*?[".contains(byte)) {
        return Ok(vec![path.to_owned()]);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RestoreError::io("read", folder)(error)),
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| glob::matches(name, entry.file_name().as_encoded_bytes()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

/// Splits a line as the server does: words, `"…"` with escapes, `'…'`; a line that begins with `#` is a comment.
fn split_words(line: &str) -> Vec<String> {
    let line = line.trim();
    let mut words = Vec::new();
    if line.starts_with('#') {
        return words;
    }
    let mut rest = line.chars().peekable();
    loop {
        while rest.next_if(|letter| letter.is_whitespace()).is_some() {}
        let mut word = String::new();
        match rest.peek() {
            None => return words,
            Some(&quote @ ('"' | '\'')) => {
                rest.next();
                while let Some(letter) = rest.next_if(|letter| *letter != quote) {
                    match (letter, rest.peek()) {
                        ('\\', Some(&escaped)) if quote == '"' || escaped == '\'' => {
                            rest.next();
                            word.push(escaped);
                        }
                        _ => word.push(letter),
                    }
                }
                rest.next();
            }
            Some(_) => {
                while let Some(letter) = rest.next_if(|letter| !letter.is_whitespace()) {
                    word.push(letter);
                }
            }
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ServerConfiguration {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("redis.conf");
        std::fs::write(&path, text).unwrap();
        ServerConfiguration::read(&path).unwrap()
    }

    #[test]
    fn a_server_that_is_told_nothing_takes_snapshots() {
        let found = read("# appendonly yes\n\nport 7000\n");
        assert!(!found.append_only && found.save_points);
        assert_eq!(found.snapshot_file, "dump.rdb");
        assert_eq!(found.directory, None);
    }

    #[test]
    fn the_last_word_counts() {
        let found = read(
            "appendonly no\nAppendOnly YES\ndir \"/srv/my redis\"\nappenddirname 'aof'\nappendfilename \"a.aof\"\n\
             dbfilename x.rdb\nsave 3600 1\nsave \"\"\n",
        );
        assert!(found.append_only && !found.save_points);
        assert_eq!(found.directory.as_deref(), Some(Path::new("/srv/my redis")));
        assert_eq!((&*found.append_directory, &*found.append_file), ("aof", "a.aof"));
        assert_eq!(found.snapshot_file, "x.rdb");
        assert!(read("save \"\"\nsave 60 1\n").save_points);
    }

    #[test]
    fn included_files_count_where_they_are_included() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        std::fs::create_dir(place("d")).unwrap();
        std::fs::write(place("d/1.conf"), "appendonly yes\n").unwrap();
        std::fs::write(place("d/other"), "appendonly no\n").unwrap();
        let main = place("main.conf");
        let include = format!("appendonly no\ninclude {}/*.conf\n", place("d").display());
        std::fs::write(&main, include).unwrap();
        assert!(ServerConfiguration::read(&main).unwrap().append_only);
        std::fs::write(&main, format!("include {}\n", main.display())).unwrap();
        assert!(ServerConfiguration::read(&main).unwrap_err().to_string().contains("without an end"));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let mut settings = BTreeMap::from([("dbfilename".to_owned(), "../x".to_owned())]);
        assert!(ServerConfiguration::from_server(&settings, "server").is_err());
        settings.insert("dbfilename".to_owned(), "x".to_owned());
        assert!(ServerConfiguration::from_server(&settings, "server").is_ok());
    }
}
