//! Bundles: what has to be in one, how it is made, and how its objects get into a repository.
//!
//! `git bundle verify` looks at the header only and calls a bundle good whose pack is not. So a bundle counts when its pack was
//! taken apart as a clone does it, every object hashed, and everything that the refs need was found.

use std::io;
use std::path::Path;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::io::AsyncWriteExt as _;

use super::error::CodeError;
use super::git::{Git, ended};
use super::shadow::Shadow;
use super::state::Oid;

/// Longest header that is read: names of refs.
const LONGEST: usize = 256 << 20;

/// Those of some objects that a repository has.
pub(super) async fn present(git: &Git, shadow: &Shadow, oids: &[Oid]) -> Result<Vec<Oid>, CodeError> {
    let command = git.command(&shadow.path, ["cat-file", "--batch-check=%(objectname)"]);
    let said = git.ask(&shadow.named, command, lines(oids, "").as_bytes()).await?;
    let answers = said.stdout.split(|byte| *byte == b'\n');
    // `<id> missing` for others.
    Ok(answers.filter_map(|line| Oid::parse(std::str::from_utf8(line).ok()?).ok()).collect())
}

fn lines(oids: &[Oid], mark: &str) -> String {
    oids.iter().map(|oid| format!("{mark}{oid}\n")).collect()
}

/// Whether the refs need any object that is not reached from those excluded. Git makes no bundle of nothing.
pub(super) async fn is_needed(git: &Git, shadow: &Shadow, excluded: &[Oid]) -> Result<bool, CodeError> {
    let args = ["rev-list", "--objects", "--max-count=1", "--all", "--stdin"];
    let said = git.say_long(git.command(&shadow.path, args), lines(excluded, "^").as_bytes()).await?;
    if said.code != 0 {
        return Err(CodeError::of_repository(&shadow.named, "rev-list", &said.words));
    }
    Ok(!said.stdout.is_empty())
}

/// The command that writes a bundle of everything but what is reached from those excluded, and what it reads.
pub(super) fn create(
    git: &Git,
    shadow: &Shadow,
    excluded: &[Oid],
) -> (backstay_backup_core::process::CommandSpec, String) {
    let command = git.command(&shadow.path, ["bundle", "create", "-q", "-", "--all", "--stdin"]);
    (command.pipe_stdin().pipe_stdout(), lines(excluded, "^"))
}

/// Whether a repository has everything that some objects need, as far as it is not reached from others.
pub(super) async fn check_connected(
    git: &Git,
    repository: &Path,
    tips: &[Oid],
    excluded: &[Oid],
) -> Result<(), CodeError> {
    let input = lines(tips, "") + &lines(excluded, "^");
    let command = git.command(repository, ["rev-list", "--objects", "--quiet", "--stdin"]);
    git.tell(command, input.as_bytes()).await?;
    Ok(())
}

/// What stands before the pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Commits that the pack builds on.
    pub(super) needs: Vec<String>,
    /// Objects and the refs that stand for them.
    pub(super) refs: Vec<(String, Vec<u8>)>,
}

impl Header {
    /// Takes the lines of a header.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        match lines.next() {
            Some(b"# v2 git bundle" | b"# v3 git bundle") => {}
            _ => return Err("it is no bundle of git".to_owned()),
        }
        let mut header = Self::default();
        for line in lines {
            let id = |line: &[u8]| {
                let id = line.split(|byte| *byte == b' ').next().unwrap_or_default();
                String::from_utf8_lossy(id).into_owned()
            };
            match line.first() {
                Some(b'@') => {}
                Some(b'-') => header.needs.push(id(&line[1..])),
                _ => {
                    let name = line.splitn(2, |byte| *byte == b' ').nth(1).unwrap_or_default();
                    header.refs.push((id(line), name.to_vec()));
                }
            }
        }
        Ok(header)
    }
}

/// Why the pack of a bundle did not get into a repository.
enum Stopped {
    /// What it was read from failed.
    Source(io::Error),
    /// Git does not take more, and says why.
    Refused,
}

/// Takes a bundle apart into a repository: every object is read, checked and stored. Thin packs get what they build on from
/// what is there.
///
/// # Errors
/// [`CodeError::Git`] with the words of git when the pack is not what it should be.
///
/// # Cancel safety
/// A dropped call kills git; the repository is then good for nothing.
pub(super) async fn unbundle<S>(git: &Git, repository: &Path, chunks: S) -> Result<Header, CodeError>
where
    S: Stream<Item = io::Result<Bytes>> + Send,
{
    let command = git.command(repository, ["index-pack", "--stdin", "--fix-thin"]).pipe_stdin();
    let work = async {
        let mut chunks = Box::pin(chunks);
        let (header, rest) = read_header(&mut chunks).await?;
        let mut child = git.spawn(command).await?;
        let stdin =
            child.take_async_stdin().map_err(|error| CodeError::io("talk to", Path::new("git"), error))?;
        let fed = async {
            let Some(mut stdin) = stdin else { return Ok(()) };
            stdin.write_all(&rest).await.map_err(|_| Stopped::Refused)?;
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(Stopped::Source)?;
                stdin.write_all(&chunk).await.map_err(|_| Stopped::Refused)?;
            }
            Ok(())
        };
        if let Err(Stopped::Source(error)) = fed.await {
            return Err(source(error));
        }
        let (code, problem) = ended(&mut child).await?;
        if code == 0 { Ok(header) } else { Err(CodeError::Git { what: "index-pack".to_owned(), problem }) }
    };
    git.bounded("index-pack", work).await
}

fn source(error: io::Error) -> CodeError {
    match backstay_backup_core::object_reader::into_error(error) {
        Ok(error) => error.into(),
        Err(error) => CodeError::io("read", Path::new("the bundle"), error),
    }
}

async fn read_header<S>(chunks: &mut S) -> Result<(Header, Bytes), CodeError>
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
{
    let mut begin: Vec<u8> = Vec::new();
    let refused = |problem: &str| CodeError::Git { what: "bundle".to_owned(), problem: problem.to_owned() };
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(source)?;
        let seen = begin.len();
        begin.extend_from_slice(&chunk);
        // The empty line may lie across two chunks.
        let from = seen.saturating_sub(1);
        let found = begin[from..].windows(2).position(|pair| pair == b"\n\n").map(|at| from + at + 1);
        if let Some(end) = found {
            let header = Header::parse(&begin[..end]).map_err(|problem| refused(&problem))?;
            return Ok((header, Bytes::from(begin).slice(end + 1..)));
        }
        if begin.len() > LONGEST {
            break;
        }
    }
    Err(refused("the bundle has no end of its header"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(parts: &[&[u8]]) -> Result<(Header, Bytes), CodeError> {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        read_header(&mut futures::stream::iter(parts)).await
    }

    #[tokio::test]
    async fn a_header_is_read_however_it_is_cut() {
        let bundle = b"# v2 git bundle\n-aa c\nbb refs/heads/\xff x\ncc HEAD\n\nPACK\n\n";
        for at in 0..bundle.len() {
            let (header, rest) = read(&[&bundle[..at], &bundle[at..]]).await.unwrap();
            assert_eq!(header.needs, ["aa"]);
            assert_eq!(header.refs[0], ("bb".to_owned(), b"refs/heads/\xff x".to_vec()));
            assert_eq!(header.refs.len(), 2);
            let rest_of_second = bundle[at..].len().min(6);
            assert!(b"PACK\n\n".starts_with(&rest[..rest.len().min(rest_of_second)]), "{at}");
        }
    }

    #[tokio::test]
    async fn what_is_no_bundle_is_told() {
        for parts in [&[b"PACK\n\n".as_slice()][..], &[b"# v2 git bundle\nbb x\n"], &[]] {
            assert!(read(parts).await.is_err());
        }
    }
}
