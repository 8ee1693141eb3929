//! Opens a file as a stream of plain bytes, and tells apart why a stream broke.
//!
//! A failure of the disk or the store and a failure of the bytes (a truncated gzip stream) both come out of a
//! decompressor as some `io::Error`. [`Source`] sits below it and remembers its own failures, so that whoever meets an
//! error above can ask which of the two it was.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use flate2::bufread::GzDecoder;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStoreExt;

use super::charset::Peeked;
use super::content::ByteDigest;
use super::listing::{Place, store_error, tag};
use super::magic::{HEAD, Mark, Packing, instead_of, is_text, mark, unread_of_name};
use super::suspects::Proven;
use crate::decode::Damage;
use crate::source::outlet::Ended;

/// Why reading a file broke off.
#[derive(Debug)]
pub(crate) enum Break {
    /// Readers are to stop, or cannot go on.
    Ended(Ended),
    /// May pass: worth trying again.
    Passing(io::Error),
    /// It is there and may not be read, until somebody allows it.
    Denied(io::Error),
    /// Its bytes cannot be used, or not be read at all: goes on without it.
    Spoilt(String),
    /// It is no file of the feed's, by what it is or by its header: goes on without it.
    Refused(String),
    /// It ends where more must come: perhaps it is still being written. What it is if nothing more comes.
    Torn(Box<Break>),
    /// It is gone.
    Vanished,
    /// Another file has its name now, or it has other bytes.
    Changed,
}

impl From<Damage> for Break {
    fn from(damage: Damage) -> Self {
        Break::Spoilt(damage.to_string())
    }
}

impl From<Ended> for Break {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Unread(error) => Break::from_io(error),
            ended => Break::Ended(ended),
        }
    }
}

impl Break {
    pub fn torn(otherwise: Break) -> Break {
        Break::Torn(Box::new(otherwise))
    }

    /// What a failure of disk or store means.
    pub fn from_io(error: io::Error) -> Break {
        match error.kind() {
            ErrorKind::NotFound => Break::Vanished,
            ErrorKind::PermissionDenied => Break::Denied(error),
            ErrorKind::InvalidInput | ErrorKind::IsADirectory => Break::Spoilt(error.to_string()),
            ErrorKind::StaleNetworkFileHandle => Break::Changed,
            _ => Break::Passing(error),
        }
    }
}

/// A file's bytes as they are stored.
pub(crate) struct Source {
    bytes: Stored,
    trouble: Trouble,
    digest: Option<ByteDigest>,
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
    pub fn explain(&self, error: io::Error) -> Break {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(own) => Break::from_io(own),
            None if error.kind() == ErrorKind::UnexpectedEof => Break::torn(Break::Spoilt(error.to_string())),
            None => Break::Spoilt(error.to_string()),
        }
    }
}

impl Source {
    /// Opens a file of a place, whatever it holds now.
    pub fn open(place: &Place, partition: &str) -> Result<(Source, Trouble), Break> {
        Source::open_if(place, partition, |_| true)
    }

    /// Opens a file as the one that has this tag: after a failure, what is read on must be of the file that was begun.
    pub fn open_version(place: &Place, partition: &str, wanted: &str) -> Result<(Source, Trouble), Break> {
        Source::open_if(place, partition, |tag| tag == wanted)
    }

    fn open_if(place: &Place, partition: &str, is_wanted: impl Fn(&str) -> bool) -> Result<(Source, Trouble), Break> {
        let (bytes, tag) = match place {
            Place::Local { .. } => {
                let file = place.open_local(partition).map_err(Break::from_io)?;
                let opened = file.metadata().and_then(|m| Ok(tag(m.len(), None, m.modified()?)));
                (Stored::Local(file), opened.map_err(Break::from_io)?)
            }
            Place::Remote { store, runtime, .. } => {
                let location = place.location(partition);
                let got = runtime
                    .block_on(store.get(&location))
                    .map_err(|e| Break::from_io(store_error(e)))?;
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
            return Err(Break::Changed);
        }
        let trouble = Trouble::default();
        Ok((
            Source {
                bytes,
                trouble: trouble.clone(),
                digest: None,
            },
            trouble,
        ))
    }
}

/// Why a file could not be opened, for whoever reads it whole.
pub(crate) fn refusal(broken: Break) -> io::Error {
    match broken {
        Break::Passing(error) | Break::Denied(error) => error,
        Break::Spoilt(reason) | Break::Refused(reason) => io::Error::new(ErrorKind::InvalidInput, reason),
        Break::Vanished => io::Error::from(ErrorKind::NotFound),
        Break::Ended(_) => io::Error::from(ErrorKind::Interrupted),
        Break::Changed => io::Error::from(ErrorKind::StaleNetworkFileHandle),
        Break::Torn(broken) => refusal(*broken),
    }
}

impl Source {
    /// Hashes what is read from here on.
    pub fn digested(&mut self) -> ByteDigest {
        self.digest.get_or_insert_default().clone()
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

/// A file's bytes, unpacked.
pub(crate) struct Unpacked {
    pub source: Box<dyn Read>,
    /// Whether the file was compressed. Then unpacking fails where its end is missing, so a last line without a line end is whole.
    pub was_packed: bool,
    /// Where its packing tells behind its bytes alone whether they are right: up to where they are known to be.
    pub proven: Option<Proven>,
}

/// The file's bytes without their compression, which their first bytes tell, whatever the file is called.
///
/// # Errors
/// What it is where it is no text, and what to do; a failure of the disk or the store.
pub(crate) fn decompress(source: impl Read + 'static, trouble: &Trouble, name: &str) -> Result<Unpacked, Break> {
    let mut source: Box<dyn Read> = Box::new(BufReader::with_capacity(128 << 10, source));
    let mut proven = None;
    // What was packed before it was packed is met, too.
    for layer in 0..=LAYERS {
        let mut peeked = Peeked::new(source, HEAD);
        if layer == 0
            && let Some(failure) = peeked.failure.take()
        {
            return Err(trouble.explain(failure));
        }
        let packing = match mark(&peeked.head) {
            Some(Mark::Packed(packing)) if layer < LAYERS => packing,
            Some(mark) => return Err(Break::Refused(mark.not_text())),
            None => {
                let named = Packing::of_name(name).filter(|_| layer == 0);
                // Whoever fetches files by HTTP may unpack them and leave their names.
                let unread = unread_of_name(name).filter(|_| layer == 0);
                return match (named, unread) {
                    _ if is_text(&peeked.head) => Ok(Unpacked {
                        source: Box::new(peeked),
                        was_packed: layer > 0,
                        proven,
                    }),
                    (Some(packing), _) => Err(Break::Refused(match packing {
                        Packing::Bzip2 if peeked.head.starts_with(b"BZh") => {
                            "it is compressed by bzip2, and damaged where its first block begins; write it again"
                                .to_string()
                        }
                        _ => format!(
                            "its name ends as one compressed by {}, and its bytes are neither that nor text; write it again",
                            packing.name()
                        ),
                    })),
                    (None, Some(packing)) => Err(Break::Refused(format!(
                        "its name ends as one compressed by {packing}, which is not read, and its bytes are no text; compress it by \
                         zstd or gzip instead"
                    ))),
                    (None, None) => Ok(Unpacked {
                        source: Box::new(peeked),
                        was_packed: layer > 0,
                        proven,
                    }),
                };
            }
        };
        let told = Proven::default();
        source = unpacked(packing, peeked, &told).map_err(|e| trouble.explain(e))?;
        // Each part of snappy's frame format has a checksum, which is compared before the part is given.
        proven = (layer == 0 && packing != Packing::Snappy).then_some(told);
    }
    unreachable!("the last layer is returned or refused")
}

/// How often a file may be packed.
const LAYERS: usize = 2;

fn unpacked(packing: Packing, source: impl Read + 'static, proven: &Proven) -> io::Result<Box<dyn Read>> {
    let source = BufReader::with_capacity(128 << 10, source);
    Ok(match packing {
        Packing::Gzip => Box::new(Gunzip {
            state: Gunzipping::Member(Box::new(GzDecoder::new(source))),
            given: 0,
            proven: proven.clone(),
        }),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        Packing::Snappy => Box::new(snap::read::FrameDecoder::new(source)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        Packing::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(source)),
    })
}

/// The members of a gzip one behind the other. Zeros behind one are passed over, as gzip does: tapes and some mirrors fill files up
/// with them.
struct Gunzip<R> {
    state: Gunzipping<R>,
    /// Bytes that were unpacked, and how many of them are of members whose checksums were compared.
    given: u64,
    proven: Proven,
}

enum Gunzipping<R> {
    Member(Box<GzDecoder<R>>),
    Between(R),
    End,
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(&mut self.state, Gunzipping::End) {
                Gunzipping::Member(mut member) => {
                    let read = member.read(buffer);
                    self.given += *read.as_ref().unwrap_or(&0) as u64;
                    if matches!(read, Ok(0)) && !buffer.is_empty() {
                        self.proven.set(self.given);
                        self.state = Gunzipping::Between(member.into_inner());
                        continue;
                    }
                    self.state = Gunzipping::Member(member);
                    return read;
                }
                Gunzipping::Between(mut source) => match source.fill_buf().map(|bytes| (bytes.len(), padding(bytes))) {
                    Ok((0, _)) => return Ok(0),
                    Ok((bytes, padding)) if padding == bytes => {
                        source.consume(padding);
                        self.state = Gunzipping::Between(source);
                    }
                    Ok((_, padding)) => {
                        source.consume(padding);
                        self.state = Gunzipping::Member(Box::new(GzDecoder::new(source)));
                    }
                    Err(error) => {
                        self.state = Gunzipping::Between(source);
                        return Err(error);
                    }
                },
                Gunzipping::End => return Ok(0),
            }
        }
    }
}

fn padding(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())
}

/// Of a file that could not be read as Parquet or Avro (`wanted`): what it is instead, and what to do about it.
pub(crate) fn instead(place: &Place, partition: &str, wanted: Mark) -> Option<String> {
    let (source, _) = Source::open(place, partition).ok()?;
    instead_of(wanted, &Peeked::new(source, HEAD).head)
}
