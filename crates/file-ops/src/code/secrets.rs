//! Looks for secrets in what would be stored without encryption: the files of the commit that is checked out, and what is not
//! committed. Older commits are not looked at.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::error::CodeError;
use super::git::{Git, ended};
use super::shadow::{Shadow, TreeFile};
use super::state::State;
use super::uncommitted::{Look, Uncommitted};
use crate::error::Finding;
use crate::files::Root;
use crate::path::{ArchivePath, printable};
use crate::scan::Scanner;

/// Everything that is found in the files of the commit.
pub(super) async fn in_commit(
    git: &Git,
    shadow: &Shadow,
    state: &State,
    named: &Path,
    allow: &[String],
    cancel: &CancellationToken,
) -> Result<Vec<Finding>, CodeError> {
    let mut files = shadow.files(git, state).await?;
    files.retain(|file| file.mode.starts_with("100"));
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let scanner = Scanner::new(allow)?;
    let command = git.command(&shadow.path, ["cat-file", "--batch"]).pipe_stdin().pipe_stdout();
    let work = async {
        let mut child = git.spawn(command).await?;
        let (Some(stdin), Some(stdout)) = (child.take_stdin(), child.take_stdout()) else {
            return Err(CodeError::internal("git has no pipes"));
        };
        let cancel = cancel.clone();
        let scanning = tokio::task::spawn_blocking(move || scan(&files, &scanner, stdin, stdout, &cancel));
        let scanned = scanning.await.map_err(CodeError::internal)?;
        let (code, words) = ended(&mut child).await?;
        match scanned {
            Err(Stopped::Cancelled) => Err(CodeError::cancelled()),
            _ if code != 0 => Err(CodeError::of_repository(named, "cat-file", &words)),
            Err(Stopped::Unreadable(problem)) => Err(CodeError::Damaged { path: named.to_owned(), problem }),
            Ok(findings) => Ok(findings),
        }
    };
    git.bounded("cat-file", work).await
}

enum Stopped {
    Cancelled,
    Unreadable(String),
}

fn scan(
    files: &[TreeFile],
    scanner: &Scanner,
    mut stdin: PipeWriter,
    stdout: PipeReader,
    cancel: &CancellationToken,
) -> Result<Vec<Finding>, Stopped> {
    let mut findings = Vec::new();
    let mut stdout = BufReader::with_capacity(256 << 10, stdout);
    for file in files {
        if cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let path = match ArchivePath::parse(&file.path) {
            Ok(path) => path,
            Err(_) => {
                findings.push(Finding { path: printable(&file.path), line: None, rule: "odd-name" });
                continue;
            }
        };
        if scanner.is_allowed(&path) {
            continue;
        }
        let unreadable = |problem: String| Stopped::Unreadable(format!("{path}: {problem}"));
        let failed = |error: std::io::Error| unreadable(error.to_string());
        stdin.write_all(format!("{}\n", file.id).as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stdout.read_line(&mut answer).map_err(failed)?;
        let size = answer.trim_end().rsplit(' ').next().and_then(|size| size.parse::<u64>().ok());
        let Some(size) = size else { return Err(unreadable(format!("git says {:?}", answer.trim_end()))) };
        let mut content = stdout.by_ref().take(size);
        findings.extend(scanner.scan(&path, &mut content).map_err(failed)?);
        std::io::copy(&mut content, &mut std::io::sink()).map_err(failed)?;
        let mut end = [0];
        stdout.read_exact(&mut end).map_err(failed)?;
    }
    Ok(findings)
}

/// Everything that is found in what is not committed. Blocks.
pub(super) fn in_work_tree(
    tree: &Path,
    look: &Look,
    uncommitted: &Uncommitted,
    allow: &[String],
) -> Result<Vec<Finding>, CodeError> {
    let scanner = Scanner::new(allow)?;
    let root = Root::open(tree).map_err(|error| CodeError::io("open", tree, error.into()))?;
    let mut findings = Vec::new();
    for path in look.changed.iter().chain(&look.untracked) {
        let Ok(path) = ArchivePath::parse(path) else { continue };
        let is_file = root.stat(&path).is_ok_and(|stat| {
            stat.is_some_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
        });
        // One that is gone, or cannot be read, will not be stored either.
        let Some(file) = is_file.then(|| root.open_file(&path).ok()).flatten() else { continue };
        let failed = |error| CodeError::io("read", &tree.join(path.as_path()), error);
        findings.extend(scanner.scan(&path, File::from(file)).map_err(failed)?);
    }
    // What is staged and was changed again stands nowhere but in the patch.
    for patch in [&uncommitted.staged, &uncommitted.unstaged] {
        let name = patch.path.file_name().unwrap_or_default();
        let path = ArchivePath::parse(name.as_encoded_bytes()).map_err(CodeError::internal)?;
        let failed = |error| CodeError::io("read", &patch.path, error);
        let file = File::open(&patch.path).map_err(failed)?;
        let seen: std::collections::BTreeSet<_> = findings.iter().map(|finding| finding.rule).collect();
        let more = scanner.scan(&path, file).map_err(failed)?;
        // What the files themselves were found to have, the patch has too, with less exact places; and what is taken out.
        findings.extend(more.into_iter().filter(|finding| !seen.contains(finding.rule)));
    }
    Ok(findings)
}
