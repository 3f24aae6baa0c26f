//! Reads ranges of a stored archive. Blocking.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::{Manifest, ObjectEntry};
use backstay_backup_core::replicas::Repositories;

use super::units::{is_consistent, locate};
use crate::archive::ArchiveToc;
use crate::error::Error;
use crate::facts::StoredArchive;

/// Copied at once.
const BUFFER: usize = 256 << 10;

/// One archive of a set, readable by ranges of its plain bytes.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveSource {
    repositories: Repositories,
    manifest: Arc<Manifest>,
    identities: Arc<Identities>,
    entries: Vec<ObjectEntry>,
}

impl ArchiveSource {
    /// Finds the archive's objects in the manifest.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] when the manifest contradicts itself.
    pub(crate) fn new(
        repositories: &Repositories,
        manifest: &Arc<Manifest>,
        identities: &Arc<Identities>,
        archive: &StoredArchive,
    ) -> Result<Self, Error> {
        let unsuitable = |problem: &str| Error::Unsuitable {
            set: manifest.set.to_string(),
            problem: format!("{problem} (archive {})", archive.name),
            remedy: None,
        };
        let entries: Option<Vec<ObjectEntry>> =
            archive.objects.iter().map(|name| manifest.object(name).cloned()).collect();
        let entries = entries.ok_or_else(|| unsuitable("names objects that its manifest does not have"))?;
        if !is_consistent(archive, entries.iter().map(|entry| entry.plain).sum()) {
            return Err(unsuitable("has facts that contradict its objects"));
        }
        Ok(Self {
            repositories: repositories.clone(),
            manifest: Arc::clone(manifest),
            identities: Arc::clone(identities),
            entries,
        })
    }

    /// Plain bytes of each object.
    pub(crate) fn lengths(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.plain).collect()
    }

    /// Writes the bytes of the spans, in order.
    pub(crate) fn copy(&self, spans: &[Range<u64>], output: &mut impl Write) -> io::Result<()> {
        let pieces = locate(spans, &self.lengths());
        let mut buffer = vec![0; BUFFER];
        for object in pieces.chunk_by(|a, b| a.0 == b.0) {
            let entry = &self.entries[object[0].0];
            let mut reader = self
                .repositories
                .open_object(&self.manifest, entry, &self.identities)
                .map_err(io::Error::other)?;
            let mut at = 0;
            for (_, range) in object {
                copy_exactly(&mut reader, range.start - at, &mut io::sink(), &mut buffer)?;
                copy_exactly(&mut reader, range.end - range.start, output, &mut buffer)?;
                at = range.end;
            }
            // To the very end: only there is the object's digest checked.
            if at == entry.plain {
                copy_exactly(&mut reader, 0, &mut io::sink(), &mut buffer)?;
                end_of(&mut reader, &mut buffer)?;
            }
        }
        Ok(())
    }

    /// Reads header and table of contents.
    pub(crate) fn prefix(&self, length: u64) -> io::Result<(Vec<u8>, ArchiveToc)> {
        let mut bytes = Vec::new();
        self.copy(std::slice::from_ref(&(0..length)), &mut bytes)?;
        let toc =
            ArchiveToc::parse(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((bytes, toc))
    }

    /// Reads a whole small object as text.
    pub(crate) fn text(
        repositories: &Repositories,
        manifest: &Manifest,
        identities: &Identities,
        entry: &ObjectEntry,
    ) -> io::Result<String> {
        let mut text = String::new();
        let mut reader = repositories.open_object(manifest, entry, identities).map_err(io::Error::other)?;
        reader.read_to_string(&mut text)?;
        Ok(text)
    }
}

fn copy_exactly(
    from: &mut impl Read,
    mut left: u64,
    to: &mut impl Write,
    buffer: &mut [u8],
) -> io::Result<()> {
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = from.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(())
}

fn end_of(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<()> {
    match from.read(buffer)? {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an object is longer than its manifest says")),
    }
}
