//! Opens a file as a stream of plain bytes, and tells apart why a stream broke.
//!
//! A failure of the disk or the store and a failure of the bytes (a truncated gzip stream) both come out of a
//! decompressor as some `io::Error`. [`Source`] sits below it and remembers its own failures, so that whoever meets an
//! error above can ask which of the two it was.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStoreExt;

use super::listing::{Place, store_error};
use crate::source::outlet::Ended;

/// Why reading a file broke off.
#[derive(Debug)]
pub(crate) enum Break {
    /// Readers are to stop, or cannot go on.
    Ended(Ended),
    /// May pass: worth trying again.
    Passing(io::Error),
    /// Its bytes cannot be used, or not be read at all: goes on without it.
    Spoilt(String),
    /// It is gone.
    Vanished,
    /// Another file has its name now, or it has other bytes.
    Changed,
}

impl From<Ended> for Break {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Changed => Break::Changed,
            ended => Break::Ended(ended),
        }
    }
}

impl Break {
    /// What a failure of disk or store means.
    pub fn from_io(error: io::Error) -> Break {
        match error.kind() {
            ErrorKind::NotFound => Break::Vanished,
            ErrorKind::PermissionDenied
            | ErrorKind::InvalidInput
            | ErrorKind::IsADirectory
            | ErrorKind::StaleNetworkFileHandle => Break::Spoilt(error.to_string()),
            _ => Break::Passing(error),
        }
    }
}

/// A file's bytes as they are stored.
pub(crate) struct Source {
    bytes: Stored,
    trouble: Trouble,
}

/// The last failure of a [`Source`].
#[derive(Clone, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<io::Error>>>);

enum Stored {
    Local(File),
    Remote {
        runtime: tokio::runtime::Handle,
        stream: BoxStream<'static, object_store::Result<Bytes>>,
        chunk: Bytes,
    },
}

impl Trouble {
    /// What an error that was met above the source means.
    pub fn explain(&self, error: impl std::fmt::Display) -> Break {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(own) => Break::from_io(own),
            None => Break::Spoilt(error.to_string()),
        }
    }
}

impl Source {
    /// Opens a file of a place.
    pub fn open(place: &Place, partition: &str) -> Result<(Source, Trouble), Break> {
        let bytes = match place {
            Place::Local { folder, .. } => Stored::Local(File::open(folder.join(partition)).map_err(Break::from_io)?),
            Place::Remote { store, runtime, .. } => {
                let location = place.location(partition);
                let got = runtime
                    .block_on(store.get(&location))
                    .map_err(|e| Break::from_io(store_error(e)))?;
                let stream = got.into_stream();
                Stored::Remote {
                    runtime: runtime.clone(),
                    stream,
                    chunk: Bytes::new(),
                }
            }
        };
        let trouble = Trouble::default();
        Ok((
            Source {
                bytes,
                trouble: trouble.clone(),
            },
            trouble,
        ))
    }
}

impl Read for Source {
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
        read.inspect_err(|e| {
            if e.kind() != ErrorKind::Interrupted {
                let own = io::Error::new(e.kind(), e.to_string());
                *self.trouble.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
            }
        })
    }
}

/// The file's bytes without the compression that its name's ending tells.
pub(crate) fn decompress(source: Source, name: &str) -> io::Result<Box<dyn Read>> {
    let source = BufReader::with_capacity(128 << 10, source);
    let ending = name
        .rsplit_once('.')
        .map_or("", |(_, ending)| ending)
        .to_ascii_lowercase();
    Ok(match ending.as_str() {
        "gz" | "gzip" => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        "zst" | "zstd" => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        "sz" | "snappy" => Box::new(snap::read::FrameDecoder::new(source)),
        _ => Box::new(source),
    })
}
