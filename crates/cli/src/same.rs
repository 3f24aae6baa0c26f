//! The configuration of this run, as arguments of another program.

use std::path::Path;

use backstay_backup_core::config::Place;

use crate::context::Context;
use crate::failure::Failure;

impl Context {
    /// Arguments that give another program of Backstay the configuration of this run, wherever that program runs: paths
    /// are absolute. What only stands in the environment is not among them.
    ///
    /// # Errors
    /// A path that cannot be made absolute or is no text.
    pub fn same_configuration(&self) -> Result<Vec<String>, Failure> {
        let common = self.common();
        let mut words = Vec::new();
        let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        if let Some(config) = common.config.as_deref().filter(|path| !path.as_os_str().is_empty()) {
            add("--config", absolute(config)?);
        }
        if let Some(stanza) = &common.stanza {
            add("--stanza", stanza.clone());
        }
        for text in &common.repository {
            let configured = self.config.repository.iter().find(|repository| repository.name == *text);
            let is_directory = configured
                .is_some_and(|it| matches!(it.place(), Place::Directory(path) if path == Path::new(text)));
            add("--repository", if is_directory { absolute(Path::new(text))? } else { text.clone() });
        }
        for setting in &common.option {
            add("--option", format!("{}={}", setting.key, setting.value));
        }
        Ok(words)
    }
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let whole = std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("cannot find {}: {error}", path.display())))?;
    let text = whole.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format!("the path {} is no text", whole.display())))
}
