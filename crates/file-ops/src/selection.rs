//! What is to be backed up: listed paths, globs, and what is left out of them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::Error;
use crate::path::{ArchivePath, printable_path};

/// What a caller wants to be backed up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SelectionOptions {
    /// Absolute paths of files and folders; `*`, `?` and `[…]` stand for parts of one name.
    pub paths: Vec<PathBuf>,
    /// What is left out, in the syntax of `.gitignore`, as seen from `/`.
    pub excludes: Vec<String>,
    /// Absolute paths that are left out too, whatever the rules say: files whose content is a secret kept elsewhere.
    pub left_out: Vec<PathBuf>,
    /// Goes on into other file systems that are mounted below.
    pub cross_file_systems: bool,
    /// Takes folders too that say of themselves that they are caches (CACHEDIR.TAG).
    pub with_caches: bool,
}

/// The paths as they are now, and the rules of what is left out.
#[derive(Debug)]
pub struct Selection {
    /// Where walks begin, sorted; the folders they lie in are no links.
    pub(crate) roots: Vec<PathBuf>,
    /// Listed, and not there.
    pub(crate) missing: Vec<(PathBuf, String)>,
    pub(crate) excludes: Gitignore,
    left_out: BTreeSet<ArchivePath>,
    pub(crate) cross_file_systems: bool,
    pub(crate) with_caches: bool,
}

impl Selection {
    /// Looks the listed paths up.
    ///
    /// # Errors
    /// A path that is not absolute, or a pattern that is none.
    pub fn resolve(options: &SelectionOptions) -> Result<Self, Error> {
        let mut selection = Self {
            roots: Vec::new(),
            missing: Vec::new(),
            excludes: excludes(&options.excludes)?,
            left_out: options.left_out.iter().flat_map(|path| places(path)).collect(),
            cross_file_systems: options.cross_file_systems,
            with_caches: options.with_caches,
        };
        for path in &options.paths {
            if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
                let problem = "write an absolute path without ..".to_owned();
                return Err(Error::Pattern { pattern: printable_path(path), problem });
            }
            selection.add(path)?;
        }
        selection.roots.sort();
        selection.roots.dedup();
        Ok(selection)
    }

    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let found = expand(path)?;
        if found.is_empty() {
            self.missing.push((path.to_owned(), "nothing fits the pattern".to_owned()));
        }
        for path in found {
            match settle(&path) {
                Ok(settled) => self.roots.push(settled),
                Err(error) => self.missing.push((path, error.to_string())),
            }
        }
        Ok(())
    }

    /// Whether something below `/` is left out.
    pub(crate) fn excludes(&self, path: &ArchivePath, is_folder: bool) -> bool {
        self.leaves_out(path) || self.excludes.matched(path.as_path(), is_folder).is_ignore()
    }

    /// Whether that file is left out also where it is listed itself.
    pub(crate) fn leaves_out(&self, path: &ArchivePath) -> bool {
        self.left_out.contains(path)
    }

    /// Whether a walk of its own begins there.
    pub(crate) fn is_root(&self, path: &ArchivePath) -> bool {
        self.roots.binary_search_by(|root| root.as_path().cmp(&Path::new("/").join(path.as_path()))).is_ok()
    }
}

fn excludes(lines: &[String]) -> Result<Gitignore, Error> {
    let wrong = |line: &str, error: &ignore::Error| Error::Pattern {
        pattern: line.to_owned(),
        problem: error.to_string(),
    };
    let mut builder = GitignoreBuilder::new("/");
    for line in lines {
        builder.add_line(None, line).map_err(|error| wrong(line, &error))?;
    }
    builder.build().map_err(|error| wrong("", &error))
}

/// Where a file lies, as written and without links: its own place, and that of what it points to.
fn places(path: &Path) -> impl Iterator<Item = ArchivePath> {
    let found = [Some(path.to_owned()), settle(path).ok(), path.canonicalize().ok()];
    found.into_iter().flatten().filter_map(|path| ArchivePath::of_absolute(&path))
}

/// The path without links on the way; the last name is looked at as it is. So an archive says where a file really lies, and
/// a restore need not follow links.
pub(crate) fn settle(path: &Path) -> std::io::Result<PathBuf> {
    let settled = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize()?.join(name),
        _ => PathBuf::from("/"),
    };
    settled.symlink_metadata()?;
    Ok(settled)
}

fn is_pattern(name: &OsStr) -> bool {
    name.as_bytes().iter().any(|byte| b"*?[".contains(byte))
}

/// The paths that a pattern means now; a path without one means itself, there or not.
fn expand(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = vec![PathBuf::from("/")];
    let mut checked = false;
    for part in path.components().skip(1) {
        let name = part.as_os_str();
        if !is_pattern(name) {
            found.iter_mut().for_each(|folder| folder.push(name));
            if checked {
                found.retain(|path| path.symlink_metadata().is_ok());
            }
            continue;
        }
        checked = true;
        let matcher = matcher(path, name)?;
        found = found.iter().flat_map(|folder| matching(folder, &matcher)).collect();
    }
    Ok(found)
}

fn matcher(path: &Path, name: &OsStr) -> Result<Gitignore, Error> {
    let problem = |problem: String| Error::Pattern { pattern: printable_path(path), problem };
    let Some(text) = name.to_str().filter(|text| !text.contains("**")) else {
        return Err(problem(
            "a listed pattern is text, and stands for one name; list the folder instead".into(),
        ));
    };
    let mut builder = GitignoreBuilder::new("");
    builder.add_line(None, &format!("/{text}")).map_err(|error| problem(error.to_string()))?;
    builder.build().map_err(|error| problem(error.to_string()))
}

fn matching(folder: &Path, matcher: &Gitignore) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    // As in a shell, a dot at the beginning is only met by one.
    let fits = |name: &OsStr| !name.as_bytes().starts_with(b".") && matcher.matched(name, false).is_ignore();
    names.filter(|name| fits(name)).map(|name| folder.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(paths: &[PathBuf]) -> SelectionOptions {
        SelectionOptions { paths: paths.to_vec(), ..SelectionOptions::default() }
    }

    #[test]
    fn patterns_are_looked_up_and_links_on_the_way_are_settled() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(at.join("real/a")).unwrap();
        for name in ["real/a.conf", "real/b.conf", "real/.hidden.conf", "real/c.txt"] {
            std::fs::write(at.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("real", at.join("link")).unwrap();
        let paths = [at.join("link/*.conf"), at.join("link"), at.join("gone"), at.join("none/*")];
        let selection = Selection::resolve(&options(&paths)).unwrap();
        let expected = ["link", "real/a.conf", "real/b.conf"].map(|name| at.join(name));
        assert_eq!(selection.roots, expected);
        let missing: Vec<_> = selection.missing.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(missing, [at.join("gone"), at.join("none/*")]);
    }

    #[test]
    fn relative_paths_and_broken_patterns_are_refused() {
        for path in ["etc", "/etc/../x", "/etc/**/x"] {
            let refused = Selection::resolve(&options(&[PathBuf::from(path)]));
            assert!(matches!(refused, Err(Error::Pattern { .. })), "{path}");
        }
        let mut wrong = options(&[]);
        wrong.excludes = vec!["a{b".to_owned()];
        assert!(matches!(Selection::resolve(&wrong), Err(Error::Pattern { .. })));
    }
}
