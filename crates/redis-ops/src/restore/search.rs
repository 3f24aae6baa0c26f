//! Looks into the archived stream before anything is restored: where it may be cut, and where a command stands.
//!
//! Every segment says where its first command begins, so one can begin to read anywhere. The search goes backwards, because
//! an accident was mostly just now: it costs the segments behind the accident, not the whole archive.

use std::sync::Arc;

use backstay_backup_core::encryption::Identities;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::error::RestoreError;
use super::target::CommandSearch;
use crate::Offset;
use crate::archive::{Boundary, SegmentHead, SegmentObject, Span, StreamArchive, StreamPath, StreamSurvey};
use crate::resp::{Capture, CommandScanner, StreamState};

/// How much of each command is looked at when one is searched for; 4 MiB at most.
const LOOK: Capture = Capture { arguments: 8192, bytes: 512 };
/// Words of a command that are shown.
const SHOWN: usize = 2;

/// A command that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct FoundCommand {
    /// Where it begins.
    pub offset: Offset,
    /// The database it went to.
    pub database: Option<u32>,
    /// Its first words.
    pub text: String,
    /// It was received after this time, or at it.
    pub after: Timestamp,
    /// It was received until then.
    pub until: Timestamp,
}

/// The stream of an archive, for looking into it.
#[derive(Debug)]
pub(super) struct Lookout<'a> {
    pub(super) archive: &'a StreamArchive,
    pub(super) survey: &'a Arc<StreamSurvey>,
    pub(super) identities: &'a Identities,
}

/// The bytes of a piece of a path, with what its segment says of itself.
struct Piece {
    head: SegmentHead,
    span: Span,
    content: Bytes,
}

impl Piece {
    /// The first place between two commands within this piece.
    fn first(&self) -> Option<Boundary> {
        self.head.first.filter(|it| self.span.start <= it.offset && it.offset <= self.span.end)
    }

    fn from(&self, offset: Offset) -> &[u8] {
        let at = usize::try_from(offset.since(self.span.start)).unwrap_or(usize::MAX).min(self.content.len());
        &self.content[at..]
    }
}

impl Lookout<'_> {
    async fn read(
        &self,
        path: &StreamPath,
        (object, span): &(SegmentObject, Span),
    ) -> Result<Piece, RestoreError> {
        // By a path, so that a damaged object is gone round; and before its head, of which only that proves anything.
        let part = self.survey.path(&path.line, span.start, span.end)?;
        let mut reader = self.archive.open(self.survey.clone(), part, self.identities);
        let mut content = Vec::new();
        while let Some(bytes) = reader.next().await? {
            content.extend_from_slice(&bytes);
        }
        let head = self.archive.head(object).await?;
        Ok(Piece { head, span: *span, content: content.into() })
    }

    /// The last place on the path where the stream may be cut: behind a whole command, outside a transaction. The beginning
    /// of the path is one, because a base stands there.
    pub(super) async fn last_cut(&self, path: &StreamPath) -> Result<Offset, RestoreError> {
        let mut behind = Vec::new();
        for piece in path.pieces.iter().rev() {
            let piece = self.read(path, piece).await?;
            // The first piece begins where the base stands, whatever its segment says.
            let is_first = piece.span.start == path.span.start;
            let begin = if is_first { Some(base_boundary(path.span.start)) } else { piece.first() };
            let Some(begin) = begin else {
                behind = [&piece.content[..], &behind].concat();
                continue;
            };
            let mut scanner = CommandScanner::new(begin.offset, begin.state);
            let mut cut = None;
            for bytes in [piece.from(begin.offset), &behind] {
                let scanned = scanner.scan(bytes, |command| {
                    if command.is_cut() {
                        cut = Some(command.end);
                    }
                });
                scanned.map_err(|error| damaged(&piece, &error))?;
            }
            match cut {
                Some(cut) => return Ok(cut),
                None if !begin.state.in_transaction => return Ok(begin.offset),
                None => behind = [&piece.content[..], &behind].concat(),
            }
        }
        Ok(path.span.start)
    }

    /// Finds a command on a path, from its end backwards. `left` says how many of them come before it, seen so.
    pub(super) async fn find(
        &self,
        path: &StreamPath,
        search: &CommandSearch,
        left: &mut usize,
    ) -> Result<Option<FoundCommand>, RestoreError> {
        let mut behind = Vec::new();
        for piece in path.pieces.iter().rev() {
            let piece = self.read(path, piece).await?;
            let is_first = piece.span.start == path.span.start;
            let begin = if is_first { Some(base_boundary(path.span.start)) } else { piece.first() };
            let Some(begin) = begin else {
                behind = [&piece.content[..], &behind].concat();
                continue;
            };
            let found = scan(&piece, begin, &behind, search)?;
            if found.len() > *left {
                return Ok(found.into_iter().nth_back(*left));
            }
            *left -= found.len();
            let before = usize::try_from(begin.offset.since(piece.span.start)).unwrap_or(usize::MAX);
            behind = piece.content[..before.min(piece.content.len())].to_vec();
        }
        Ok(None)
    }
}

/// Nothing is known of the database where a path begins; commands say it themselves soon enough.
fn base_boundary(offset: Offset) -> Boundary {
    Boundary { offset, state: StreamState::default() }
}

fn damaged(piece: &Piece, error: &crate::resp::RespError) -> RestoreError {
    RestoreError::content(
        format!("the stream from {} to {}", piece.span.start, piece.span.end),
        error.to_string(),
    )
}

fn scan(
    piece: &Piece,
    begin: Boundary,
    behind: &[u8],
    search: &CommandSearch,
) -> Result<Vec<FoundCommand>, RestoreError> {
    let head = &piece.head;
    let mut found = Vec::new();
    let mut scanner = CommandScanner::new(begin.offset, begin.state).capture(LOOK);
    for bytes in [piece.from(begin.offset), behind] {
        let scanned = scanner.scan(bytes, |command| {
            // One that ends behind this piece was begun in it and received with it, or a little later.
            if search.is(command) {
                found.push(FoundCommand {
                    offset: command.start,
                    database: command.before.database,
                    text: show(command),
                    after: head.by_server(head.first_received),
                    until: head.by_server(head.last_received),
                });
            }
        });
        scanned.map_err(|error| damaged(piece, &error))?;
    }
    Ok(found)
}

/// Name and first argument of a command, for people. What follows may be secret or long.
fn show(command: &crate::resp::Command<'_>) -> String {
    let mut shown: Vec<_> = command
        .arguments()
        .take(SHOWN)
        .map(|word| {
            let text: String = String::from_utf8_lossy(word.bytes).chars().take(40).collect();
            text.escape_debug().to_string()
        })
        .collect();
    if command.count > shown.len() as u64 {
        shown.push(format!("… ({} words)", command.count));
    }
    shown.join(" ")
}
