//! Opens a file as a stream of decompressed bytes, and distinguishes why a stream broke.
//!
//! A failure of the disk or the store and a failure of the bytes (a truncated gzip stream) both come out of a
//! decompressor as some `io::Error`. [`StoredBytes`] lies below the decompressor and remembers its own failures, so
//! that the caller above can find out which of the two it was.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStoreExt;

use super::charset::Peeked;
use super::content::ByteDigest;
use super::listing::{GlobLocation, store_error, tag};
use super::magic::{FileMark, HEAD, Packing, instead_of, is_text, mark, unread_of_name};
use super::members::{Members, UnsupportedPacking};
use super::suspects::VerifiedBytes;
use crate::decode::Damage;
use crate::source::error::ReaderExit;

/// Why the reading of a file broke off.
#[derive(Debug)]
pub(crate) enum ReadBreak {
    /// Readers are to stop, or cannot go on.
    Ended(ReaderExit),
    /// A transient failure, worth a retry.
    Passing(io::Error),
    /// The file exists but the process may not read it, until somebody permits that.
    Denied(io::Error),
    /// Its bytes are unusable or unreadable: the feed goes on without it.
    Spoilt(String),
    /// By its format or header it does not belong to the feed, which goes on without it.
    Refused(String),
    /// It ends where more must follow, so it may still be being written; with the break that counts if nothing more
    /// comes.
    Torn(Box<ReadBreak>),
    /// It was deleted.
    Vanished,
    /// It was replaced or rewritten.
    Changed,
}

impl From<Damage> for ReadBreak {
    fn from(damage: Damage) -> Self {
        ReadBreak::Spoilt(damage.to_string())
    }
}

impl From<ReaderExit> for ReadBreak {
    fn from(ended: ReaderExit) -> Self {
        match ended {
            ReaderExit::Unread(error) => ReadBreak::from_io(error),
            ended => ReadBreak::Ended(ended),
        }
    }
}

impl ReadBreak {
    pub fn torn(otherwise: ReadBreak) -> ReadBreak {
        ReadBreak::Torn(Box::new(otherwise))
    }

    /// Classifies a failure of the disk or the store.
    pub fn from_io(error: io::Error) -> ReadBreak {
        match error.kind() {
            ErrorKind::NotFound => ReadBreak::Vanished,
            ErrorKind::PermissionDenied => ReadBreak::Denied(error),
            ErrorKind::InvalidInput | ErrorKind::IsADirectory => ReadBreak::Spoilt(error.to_string()),
            ErrorKind::StaleNetworkFileHandle => ReadBreak::Changed,
            _ => ReadBreak::Passing(error),
        }
    }
}

/// A stream of a file's bytes as they are stored.
pub(crate) struct StoredBytes {
    bytes: Stored,
    trouble: LastReadError,
    digest: Option<ByteDigest>,
}

/// The last failure of a [`StoredBytes`].
#[derive(Clone, Default)]
pub(crate) struct LastReadError(Arc<Mutex<Option<io::Error>>>);

enum Stored {
    Local(File),
    Remote {
        runtime: tokio::runtime::Handle,
        stream: BoxStream<'static, object_store::Result<Bytes>>,
        chunk: Bytes,
    },
}

impl LastReadError {
    /// Classifies an error that occurred above the source.
    pub fn explain(&self, error: io::Error) -> ReadBreak {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(own) => ReadBreak::from_io(own),
            None if error.get_ref().is_some_and(|error| error.is::<UnsupportedPacking>()) => {
                ReadBreak::Refused(error.to_string())
            }
            None if error.kind() == ErrorKind::UnexpectedEof => ReadBreak::torn(ReadBreak::Spoilt(error.to_string())),
            None => ReadBreak::Spoilt(error.to_string()),
        }
    }
}

impl StoredBytes {
    /// Opens a file, whatever its version is now.
    pub fn open(place: &GlobLocation, partition: &str) -> Result<(StoredBytes, LastReadError), ReadBreak> {
        StoredBytes::open_if(place, partition, |_| true)
    }

    /// Opens a file if it has this tag: after a failure, reading must continue in the same version.
    pub fn open_version(
        place: &GlobLocation,
        partition: &str,
        wanted: &str,
    ) -> Result<(StoredBytes, LastReadError), ReadBreak> {
        StoredBytes::open_if(place, partition, |tag| tag == wanted)
    }

    fn open_if(
        place: &GlobLocation,
        partition: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<(StoredBytes, LastReadError), ReadBreak> {
        let (bytes, tag) = match place {
            GlobLocation::Local { .. } => {
                let file = place.open_local(partition).map_err(ReadBreak::from_io)?;
                let opened = file.metadata().and_then(|m| Ok(tag(m.len(), None, m.modified()?)));
                (Stored::Local(file), opened.map_err(ReadBreak::from_io)?)
            }
            GlobLocation::Remote { store, runtime, .. } => {
                let location = place.location(partition);
                let got = runtime
                    .block_on(store.get(&location))
                    .map_err(|e| ReadBreak::from_io(store_error(e)))?;
                let meta = &got.meta;
                let tag = tag(meta.size, meta.e_tag.as_deref(), meta.last_modified.into());
                let stream = got.into_stream();
                let stored = Stored::Remote {
                    runtime: runtime.clone(),
                    stream,
                    chunk: Bytes::new(),
                };
                (stored, tag)
            }
        };
        if !is_wanted(&tag) {
            return Err(ReadBreak::Changed);
        }
        let trouble = LastReadError::default();
        Ok((
            StoredBytes {
                bytes,
                trouble: trouble.clone(),
                digest: None,
            },
            trouble,
        ))
    }
}

/// The `io::Error` for a file that could not be opened.
pub(crate) fn refusal(broken: ReadBreak) -> io::Error {
    match broken {
        ReadBreak::Passing(error) | ReadBreak::Denied(error) => error,
        ReadBreak::Spoilt(reason) | ReadBreak::Refused(reason) => io::Error::new(ErrorKind::InvalidInput, reason),
        ReadBreak::Vanished => io::Error::from(ErrorKind::NotFound),
        ReadBreak::Ended(_) => io::Error::from(ErrorKind::Interrupted),
        ReadBreak::Changed => io::Error::from(ErrorKind::StaleNetworkFileHandle),
        ReadBreak::Torn(broken) => refusal(*broken),
    }
}

impl StoredBytes {
    /// Starts to compute a digest of the bytes that are read from here on.
    pub fn digested(&mut self) -> ByteDigest {
        self.digest.get_or_insert_default().clone()
    }
}

impl Read for StoredBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.bytes {
            Stored::Local(file) => file.read(buffer),
            Stored::Remote { runtime, stream, chunk } => loop {
                if !chunk.is_empty() {
                    let n = chunk.len().min(buffer.len());
                    chunk.copy_to_slice(&mut buffer[..n]);
                    break Ok(n);
                }
                match runtime.block_on(stream.next()) {
                    None => break Ok(0),
                    Some(Ok(next)) => *chunk = next,
                    Some(Err(e)) => break Err(store_error(e)),
                }
            },
        };
        if let (Ok(read), Some(digest)) = (&read, &self.digest) {
            digest.observe(&buffer[..*read]);
        }
        read.inspect_err(|e| {
            if e.kind() != ErrorKind::Interrupted {
                let own = io::Error::new(e.kind(), e.to_string());
                *self.trouble.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
            }
        })
    }
}

/// A stream of a file's decompressed bytes.
pub(crate) struct UnpackedFile {
    pub source: Box<dyn Read>,
    /// Whether the file was compressed. Then a missing end is an error of the decompressor, so a last line without a
    /// line end is complete.
    pub was_packed: bool,
    /// Set if the format verifies bytes only after they were returned: up to where they are verified.
    pub proven: Option<VerifiedBytes>,
}

/// Decompresses a file as its first bytes require, whatever its name is.
///
/// # Errors
/// If it is not text, what it is and what to do; a failure of the disk or the store.
pub(crate) fn decompress(
    source: impl Read + 'static,
    trouble: &LastReadError,
    name: &str,
) -> Result<UnpackedFile, ReadBreak> {
    let mut source: Box<dyn Read> = Box::new(BufReader::with_capacity(128 << 10, source));
    let mut proven = None;
    // A file that was compressed twice is unpacked twice.
    for layer in 0..=LAYERS {
        let mut peeked = Peeked::new(source, HEAD);
        if layer == 0
            && let Some(failure) = peeked.failure.take()
        {
            return Err(trouble.explain(failure));
        }
        let packing = match mark(&peeked.head) {
            Some(FileMark::Packed(packing)) if layer < LAYERS => packing,
            Some(mark) => return Err(ReadBreak::Refused(mark.not_text())),
            None => {
                let named = Packing::of_name(name).filter(|_| layer == 0);
                // A client that downloads files by HTTP may decompress them but keep the names, so a name proves
                // nothing.
                let unread = unread_of_name(name).filter(|_| layer == 0);
                return match (named, unread) {
                    _ if is_text(&peeked.head) => Ok(UnpackedFile {
                        source: Box::new(peeked),
                        was_packed: layer > 0,
                        proven,
                    }),
                    (Some(packing), _) => Err(ReadBreak::Refused(match packing {
                        Packing::Bzip2 if peeked.head.starts_with(b"BZh") => {
                            "it is compressed by bzip2, and damaged where its first block begins; write it again"
                                .to_string()
                        }
                        _ => format!(
                            "its name ends as one compressed by {}, and its bytes are neither that nor text; write it again",
                            packing.name()
                        ),
                    })),
                    (None, Some(packing)) => Err(ReadBreak::Refused(format!(
                        "its name ends as one compressed by {packing}, which is not read, and its bytes are no text; compress it by \
                         zstd or gzip instead"
                    ))),
                    (None, None) => Ok(UnpackedFile {
                        source: Box::new(peeked),
                        was_packed: layer > 0,
                        proven,
                    }),
                };
            }
        };
        let verified = VerifiedBytes::default();
        source = unpacked(packing, peeked, &verified);
        // Snappy's frame format checks the checksum of each chunk before its bytes are returned, so nothing is in
        // doubt.
        proven = (layer == 0 && packing != Packing::Snappy).then_some(verified);
    }
    unreachable!("the last layer is returned or refused")
}

/// How often a file may have been compressed.
const LAYERS: usize = 2;

fn unpacked(packing: Packing, source: impl Read + 'static, proven: &VerifiedBytes) -> Box<dyn Read> {
    let source = BufReader::with_capacity(128 << 10, source);
    match packing {
        Packing::Snappy => Box::new(snap::read::FrameDecoder::new(source)),
        _ => Box::new(Members::new(packing, source, proven.clone())),
    }
}

/// For a file that could not be read as Parquet or Avro (`wanted`): what it is instead, and what to do about it.
pub(crate) fn instead(place: &GlobLocation, partition: &str, wanted: FileMark) -> Option<String> {
    let (source, _) = StoredBytes::open(place, partition).ok()?;
    instead_of(wanted, &Peeked::new(source, HEAD).head)
}
