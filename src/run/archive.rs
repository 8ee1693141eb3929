//! What readers decode with, and what is done on the way: records behind a schema with new fields are held back
//! ([`Watch`]), and columnar drops are archived as they came: before the first rows of a file are handed over, the file is copied
//! into the lake, where Bronze refers to it.
//!
//! The copy is made by the reader's thread, on the way through the decoder. Its name is made of the file's own and of its tag, so
//! copying twice (after a crash) changes nothing, and a file that was replaced in place has a copy of its own. It is there only
//! if the file was the same one when its last byte was copied: so the copy holds what is decoded. A copy that the lake does not
//! take ends the run; a file that cannot be read is its reader's matter, as any other. Nothing of it was handed over before.

use std::hash::Hasher;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::runtime::Handle;
use twox_hash::XxHash3_64;

use super::RunError;
use super::shared::{Event, Shared};
use crate::decode::{Decoder, Payloads, Waiting, Watch};
use crate::definition::Dataflow;
use crate::evolve::Met;
use crate::registry::Registries;
use crate::sink::Lake;
use crate::source::{Decode, Decoders, Held, Originals, archived_name};

/// Decoders for readers, each of which archives the columnar files that pass through it. `watches`: schemas are watched.
pub fn decoders(
    dataflow: &Arc<Dataflow>,
    registries: &Arc<Registries>,
    lake: &Lake,
    runtime: &Handle,
    shared: &Arc<Shared>,
    watches: bool,
) -> Decoders {
    let registries = registries.clone();
    let (dataflow, lake, runtime, shared) = (dataflow.clone(), lake.clone(), runtime.clone(), shared.clone());
    Arc::new(move |index, feed| {
        let input = &dataflow.inputs[index];
        let mut decoder = Decoder::new(input, &input.feeds[feed], &registries)
            .expect("every feed's decoder was made once before readers start");
        let watch = Watch::new(input, &input.feeds[feed], &registries);
        let watch = watch.expect("every feed's registry was made with its decoder");
        let mut watch = watch.filter(|_| watches);
        let place = (input.name.clone(), input.feeds[feed].name.clone());
        let originals = Originals::of(&dataflow, (index, feed), runtime.clone())
            .expect("a feed's files were found before its readers start");
        let mut archive = originals.filter(|_| input.bronze).map(|originals| Archive {
            input: input.name.clone(),
            originals,
            lake: lake.clone(),
            durable: dataflow.durable,
            runtime: runtime.clone(),
            newest: None,
        });
        let shared = shared.clone();
        let decode: Decode = Box::new(move |mut raw| {
            if let (Payloads::Columns { path, tag, .. }, Some(archive)) = (&mut raw.payloads, &mut archive) {
                match archive.keep(path, tag) {
                    Ok(reference) => *path = reference,
                    Err(Unkept::Unread(error)) => return Err(Held::Unread(error)),
                    Err(Unkept::Unwritten(source)) => shared.tell(Event::Failed(RunError::Archive {
                        file: path.to_string(),
                        source,
                    })),
                }
            }
            let met = watch.as_mut().map_or(Ok(None), |watch| watch.look(&raw));
            match met {
                Ok(None) => Ok(decoder.decode(raw)?),
                Ok(Some(schema)) => {
                    let (input, feed) = place.clone();
                    shared.tell(Event::Evolves(Met { input, feed, schema }));
                    Err(Held::Columns)
                }
                Err(unready) => Err(Box::new(Waiting { raw, unready }).into()),
            }
        });
        decode
    })
}

/// Keeps the files of one feed that one thread reads.
struct Archive {
    input: String,
    originals: Originals,
    lake: Lake,
    durable: bool,
    runtime: Handle,
    /// The file that was kept last with its tag, and what refers to it.
    newest: Option<(Arc<str>, Arc<str>, Arc<str>)>,
}

/// Why a file was not kept.
#[derive(Debug)]
enum Unkept {
    /// It could not be read.
    Unread(io::Error),
    /// The lake did not take it.
    Unwritten(Box<dyn std::error::Error + Send + Sync>),
}

/// What is read, and what it failed by.
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
    /// Makes sure that a file is kept as its tag names it; says what refers to it.
    fn keep(&mut self, file: &Arc<str>, tag: &Arc<str>) -> Result<Arc<str>, Unkept> {
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
                    bytes: self.originals.open(file, tag).map_err(Unkept::Unread)?,
                    failure: None,
                };
                let put = self.lake.put_stream(&target, &mut bytes, self.durable, &self.runtime);
                put.map_err(|error| match bytes.failure {
                    Some(own) => Unkept::Unread(own),
                    None => Unkept::Unwritten(error.into()),
                })?;
            }
            Err(error) => return Err(Unkept::Unwritten(error.into())),
        }
        self.newest = Some((file.clone(), tag.clone(), reference.clone()));
        Ok(reference)
    }
}

/// Where a file is kept, relative to the lake.
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

    /// A file that was moved away between its reading and its copying ended the run.
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
        let originals = Originals::of(&dataflow, (0, 0), runtime.handle().clone());
        let mut archive = Archive {
            input: "t".into(),
            originals: originals.expect("a folder").expect("of files"),
            lake: Lake::open(&dataflow.lake, &dataflow.store_options).expect("a lake"),
            durable: false,
            runtime: runtime.handle().clone(),
            newest: None,
        };
        let path = |name: &str| at("drops").join(name).display().to_string().into();
        let gone = archive.keep(&path("gone"), &"1".into());
        assert!(
            matches!(&gone, Err(Unkept::Unread(error)) if error.kind() == ErrorKind::NotFound),
            "{gone:?}"
        );
        let other = archive.keep(&path("a"), &"another".into());
        assert!(
            matches!(&other, Err(Unkept::Unread(error)) if error.kind() == ErrorKind::StaleNetworkFileHandle),
            "{other:?}"
        );
        // A file lies where the folder of copies should.
        std::fs::write(at("lake/_alluvium"), "in the way").expect("a file");
        let refused = archive.keep(&path("a"), &"1".into());
        assert!(matches!(&refused, Err(Unkept::Unwritten(_))), "{refused:?}");
    }
}
