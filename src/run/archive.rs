//! What readers decode with, and what is done on the way: records behind a schema with new fields are held back
//! ([`Watch`]), and columnar drops are archived as they came: before the first rows of a file are handed over, the file is copied
//! into the lake, where Bronze refers to it.
//!
//! The copy is made by the reader's thread, on the way through the decoder. Its name is made of the file's own and of its tag, so
//! copying twice (after a crash) changes nothing, and a file that was replaced in place has a copy of its own. It is there only
//! if the file was the same one when its last byte was copied: so the copy holds what is decoded. A copy that fails ends the
//! run: nothing of the file was handed over, so the next run reads it again.

use std::hash::Hasher;
use std::io;
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
                    Err(source) if is_stale(&*source) => return Err(Held::Changed),
                    Err(source) => shared.tell(Event::Failed(RunError::Archive {
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

impl Archive {
    /// Makes sure that a file is kept as its tag names it; says what refers to it.
    fn keep(&mut self, file: &Arc<str>, tag: &Arc<str>) -> Result<Arc<str>, Box<dyn std::error::Error + Send + Sync>> {
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
                let mut bytes = self.originals.open(file, tag)?;
                self.lake.put_stream(&target, &mut bytes, self.durable, &self.runtime)?;
            }
            Err(error) => return Err(error.into()),
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

/// Whether a file was not the one any more that was to be copied.
fn is_stale(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::StaleNetworkFileHandle)
}
