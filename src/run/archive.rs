//! The decoders that readers use, with two checks in front. Records behind a schema with new fields are held back
//! ([`SchemaWatch`]). Columnar files are archived as they arrived: before the first rows of a file are delivered, the
//! file is copied into the lake, and Bronze refers to the copy.
//!
//! The reader's thread makes the copy. Its name is derived from the file's name and tag, so copying again after a
//! crash changes nothing, and a file that was replaced in place gets a copy of its own. A copy becomes visible only if
//! the file still had the same tag when its last byte was copied, so the copy holds exactly what is decoded. If the
//! lake does not accept the copy, the run ends. If the file cannot be read, the reader handles that like any other
//! failure to read; nothing of the file has been delivered by then.

use std::hash::Hasher;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::runtime::Handle;
use twox_hash::XxHash3_64;

use super::RunError;
use super::board::{Board, RunEvent};
use crate::decode::{Decoder, Payloads, SchemaWatch, WaitingRecords};
use crate::definition::Dataflow;
use crate::evolve::NewSchemaFields;
use crate::lake::Lake;
use crate::registry::Registries;
use crate::source::{Decode, Decoders, Originals, Undecoded, archived_name};

/// Makes decoders for readers; each archives the columnar files that pass through it. With `watches`, they hold
/// records back at a schema with new fields.
pub fn decoders(
    dataflow: &Arc<Dataflow>,
    registries: &Arc<Registries>,
    lake: &Lake,
    runtime: &Handle,
    board: &Arc<Board>,
    watches: bool,
) -> Decoders {
    let registries = registries.clone();
    let (dataflow, lake, runtime, board) = (dataflow.clone(), lake.clone(), runtime.clone(), board.clone());
    Arc::new(move |index, feed| {
        let input = &dataflow.inputs[index];
        let mut decoder = Decoder::new(input, &input.feeds[feed], &registries)
            .expect("every feed's decoder was made once before readers start");
        let watch = SchemaWatch::new(input, &input.feeds[feed], &registries);
        let watch = watch.expect("every feed's registry was made with its decoder");
        let mut watch = watch.filter(|_| watches);
        let place = (input.name.clone(), input.feeds[feed].name.clone());
        let originals = Originals::of_feed(&dataflow, (index, feed), runtime.clone())
            .expect("a feed's files were found before its readers start");
        let mut archive = originals.filter(|_| input.bronze).map(|originals| Archive {
            input: input.name.clone(),
            originals,
            lake: lake.clone(),
            runtime: runtime.clone(),
            newest: None,
        });
        let board = board.clone();
        let decode: Decode = Box::new(move |mut raw| {
            if let (Payloads::Columns { path, tag, .. }, Some(archive)) = (&mut raw.payloads, &mut archive) {
                match archive.store_copy(path, tag) {
                    Ok(reference) => *path = reference,
                    Err(ArchiveFailure::Unread(error)) => return Err(Undecoded::Unread(error)),
                    Err(ArchiveFailure::Unwritten(source)) => board.events.tell(RunEvent::Failed(RunError::Archive {
                        file: path.to_string(),
                        source,
                    })),
                }
            }
            let new_schema = watch.as_mut().map_or(Ok(None), |watch| watch.first_new_schema(&raw));
            match new_schema {
                Ok(None) => Ok(decoder.decode(raw)?),
                Ok(Some(schema)) => {
                    let (input, feed) = place.clone();
                    board
                        .events
                        .tell(RunEvent::Evolves(NewSchemaFields { input, feed, schema }));
                    Err(Undecoded::Columns)
                }
                Err(unready) => Err(Box::new(WaitingRecords { raw, unready }).into()),
            }
        });
        decode
    })
}

/// Archives the files of one feed that one reader thread reads.
struct Archive {
    input: String,
    originals: Originals,
    lake: Lake,
    runtime: Handle,
    /// The file that was archived last, its tag, and the reference to its copy.
    newest: Option<(Arc<str>, Arc<str>, Arc<str>)>,
}

/// Why a file was not archived.
#[derive(Debug)]
enum ArchiveFailure {
    /// The file could not be read.
    Unread(io::Error),
    /// The lake did not accept the copy.
    Unwritten(Box<dyn std::error::Error + Send + Sync>),
}

/// Passes bytes through and remembers the error of reading, so that it can be told from an error of writing the copy.
struct Remembering<R> {
    bytes: R,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Remembering<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer).inspect_err(|error| {
            if error.kind() != ErrorKind::Interrupted {
                self.failure = Some(io::Error::new(error.kind(), error.to_string()));
            }
        })
    }
}

impl Archive {
    /// Makes sure that the file with this tag is archived, and returns the reference to its copy.
    fn store_copy(&mut self, file: &Arc<str>, tag: &Arc<str>) -> Result<Arc<str>, ArchiveFailure> {
        if let Some((newest, of, reference)) = &self.newest
            && (newest, of) == (file, tag)
        {
            return Ok(reference.clone());
        }
        let reference = reference(&self.input, file, tag);
        let target = Path::from(&*reference);
        match self.runtime.block_on(self.lake.store.head(&target)) {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => {
                let mut bytes = Remembering {
                    bytes: self.originals.open(file, tag).map_err(ArchiveFailure::Unread)?,
                    failure: None,
                };
                let put = self.lake.put_stream(&target, &mut bytes, &self.runtime);
                put.map_err(|error| match bytes.failure {
                    Some(own) => ArchiveFailure::Unread(own),
                    None => ArchiveFailure::Unwritten(error.into()),
                })?;
            }
            Err(error) => return Err(ArchiveFailure::Unwritten(error.into())),
        }
        self.newest = Some((file.clone(), tag.clone(), reference.clone()));
        Ok(reference)
    }
}

/// The path of a file's copy, relative to the lake.
fn reference(input: &str, file: &str, tag: &str) -> Arc<str> {
    let mut hash = XxHash3_64::new();
    hash.write(file.as_bytes());
    hash.write(&[0]);
    hash.write(tag.as_bytes());
    let name = file.rsplit('/').next().unwrap_or(file);
    format!(
        "_alluvium/archive/{input}/{:016x}-{}",
        hash.finish(),
        archived_name(name)
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a file that was moved away between its reading and its copying ended the run.
    #[test]
    fn a_file_that_cannot_be_copied_is_its_readers_matter_and_a_lake_that_takes_none_the_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir_all(at("inputs")).expect("a folder");
        std::fs::create_dir_all(at("drops")).expect("a folder");
        std::fs::create_dir_all(at("lake")).expect("a folder");
        std::fs::write(at("dataflow.toml"), "name = \"t\"\n").expect("a file");
        let input = "[columns]\nn = \"BIGINT\"\n[[feeds]]\nname = \"drops\"\nkind = \"files\"\nformat = \"parquet\"\npath = \"drops/*\"\n";
        std::fs::write(at("inputs/t.toml"), input).expect("a file");
        std::fs::write(at("drops/a"), "bytes").expect("a file");
        let dataflow = crate::definition::load(folder.path(), &|_| None).unwrap_or_else(|e| panic!("{e}"));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let originals = Originals::of_feed(&dataflow, (0, 0), runtime.handle().clone());
        let mut archive = Archive {
            input: "t".into(),
            originals: originals.expect("a folder").expect("of files"),
            lake: Lake::open(&dataflow.lake, &dataflow.store_options).expect("a lake"),
            runtime: runtime.handle().clone(),
            newest: None,
        };
        let path = |name: &str| at("drops").join(name).display().to_string().into();
        let outcome = archive.store_copy(&path("gone"), &"1".into());
        assert!(
            matches!(&outcome, Err(ArchiveFailure::Unread(error)) if error.kind() == ErrorKind::NotFound),
            "{outcome:?}"
        );
        let other = archive.store_copy(&path("a"), &"another".into());
        assert!(
            matches!(&other, Err(ArchiveFailure::Unread(error)) if error.kind() == ErrorKind::StaleNetworkFileHandle),
            "{other:?}"
        );
        // A plain file takes the place of the archive's folder, so that the copy cannot be written.
        std::fs::write(at("lake/_alluvium"), "in the way").expect("a file");
        let refused = archive.store_copy(&path("a"), &"1".into());
        assert!(matches!(&refused, Err(ArchiveFailure::Unwritten(_))), "{refused:?}");
    }
}
