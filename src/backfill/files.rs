//! Serves the files of a request: each is read once, by content.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use crossbeam_channel::bounded;
use object_store::ObjectStoreExt;

use super::server::{BackfillJob, BatchContents, RequestHalt};
use super::{Allowed, FileOutcome, FileState, Forbidden, PORTION, Requester};
use crate::contain;
use crate::decode::{Decoder, Payloads};
use crate::definition::{Column, Feed, FeedKind, FileFeed, FileField, Format, Input};
use crate::registry::Registries;
use crate::repr::{FeedPositions, PartitionId, Position, Row};
use crate::serve;
use crate::shown::shown;
use crate::source::{
    self, Decode, Delivery, ReaderOptions, ReadingStart, SingleFile, SingleFileReading, Vetting, archived_name,
};

/// The name of the feed under which progress of files is stored, whatever feed reads them.
pub(crate) const FEED: &str = "backfill";

/// How to read a file.
pub(super) struct FilePlan {
    /// The index of the feed that determines its format.
    pub feed: usize,
    /// The partition of its records in Bronze.
    pub partition: Arc<str>,
    /// The id under which its progress is stored.
    pub progress: PartitionId,
    /// Where to start.
    pub start: ReadingStart,
    /// Dead letters that are retracted once it is read.
    pub letters: Vec<Row>,
    /// The tag of its progress.
    pub tag: String,
    /// Whether its progress says from the start that it is done, so that no feed of the definition continues it.
    pub claimed: bool,
}

/// The result of reading a file.
pub(super) struct FileRead {
    /// The position reached.
    pub position: Position,
    /// Why reading broke off, if it did.
    pub broken: Option<String>,
    /// See [`FileOutcome::null_columns`].
    pub null_columns: Vec<String>,
}

/// Tracks which columns a file's records fill.
struct FilledColumns {
    /// For each column, its name and whether it was filled; none if the file's path fills it, or if no definition has
    /// it.
    columns: Vec<Option<(String, bool)>>,
    rows: usize,
}

impl FilledColumns {
    fn of_input(input: &Input, columns: &[Column]) -> FilledColumns {
        let declared = input.columns.len() - input.evolved.len().min(input.columns.len());
        let columns = columns.iter().zip(&input.columns).take(declared);
        let is_of_record = |column: &Column| FileField::among(&column.from).is_none();
        FilledColumns {
            columns: columns
                .map(|(theirs, ours)| is_of_record(theirs).then(|| (ours.name.clone(), false)))
                .collect(),
            rows: 0,
        }
    }

    fn observe(&mut self, rows: &RecordBatch) {
        self.rows += rows.num_rows();
        for (column, array) in self.columns.iter_mut().zip(rows.columns()) {
            if let Some((_, is_filled)) = column {
                *is_filled |= array.null_count() < array.len();
            }
        }
    }

    /// The columns that no row fills, if they are more than half of all.
    fn nulls(&self) -> Vec<String> {
        let asked = || self.columns.iter().flatten();
        let nulls: Vec<String> = asked()
            .filter(|(_, is_filled)| !is_filled)
            .map(|(name, _)| name.clone())
            .collect();
        match self.rows > 0 && 2 * nulls.len() > asked().count() {
            true => nulls,
            false => Vec::new(),
        }
    }
}

impl BackfillJob<'_> {
    /// Feeds files in the format of a feed.
    pub fn feed_files(&mut self, feed: &str, files: &[String], again: bool) -> Result<(), RequestHalt> {
        let serving = &self.service.serving;
        let input = &serving.dataflow.inputs[self.input];
        let feed = input.feed_index(feed).ok_or_else(|| {
            RequestHalt::Failed(format!(
                "the dataflow that runs has no feed {}.{feed}; restart it",
                input.name
            ))
        })?;
        let mut progress = self
            .service
            .wait_for(serve::progress(&serving.lake, None))
            .map_err(|error| RequestHalt::Failed(format!("could not read how far files are read: {error}")))?;
        let mut named = HashSet::new();
        let files: Vec<&String> = files.iter().filter(|path| named.insert(*path)).collect();
        self.status.files.1 = files.len() as u64;
        for path in files {
            // A file that is known or refused delivers nothing, so the end of the run would not be noticed elsewhere.
            self.service.rest(Duration::ZERO)?;
            self.update_status()?;
            let fed = self.feed_file(feed, path, again, &mut progress);
            self.note_file(path.clone(), fed)?;
        }
        Ok(())
    }

    /// Records the outcome of a file. A failure does not stop the other files.
    pub(super) fn note_file(&mut self, path: String, fed: Result<FileOutcome, RequestHalt>) -> Result<(), RequestHalt> {
        let outcome = match fed {
            Err(RequestHalt::Failed(reason)) => FileOutcome {
                path,
                state: FileState::Failed(reason),
                records: 0,
                null_columns: vec![],
            },
            outcome => outcome?,
        };
        self.outcome.note(outcome);
        self.status.files.0 += 1;
        Ok(())
    }

    fn feed_file(
        &mut self,
        feed: usize,
        path: &str,
        again: bool,
        progress: &mut FeedPositions,
    ) -> Result<FileOutcome, RequestHalt> {
        let ended = |state: FileState, records: u64| FileOutcome {
            path: path.to_string(),
            state,
            records,
            null_columns: vec![],
        };
        let serving = &self.service.serving;
        let input = &serving.dataflow.inputs[self.input];
        let reads = |feed: &&Feed| {
            let files = feed.kind.contract().files();
            files.is_some_and(|files| source::reads(files.path, path))
        };
        let by_itself = input.feeds.iter().find(reads);
        if let (Some(feed), false) = (by_itself, again) {
            return Ok(ended(FileState::Feeds(feed.name.clone()), 0));
        }
        let file = self.find(path, &self.allowed, self.request.asker.as_ref())?;
        let hash = file
            .hash()
            .map_err(|error| RequestHalt::Failed(format!("could not read it: {error}")))?;
        let identity = format!("{hash:032x}-{}", file.size());
        let id = |partition: String| PartitionId {
            input: input.name.clone(),
            feed: FEED.to_string(),
            partition,
        };
        let read = match again {
            false => {
                // The same content under another name counts, and so does a file that was read again.
                let prefixes = [format!("{identity}/"), format!("{identity}+")];
                let mut same = prefixes.iter().flat_map(|prefix| {
                    let from = id(prefix.clone());
                    progress.range(from..).take_while(|(at, _)| {
                        at.feed == FEED && at.input == input.name && at.partition.starts_with(prefix.as_str())
                    })
                });
                same.next().map(|(id, position)| (id.clone(), position.clone()))
            }
            true => {
                let id = id(format!("{identity}+{}/{}", self.request.id, file.name()));
                progress.get(&id).map(|position| (id.clone(), position.clone()))
            }
        };
        if let Some((_, position)) = read.as_ref().filter(|(_, position)| position.done) {
            let state = match position.tag.as_ref() == Some(&self.request.id) {
                true => FileState::Read, // by an earlier run that served this very request
                false => FileState::Known,
            };
            return Ok(ended(state, position.next));
        }
        let (progress_id, next) = match read {
            Some((id, position)) => (id, position.next),
            None if again => (id(format!("{identity}+{}/{}", self.request.id, file.name())), 0),
            None => (id(format!("{identity}/{}", file.name())), 0),
        };
        let plan = FilePlan {
            feed,
            partition: format!("backfill:{}", progress_id.partition).into(),
            progress: progress_id.clone(),
            start: ReadingStart::Record { next, base: 0 },
            letters: vec![],
            tag: self.request.id.clone(),
            claimed: false,
        };
        let FileRead {
            position,
            broken,
            null_columns,
        } = self.read(&file, hash, plan)?;
        let records = position.next;
        progress.insert(progress_id, position);
        Ok(FileOutcome {
            null_columns,
            ..ended(broken.map_or(FileState::Read, FileState::Failed), records)
        })
    }

    /// Finds a file that the definition, and the requester if known, may read. For a local file this is checked again
    /// each time the file is opened.
    pub(super) fn find(
        &self,
        path: &str,
        allowed: &Allowed,
        asker: Option<&Requester>,
    ) -> Result<SingleFile, RequestHalt> {
        let place = allowed.check(path).map_err(|forbidden| {
            RequestHalt::Failed(match &forbidden {
                Forbidden::Outside | Forbidden::LeadsOutside(_) => {
                    format!("{forbidden}; {}", allowed.short_remedy(path))
                }
                Forbidden::Unclear | Forbidden::Unseen(_) | Forbidden::Private => forbidden.to_string(),
            })
        })?;
        let serving = &self.service.serving;
        let opened = match &place {
            Some((root, path)) => SingleFile::below(root, path, vetting(path, allowed, asker)),
            None => SingleFile::stored(&serving.dataflow, path, &serving.runtime),
        };
        match opened {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(RequestHalt::Failed("it is not there".to_string())),
            Err(error) => Err(RequestHalt::Failed(format!("could not look at it: {error}"))),
        }
    }

    /// Reads a file to its end.
    pub(super) fn read(&mut self, file: &SingleFile, hash: u128, mut plan: FilePlan) -> Result<FileRead, RequestHalt> {
        let service = self.service;
        let serving = &service.serving;
        let input = &serving.dataflow.inputs[self.input];
        let mut feed = input.feed(plan.feed).into_owned();
        if plan.feed >= input.feeds.len() {
            // This feed is not in the definition.
            feed.max_record = serving.dataflow.bounds.max_record;
        }
        let reference: Option<Arc<str>> = match feed.format {
            Format::Parquet | Format::Avro => Some(self.archive(file, hash)?.into()),
            _ => None,
        };
        let mut decoder = Decoder::new(input, &feed, &Registries::new(None))
            .map_err(|error| RequestHalt::Failed(error.to_string()))?;
        let decode: Decode = Box::new(move |mut raw| {
            if let (Payloads::Columns { path, .. }, Some(reference)) = (&mut raw.payloads, &reference) {
                *path = reference.clone();
            }
            Ok(decoder.decode(raw)?)
        });
        let mut alone = (*serving.dataflow).clone();
        let kind = FeedKind::Files(FileFeed {
            path: file.path(),
            rules: Default::default(),
        });
        let feed_columns = feed.columns.clone();
        alone.inputs = vec![input.clone()];
        alone.inputs[0].feeds = vec![Feed { kind, ..feed }];
        alone.tables.clear();
        let (deliveries_in, deliveries) = bounded::<Delivery>(1);
        let reading = SingleFileReading {
            dataflow: Arc::new(alone),
            decode,
            start: plan.start.clone(),
            deliveries: deliveries_in,
            stop: service.stopped(),
            options: ReaderOptions {
                batch_rows: PORTION,
                ..ReaderOptions::default()
            },
        };
        let (mut position, mut broken) = (None, None);
        let mut filled = FilledColumns::of_input(input, &feed_columns);
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| file.read(reading));
            let mut fed = Ok(());
            for mut delivery in &deliveries {
                let last = delivery.position.done;
                if let Some(reject) = delivery.decoded.rejects.iter().find(|reject| reject.record.is_none()) {
                    broken = Some(reject.reason.clone());
                }
                filled.observe(&delivery.decoded.rows);
                delivery.input = self.input;
                delivery.feed = plan.feed;
                delivery.partition = plan.partition.clone();
                delivery.position.tag = Some(plan.tag.clone());
                delivery.position.done |= plan.claimed;
                position = Some(delivery.position.clone());
                fed = self.feed(BatchContents {
                    delivery,
                    arrived: None,
                    letters: if last {
                        std::mem::take(&mut plan.letters)
                    } else {
                        vec![]
                    },
                    progress: Some(plan.progress.clone()),
                });
                if fed.is_err() {
                    break; // the reader will find its receiver gone
                }
            }
            drop(deliveries);
            let read = reader
                .join()
                .map_err(|panic| RequestHalt::Failed(format!("reading it panicked: {}", contain::message(&*panic))));
            fed.and(read)
        })?;
        match read {
            Err(error) => Err(RequestHalt::Failed(error.to_string())),
            Ok(None) => {
                service.rest(Duration::ZERO)?; // fails if the run was stopped; otherwise:
                Err(RequestHalt::Failed("it is not there any more".to_string()))
            }
            Ok(Some(end)) => {
                let null_columns = filled.nulls();
                if !null_columns.is_empty() {
                    tracing::warn!(
                        input = input.name,
                        file = %shown(&file.path()),
                        "most columns are null in all records of the file: {}; look whether it is read by the right format and names",
                        null_columns.join(", ")
                    );
                }
                Ok(FileRead {
                    position: position.unwrap_or(end),
                    broken,
                    null_columns,
                })
            }
        }
    }

    /// Copies a columnar file into the lake, where Bronze refers to it, under a name that contains its hash.
    fn archive(&self, file: &SingleFile, hash: u128) -> Result<String, RequestHalt> {
        let serving = &self.service.serving;
        let input = &serving.dataflow.inputs[self.input];
        let name = archived_name(file.name());
        let reference = format!("_alluvium/archive/{}/{hash:032x}-{name}", input.name);
        let target = object_store::path::Path::from(reference.as_str());
        let failed = |error: String| RequestHalt::Failed(format!("could not keep it in the lake: {error}"));
        match self.service.wait_for(serving.lake.store.head(&target)) {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => {
                let mut bytes = file.open().map_err(|error| failed(error.to_string()))?;
                let put = serving.lake.put_stream(&target, &mut bytes, &serving.runtime);
                put.map_err(|error| failed(error.to_string()))?;
            }
            Err(error) => return Err(failed(error.to_string())),
        }
        Ok(reference)
    }
}

/// Permits only this very file (its path is canonical) to be read, if the requester may read it as well.
fn vetting(path: &Path, allowed: &Allowed, asker: Option<&Requester>) -> Vetting {
    let (path, allowed, asker) = (path.to_path_buf(), allowed.clone(), asker.cloned());
    let refused = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    Arc::new(move |file: &Metadata, real: &Path| {
        if real != path {
            return refused("another file took its place".to_string());
        }
        if allowed.is_private(Some(file), real) {
            return refused(Forbidden::Private.to_string());
        }
        match &asker {
            Some(asker) if !asker.may_read(file, real)? => refused(format!(
                "the user who asked (number {}) may not read it; let him, or ask as the user that the run is of",
                asker.uid()
            )),
            _ => Ok(()),
        }
    })
}
