//! Reads some frames of an object by range, without the rest of it.
//!
//! The digest in a manifest covers an object as a whole and says nothing about a part. So whoever asks for frames brings
//! the proof: a function that looks at the plain bytes and knows what they must be. A copy that does not stand it is
//! distrusted, and the next one is asked. Of an encrypted object the chunks of the age format that hold the frames
//! are fetched, and decrypted in their place.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use tokio::sync::OnceCell;

use crate::codec::decompress;
use crate::encryption::Identities;
use crate::error::Error;
use crate::key::Key;
use crate::manifest::{Manifest, ObjectEntry};
use crate::replicas::Repositories;
use crate::repository::Repository;
use crate::store::StoreError;

use super::fetch::Failures;

/// Bytes from the beginning of an age file that hold its header: some hundred for each recipient.
const HEADER_WITHIN: u64 = 16 << 10;
/// Plain bytes of a chunk of the age format, and what encryption adds to it.
const CHUNK: u64 = 64 << 10;
const TAG: u64 = 16;
/// Bytes between the header and the first chunk.
const NONCE: u64 = 16;

/// Reads frames of one object.
///
/// Memory: for each read its stored and its plain bytes.
#[derive(Debug)]
pub struct FrameReader {
    repositories: Repositories,
    manifest: std::sync::Arc<Manifest>,
    entry: ObjectEntry,
    key: Key,
    identities: Identities,
    /// Header of the age file, with the nonce; the same in every copy.
    header: OnceCell<Bytes>,
}

/// Why a copy is of no use.
enum Bad {
    Store(StoreError),
    Damaged(String),
}

impl Repositories {
    /// Prepares to read frames of an object of a set. Nothing is fetched yet.
    ///
    /// # Errors
    /// As [`Repositories::open_object`].
    pub fn open_frames(
        &self,
        manifest: &std::sync::Arc<Manifest>,
        entry: &ObjectEntry,
        identities: &Identities,
    ) -> Result<FrameReader, Error> {
        let key = super::key(manifest, entry, identities)?;
        Ok(FrameReader {
            repositories: self.clone(),
            manifest: manifest.clone(),
            entry: entry.clone(),
            key,
            identities: identities.clone(),
            header: OnceCell::new(),
        })
    }
}

impl FrameReader {
    /// Reads whole frames: `stored` is where they lie in the object before encryption, `plain` how many bytes they hold.
    /// `prove` gets those on a blocking thread and says what is wrong with them, if anything is.
    ///
    /// # Errors
    /// [`Error::Damaged`] when no copy stands the proof; [`Error::Store`] when one could not be asked.
    ///
    /// # Cancel safety
    /// A dropped call may leave `prove` running to its end.
    pub async fn read<T, P>(&self, stored: Range<u64>, plain: u64, prove: P) -> Result<T, Error>
    where
        T: Send + 'static,
        P: Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    {
        let prove = std::sync::Arc::new(prove);
        let mut failures = Failures::default();
        for repository in self.repositories.by_trust(&self.manifest.set, &self.entry.name) {
            match self.read_copy(&repository, &stored, plain, &prove).await {
                Ok(proven) => return Ok(proven),
                Err(Bad::Store(error)) => failures.store(&repository, error),
                Err(Bad::Damaged(problem)) => {
                    self.repositories.distrust(repository.name(), &self.manifest.set, &self.entry.name);
                    failures.damaged(&repository, &problem);
                }
            }
        }
        Err(failures.into_error(&self.manifest.set, &self.entry.name))
    }

    async fn read_copy<T, P>(
        &self,
        repository: &Repository,
        stored: &Range<u64>,
        plain: u64,
        prove: &std::sync::Arc<P>,
    ) -> Result<T, Bad>
    where
        T: Send + 'static,
        P: Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    {
        let fetched = if self.entry.recipients.is_empty() {
            Fetched::Plain(self.get(repository, stored.clone()).await?)
        } else {
            self.get_encrypted(repository, stored).await?
        };
        let (prove, codec, identities) = (prove.clone(), self.entry.codec, self.identities.clone());
        let stored = stored.clone();
        let open = move || {
            let compressed = fetched.decrypt(&identities, &stored)?;
            let reader = decompress(codec, io::Cursor::new(compressed))?;
            let mut content = Vec::with_capacity(usize::try_from(plain).unwrap_or_default());
            reader.take(plain.saturating_add(1)).read_to_end(&mut content)?;
            Ok::<_, io::Error>(content)
        };
        let checked = tokio::task::spawn_blocking(move || {
            let content = open().map_err(|error| format!("its frames cannot be decoded ({error})"))?;
            if content.len() as u64 != plain {
                return Err(format!("its frames hold {} instead of {plain} bytes", content.len()));
            }
            prove(&content)
        });
        checked.await.unwrap_or_else(|error| Err(error.to_string())).map_err(Bad::Damaged)
    }

    async fn get(&self, repository: &Repository, range: Range<u64>) -> Result<Bytes, Bad> {
        let wanted = range.end - range.start;
        let result = repository.store().get(&self.key, Some(range)).await.map_err(Bad::Store)?;
        if result.meta.size != self.entry.stored {
            let (found, stored) = (result.meta.size, self.entry.stored);
            return Err(Bad::Damaged(format!("it has {found} bytes instead of {stored}")));
        }
        let capacity = usize::try_from(wanted).unwrap_or_default();
        let append = async |mut all: BytesMut, chunk: Bytes| {
            all.extend_from_slice(&chunk);
            Ok(all)
        };
        let body = result.body.try_fold(BytesMut::with_capacity(capacity), append).await;
        let body = body.map_err(Bad::Store)?;
        if body.len() as u64 != wanted {
            return Err(Bad::Damaged(format!("{} of {wanted} bytes came", body.len())));
        }
        Ok(body.freeze())
    }

    async fn get_encrypted(&self, repository: &Repository, stored: &Range<u64>) -> Result<Fetched, Bad> {
        let header = self.header.get_or_try_init(|| self.get_header(repository)).await?.clone();
        let begin = header.len() as u64;
        // Seeking to where a chunk begins makes age look at the last one; from the byte before it does not.
        let first = stored.start.saturating_sub(1) / CHUNK;
        let chunks = first * (CHUNK + TAG)..stored.end.div_ceil(CHUNK) * (CHUNK + TAG);
        let range = begin + chunks.start..self.entry.stored.min(begin + chunks.end);
        if range.start >= range.end {
            return Err(Bad::Damaged("it is shorter than its index says".to_owned()));
        }
        let window = self.get(repository, range.clone()).await?;
        Ok(Fetched::Encrypted(Sparse {
            header,
            window,
            start: range.start,
            at: 0,
            length: self.entry.stored,
        }))
    }

    async fn get_header(&self, repository: &Repository) -> Result<Bytes, Bad> {
        let beginning = self.get(repository, 0..self.entry.stored.min(HEADER_WITHIN)).await?;
        let length = header_length(&beginning).ok_or_else(|| Bad::Damaged("it is no age file".to_owned()))?;
        Ok(beginning.slice(..length))
    }
}

/// Bytes of the header of an age file and of the nonce behind it. The header ends with the line of its MAC.
fn header_length(beginning: &[u8]) -> Option<usize> {
    let mac = memchr::memmem::find(beginning, b"\n--- ")?;
    let line = memchr::memchr(b'\n', &beginning[mac + 1..])?;
    let length = mac + 1 + line + 1 + usize::try_from(NONCE).ok()?;
    (length <= beginning.len()).then_some(length)
}

/// Stored bytes of some frames.
enum Fetched {
    Plain(Bytes),
    Encrypted(Sparse),
}

impl Fetched {
    /// The bytes before encryption.
    fn decrypt(self, identities: &Identities, stored: &Range<u64>) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(bytes) => Ok(bytes.to_vec()),
            Self::Encrypted(sparse) => {
                let mut opened = identities.decrypt_seekable(sparse).map_err(io::Error::other)?;
                if stored.start > 0 {
                    opened.seek(SeekFrom::Start(stored.start - 1))?;
                    opened.read_exact(&mut [0])?;
                }
                let mut bytes =
                    vec![0; usize::try_from(stored.end - stored.start).map_err(io::Error::other)?];
                opened.read_exact(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// A file of which only the beginning and one stretch are there.
struct Sparse {
    header: Bytes,
    window: Bytes,
    start: u64,
    at: u64,
    length: u64,
}

impl BufRead for Sparse {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let header = self.header.len() as u64;
        if self.at >= self.length {
            return Ok(&[]);
        }
        let (bytes, begin) = if self.at < header { (&self.header, 0) } else { (&self.window, self.start) };
        let place = self.at.checked_sub(begin).and_then(|at| usize::try_from(at).ok());
        match place.and_then(|at| bytes.get(at..)) {
            Some(rest) if !rest.is_empty() => Ok(rest),
            _ => Err(io::Error::other(format!("byte {} was not fetched", self.at))),
        }
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount as u64;
    }
}

impl Read for Sparse {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let len = available.len().min(buf.len());
        buf[..len].copy_from_slice(&available[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
