//! Serves history: feeds what Bronze holds again, with the epoch, feed, partition and offset with which it first
//! arrived.
//!
//! What is in effect does not change: for an input with a key the versions decide, and for one with a `dedup_key` the
//! first row stays. An input that counts every row only gets records that it does not contain yet, because they were
//! refused. With each record its dead letter is retracted; if the record is refused again, it gets a new one. So
//! feeding a part of history a second time has no effect, and a request that broke off may start again before the
//! point that it had reached.
//!
//! A truncation is not repeated, nor what arrived before it, which is gone.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use crossbeam_channel::bounded;
use futures::TryStreamExt;

use super::files::{FEED, FilePlan};
use super::server::{BackfillJob, BatchContents, RequestHalt};
use super::{Allowed, FileOutcome, FileState};
use crate::causes;
use crate::contain;
use crate::decode::ChangeOp;
use crate::definition::Input;
use crate::input::{Arrival, ArrivedRecords, arrivals};
use crate::lake::bronze_table;
use crate::repr::{Epoch, FeedPositions, FileContent, PartitionId, Position, Row};
use crate::serve::history::{self, PastDelivery};
use crate::serve::{self, LakeSnapshot, QueryError};
use crate::source::{self, Delivery, ReadingStart, SingleFile};

/// How long to wait for feeds to notice changed files, and (`LOOK`) how often to check whether they have.
const NOTICE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(300);

/// Feed, partition, epoch.
type RecordPlace = (String, String, Epoch);

/// The dead letters of an input.
#[derive(Default)]
struct InputLetters {
    /// Those of records, by place and offset.
    records: HashMap<RecordPlace, BTreeMap<u64, Vec<Row>>>,
    /// Those of files, by feed and partition.
    files: BTreeMap<(String, String), Vec<Row>>,
}

impl InputLetters {
    async fn read(snapshot: &LakeSnapshot, input: &Input) -> Result<InputLetters, QueryError> {
        let mut letters = InputLetters::default();
        let condition = format!("input = '{}' AND kind IN ('record', 'file')", input.name);
        let mut letter_batches = snapshot.letters(&condition).await?;
        while let Some(serve::DeadLetterRows { batch, rows }) = letter_batches.try_next().await? {
            let text = |name: &str| batch.column_by_name(name).expect("letters have it").as_string::<i32>();
            let number = |name: &str| {
                batch
                    .column_by_name(name)
                    .expect("letters have it")
                    .as_primitive::<Int64Type>()
            };
            let (kind, feed, partition) = (text("kind"), text("feed"), text("partition"));
            let (offset, epoch) = (number("offset"), number("epoch"));
            for (at, row) in rows.into_iter().enumerate() {
                let (feed, partition) = (feed.value(at).to_string(), partition.value(at).to_string());
                if kind.value(at) == "file" {
                    letters.files.entry((feed, partition)).or_default().push(row);
                } else if offset.is_valid(at) && epoch.is_valid(at) {
                    let of_place = letters
                        .records
                        .entry((feed, partition, epoch.value(at) as Epoch))
                        .or_default();
                    of_place.entry(offset.value(at) as u64).or_default().push(row);
                }
            }
        }
        Ok(letters)
    }

    fn of_records(&self) -> u64 {
        self.records
            .values()
            .flat_map(BTreeMap::values)
            .map(|rows| rows.len() as u64)
            .sum()
    }
}

/// Which records of Bronze are fed.
struct BronzeSelection {
    /// A condition on Bronze's columns.
    condition: String,
    /// Whether only records with a dead letter are fed.
    refused: bool,
    /// How many records were fed already.
    behind: u64,
    /// The id under which progress is stored.
    progress: Option<PartitionId>,
    /// The epoch of the snapshot that is read.
    as_of: Epoch,
}

impl BackfillJob<'_> {
    /// Feeds the history of the input between two moments.
    pub fn feed_bronze(&mut self, since: Option<i64>, until: Option<i64>) -> Result<(), RequestHalt> {
        let (snapshot, letters) = self.open()?;
        let input = &self.service.serving.dataflow.inputs[self.input];
        let id = PartitionId {
            input: input.name.clone(),
            feed: FEED.to_string(),
            partition: format!("history/{}", self.request.id),
        };
        let progress = self.progress()?;
        let before = progress.get(&id).cloned().unwrap_or_default();
        if before.done {
            self.outcome.records = before.next;
            return Ok(());
        }
        // What arrived after the first attempt is in effect already, and feeding it would also change the order of
        // the first attempt.
        let as_of = before.tag.and_then(|tag| tag.parse().ok()).unwrap_or(snapshot.epoch());
        let moment = "CAST(COALESCE(event_time, ingest_time) AS BIGINT)";
        let mut condition = format!("epoch <= {as_of}");
        if let Some(since) = since {
            condition += &format!(" AND {moment} >= {since}");
        }
        if let Some(until) = until {
            condition += &format!(" AND {moment} < {until}");
        }
        let refused = input.key.is_empty() && input.dedup_key.is_empty();
        let choice = BronzeSelection {
            condition,
            refused,
            // Refused records that have passed since no longer have a dead letter, so all that are left must be fed.
            behind: if refused { 0 } else { before.next },
            progress: (!refused).then(|| id.clone()),
            as_of,
        };
        self.outcome.records = before.next;
        let records = self.feed_history(&snapshot, &letters, choice)?;
        let mut last = nothing(self.input, input);
        last.position = Position {
            next: records,
            done: true,
            tag: Some(as_of.to_string()),
            ..Position::default()
        };
        self.feed(BatchContents {
            delivery: last,
            arrived: None,
            letters: vec![],
            progress: Some(id),
        })
    }

    /// Feeds records and files that are dead letters.
    pub fn feed_letters(&mut self) -> Result<(), RequestHalt> {
        let (snapshot, mut letters) = self.open_noticed()?;
        self.outcome.letters = letters.of_records() + letters.files.values().map(|rows| rows.len() as u64).sum::<u64>();
        if !letters.records.is_empty() {
            let choice = BronzeSelection {
                condition: "TRUE".to_string(),
                refused: true,
                behind: 0,
                progress: None,
                as_of: snapshot.epoch(),
            };
            self.feed_history(&snapshot, &letters, choice)?;
        }
        let files = std::mem::take(&mut letters.files);
        self.status.files.1 = files.len() as u64;
        for ((feed, partition), rows) in files {
            let fed = self.feed_lost_file(&feed, &partition, rows);
            self.note_file(format!("{feed}/{partition}"), fed)?;
        }
        Ok(())
    }

    /// Opens the letters once feeds have noticed which of their files changed: a feed reports that by a letter and by
    /// progress, which would overwrite the progress of a file that was read in the meantime.
    fn open_noticed(&self) -> Result<(LakeSnapshot, InputLetters), RequestHalt> {
        let until = Instant::now() + NOTICE;
        loop {
            // The order matters: a snapshot that is opened after this has the letters that belong to this progress.
            let progress = self.progress()?;
            let (snapshot, letters) = self.open()?;
            let mut files = letters.files.keys();
            let noticed = files.all(|(feed, partition)| match self.lost_file(feed, partition) {
                Ok(lost) => self.is_noticed(&lost, &progress),
                Err(_) => true, // there is nothing to read
            });
            if noticed || Instant::now() >= until {
                return Ok((snapshot, letters));
            }
            self.service.rest(LOOK)?;
        }
    }

    fn progress(&self) -> Result<FeedPositions, RequestHalt> {
        self.service
            .wait_for(serve::progress(&self.service.serving.lake, None))
            .map_err(failed)
    }

    fn open(&self) -> Result<(LakeSnapshot, InputLetters), RequestHalt> {
        let serving = &self.service.serving;
        let input = &serving.dataflow.inputs[self.input];
        self.service.wait_for(async {
            let snapshot = LakeSnapshot::open(&serving.lake, None).await.map_err(failed)?;
            let letters = InputLetters::read(&snapshot, input).await.map_err(failed)?;
            Ok((snapshot, letters))
        })
    }

    /// Feeds the chosen records; returns how many records there are.
    fn feed_history(
        &mut self,
        snapshot: &LakeSnapshot,
        letters: &InputLetters,
        choice: BronzeSelection,
    ) -> Result<u64, RequestHalt> {
        let serving = &self.service.serving;
        let input = &serving.dataflow.inputs[self.input];
        if !snapshot.has(&bronze_table(&input.name)) {
            return Ok(0);
        }
        let condition = match choice.refused {
            true => format!("({}) AND {}", choice.condition, has_letter(input)),
            false => choice.condition.clone(),
        };
        let (runtime, lake) = (&serving.runtime, &serving.lake);
        let truncated = self.newest_truncation(snapshot)?;
        let mut position = 0;
        // Reading runs slightly ahead in a thread that may block, because feeding uses the runtime as well.
        let (pasts_in, pasts) = bounded::<PastDelivery>(2);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                runtime.block_on(history::replay_where(snapshot, lake, input, &condition, async |past| {
                    match pasts_in.send(past) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()), // feeding has ended, and reports why
                    }
                }))
            });
            for past in &pasts {
                position += past.decoded.raw.len() as u64;
                if position > choice.behind {
                    self.feed_past(past, letters, &choice, truncated, position)?;
                }
            }
            drop(pasts);
            let replayed = reader.join();
            replayed
                .map_err(|panic| {
                    RequestHalt::Failed(format!("reading Bronze panicked: {}", contain::message(&*panic)))
                })?
                .map_err(failed)
        })
    }

    /// Feeds those of the records that are chosen; they arrived together.
    fn feed_past(
        &mut self,
        mut past: PastDelivery,
        letters: &InputLetters,
        choice: &BronzeSelection,
        truncated: Option<Arrival>,
        position: u64,
    ) -> Result<(), RequestHalt> {
        let input = &self.service.serving.dataflow.inputs[self.input];
        let place = (
            input.feed_name(past.feed).to_string(),
            past.partition.to_string(),
            past.epoch,
        );
        let known = letters.records.get(&place);
        let offsets = past.decoded.raw.offsets.clone();
        let refused = |record: u32| known.is_some_and(|known| known.contains_key(&offsets[record as usize]));
        let arrived = ArrivedRecords {
            epoch: past.epoch,
            feed: input.feed_rank(past.feed),
            partition: &past.partition,
            decoded: &past.decoded,
        };
        let mask: Vec<bool> = arrivals(arrived)
            .zip(&past.decoded.record)
            .zip(&past.decoded.ops)
            .map(|((arrival, record), op)| {
                let counts = *op != ChangeOp::Truncate && truncated.is_none_or(|truncated| arrival > truncated);
                counts && (!choice.refused || refused(*record))
            })
            .collect();
        let tells = |record: u32| !choice.refused || refused(record);
        past.decoded.rejects.retain(|reject| reject.record.is_some_and(tells));
        past.decoded.keep(&mask);
        let retracted = offsets
            .iter()
            .filter_map(|offset| known?.get(offset))
            .flatten()
            .cloned()
            .collect();
        self.feed(BatchContents {
            delivery: Delivery {
                input: self.input,
                feed: past.feed,
                partition: past.partition,
                decoded: past.decoded,
                position: Position {
                    next: position,
                    done: false,
                    tag: Some(choice.as_of.to_string()),
                    ..Position::default()
                },
                arrived: Instant::now(),
                epoch: None,
                room: None,
            },
            arrived: Some(past.epoch),
            letters: retracted,
            progress: choice.progress.clone(),
        })
    }

    /// When a truncation last emptied the input, if one of its feeds can carry truncations.
    fn newest_truncation(&self, snapshot: &LakeSnapshot) -> Result<Option<Arrival>, RequestHalt> {
        let serving = &self.service.serving;
        let input = &serving.dataflow.inputs[self.input];
        let changes = (0..input.feeds.len()).filter(|feed| input.feeds[*feed].format.carries_changes());
        let names: Vec<String> = changes.map(|feed| format!("'{}'", input.feed_name(feed))).collect();
        if names.is_empty() {
            return Ok(None);
        }
        let condition = format!("feed IN ({})", names.join(", "));
        let mut newest = None;
        let replayed = history::replay_where(snapshot, &serving.lake, input, &condition, async |past| {
            let arrived = ArrivedRecords {
                epoch: past.epoch,
                feed: input.feed_rank(past.feed),
                partition: &past.partition,
                decoded: &past.decoded,
            };
            let truncations = arrivals(arrived)
                .zip(&past.decoded.ops)
                .filter(|(_, op)| **op == ChangeOp::Truncate);
            newest = newest.max(truncations.map(|(arrival, _)| arrival).max());
            ControlFlow::Continue(())
        });
        self.service.wait_for(replayed).map_err(failed)?;
        Ok(newest)
    }

    /// The file of a dead letter, if a feed of the definition reads it.
    fn lost_file(&self, feed: &str, partition: &str) -> Result<LostFile, RequestHalt> {
        let serving = &self.service.serving;
        let input = &serving.dataflow.inputs[self.input];
        let index = input.feeds.iter().position(|declared| declared.name == feed);
        let files = index.and_then(|index| Some((index, input.feeds[index].kind.contract().files()?)));
        let Some((index, files)) = files else {
            let help = "no feed of the definition reads it; backfill it as a file";
            return Err(RequestHalt::Failed(help.to_string()));
        };
        // A letter names the file, and others can write letters, so the file must be one of the feed's own.
        let allowed = Allowed::of_feed(files.path, files.follows_links);
        let path = source::path_of(&serving.dataflow, files.path, partition, &serving.runtime).map_err(failed)?;
        Ok(LostFile {
            file: self.find(&path, &allowed, None)?,
            feed: index,
            corrects: files.corrects,
            id: PartitionId {
                input: input.name.clone(),
                feed: feed.to_string(),
                partition: partition.to_string(),
            },
        })
    }

    /// Whether its feed knows the file's present version. If feeds are not read, no feed can contradict.
    fn is_noticed(&self, lost: &LostFile, progress: &FeedPositions) -> bool {
        let known = progress.get(&lost.id).and_then(|position| position.tag.as_deref());
        !self.service.serving.feeds || known == Some(lost.file.tag())
    }

    /// Reads a file that was given up: behind what was read of it, or completely if its feed treats changed content
    /// as a correction. If it is not the file of which some records were read, its letter stays.
    fn feed_lost_file(&mut self, feed: &str, partition: &str, letters: Vec<Row>) -> Result<FileOutcome, RequestHalt> {
        let lost = self.lost_file(feed, partition)?;
        let progress = self.progress()?;
        if !self.is_noticed(&lost, &progress) {
            let help = "its feed has not noticed yet that it changed; try again";
            return Err(RequestHalt::Failed(help.to_string()));
        }
        let hash = lost.file.hash().map_err(failed)?;
        let position = progress.get(&lost.id).cloned().unwrap_or_default();
        let next = position.next;
        let holds = |earlier: &FileContent| lost.file.begins_with(earlier).map_err(failed);
        let is_read = position.done && !position.given_up;
        let start = match &position.content {
            _ if next == position.base => ReadingStart::Anew(next),
            Some(earlier) if !lost.corrects || holds(earlier)? => ReadingStart::Behind(position),
            None if is_read => ReadingStart::Record {
                next,
                base: position.base,
            },
            _ if lost.corrects => ReadingStart::Anew(next),
            _ => ReadingStart::Behind(position),
        };
        let plan = FilePlan {
            feed: lost.feed,
            partition: partition.into(),
            progress: lost.id,
            start,
            letters,
            tag: lost.file.tag().to_string(),
            claimed: true,
        };
        let read = self.read(&lost.file, hash, plan)?;
        Ok(FileOutcome {
            path: lost.file.path(),
            records: read.position.next - next,
            state: read.broken.map_or(FileState::Read, FileState::Failed),
            null_columns: read.null_columns,
        })
    }
}

/// A file that was given up.
struct LostFile {
    file: SingleFile,
    /// Index into `Input::feeds`.
    feed: usize,
    /// Whether its feed treats changed content as a correction.
    corrects: bool,
    id: PartitionId,
}

/// An SQL condition: a row of Bronze has a dead letter.
fn has_letter(input: &Input) -> String {
    format!(
        "EXISTS (SELECT 1 FROM dead_letters l WHERE l.kind = 'record' AND l.input = '{}' AND l.feed = b.feed \
         AND l.\"partition\" = b.\"partition\" AND l.epoch = b.epoch AND l.\"offset\" >= b.\"offset\" \
         AND l.\"offset\" < b.\"offset\" + b.records)",
        input.name
    )
}

/// A delivery without records, which carries only progress.
fn nothing(index: usize, input: &Input) -> Delivery {
    Delivery {
        input: index,
        feed: 0,
        partition: Arc::from(""),
        decoded: source::no_records(input),
        position: Position::default(),
        arrived: Instant::now(),
        epoch: None,
        room: None,
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RequestHalt {
    RequestHalt::Failed(causes::chain(error.into().as_ref()))
}
