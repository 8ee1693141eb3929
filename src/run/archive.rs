//! Columnar drops are archived as they came: before the first rows of a file are handed over, the file is copied
//! into the lake, where Bronze refers to it.
//!
//! The copy is made by the reader's thread, on the way through the decoder. Its name is made of the file's
//! own, so copying twice (after a crash) changes nothing. A copy that fails ends the run: nothing of
//! the file was handed over, so the next run reads it again.

use std::hash::Hasher;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;
use twox_hash::XxHash3_64;

use super::RunError;
use super::shared::{Event, Shared};
use crate::decode::{Decoder, Payloads};
use crate::definition::Dataflow;
use crate::sink::Lake;
use crate::source::{Decode, Decoders};

/// Decoders for readers, each of which archives the columnar files that pass through it.
pub fn decoders(dataflow: &Arc<Dataflow>, lake: &Lake, runtime: &Handle, shared: &Arc<Shared>) -> Decoders {
    let (dataflow, lake, runtime, shared) = (dataflow.clone(), lake.clone(), runtime.clone(), shared.clone());
    Arc::new(move |input, feed| {
        let input = &dataflow.inputs[input];
        let mut decoder =
            Decoder::new(input, &input.feeds[feed]).expect("every feed's decoder was made once before readers start");
        let archive = input
            .bronze
            .then(|| (lake.clone(), runtime.clone(), shared.clone(), input.name.clone()));
        let mut archived: Option<(Arc<str>, Arc<str>)> = None;
        let decode: Decode = Box::new(move |mut raw| {
            if let (Payloads::Columns { path, .. }, Some((lake, runtime, shared, input))) =
                (&mut raw.payloads, &archive)
            {
                let known = archived
                    .as_ref()
                    .filter(|(file, _)| file == path)
                    .map(|(_, reference)| reference.clone());
                let reference = known.unwrap_or_else(|| {
                    let reference = reference(input, path);
                    if let Err(source) = runtime.block_on(copy(lake, path, &reference)) {
                        let error = RunError::Archive {
                            file: path.to_string(),
                            source,
                        };
                        shared.tell(Event::Failed(error));
                    }
                    reference
                });
                archived = Some((path.clone(), reference.clone()));
                *path = reference;
            }
            decoder.decode(raw)
        });
        decode
    })
}

/// Where a file is kept, relative to the lake.
fn reference(input: &str, file: &str) -> Arc<str> {
    let mut hash = XxHash3_64::new();
    hash.write(file.as_bytes());
    let name = file.rsplit('/').next().unwrap_or(file);
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".-_".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("_alluvium/archive/{input}/{:016x}-{safe}", hash.finish()).into()
}

async fn copy(lake: &Lake, file: &str, reference: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let target = Path::from(reference);
    if lake.store.head(&target).await.is_ok() {
        return Ok(());
    }
    let payload = PutPayload::from(tokio::fs::read(file).await?);
    lake.store.put(&target, payload).await?;
    Ok(())
}
