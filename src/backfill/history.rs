//! History of a request: what Bronze holds, fed again with the epoch, feed, partition and offset it first arrived with.
//!
//! What is in effect stays as it is: of an input with a key the versions decide, of one with a `dedup_key` the first row
//! stays. An input that counts every row is given only what it does not hold yet: records that were refused. With each record
//! its dead letter goes; if it is refused again, it gets one again. So feeding a part of history a second time changes
//! nothing, and a request that broke off may begin again before where it was.
//!
//! A truncation is not repeated, nor what arrived before it: that is gone.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use crossbeam_channel::bounded;
use futures::TryStreamExt;

use super::files::{FEED, Plan};
use super::server::{Feeding, Halt, Job};
use super::{Allowed, FileOutcome, FileState};
use crate::causes;
use crate::contain;
use crate::decode::Op;
use crate::definition::{Changed, FeedKind, Input};
use crate::input::{Arrival, Arrived, arrivals};
use crate::repr::{Epoch, Row};
use crate::serve::history::{self, Past};
use crate::serve::{self, QueryError, Snapshot};
use crate::source::{self, Delivery, FileContent, PartitionId, Position, Progress, ReadingStart, SingleFile};

/// How long feeds have to notice that their files changed, and how often it is looked whether they have.
const NOTICE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(300);

/// Feed, partition, epoch.
type Place = (String, String, Epoch);

/// The dead letters of an input.
#[derive(Default)]
struct Letters {
    /// Of records: by place and offset.
    records: HashMap<Place, BTreeMap<u64, Vec<Row>>>,
    /// Of files: by feed and partition.
    files: BTreeMap<(String, String), Vec<Row>>,
}

impl Letters {
    async fn read(snapshot: &Snapshot, input: &Input) -> Result<Letters, QueryError> {
        let mut letters = Letters::default();
        let condition = format!("input = '{}' AND kind IN ('record', 'file')", input.name);
        let mut found = snapshot.letters(&condition).await?;
        while let Some(serve::Letters { batch, rows }) = found.try_next().await? {
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
struct Choice {
    /// A condition on Bronze's columns.
    condition: String,
    /// Only those that have a dead letter.
    refused: bool,
    /// Records that were fed already.
    behind: u64,
    /// What progress is kept under.
    progress: Option<PartitionId>,
    /// The snapshot that is read.
    as_of: Epoch,
}

impl Job<'_> {
    /// Feeds the history of the input between two moments.
    pub fn feed_bronze(&mut self, since: Option<i64>, until: Option<i64>) -> Result<(), Halt> {
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
        // What came later is in effect, and its order behind the rest would not be that of the first try.
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
        let choice = Choice {
            condition,
            refused,
            // Those that have passed are not among the refused any more: what is left is all there is to do.
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
        self.feed(Feeding {
            delivery: last,
            arrived: None,
            letters: vec![],
            progress: Some(id),
        })
    }

    /// Feeds records and files that are dead letters.
    pub fn feed_letters(&mut self) -> Result<(), Halt> {
        let (snapshot, mut letters) = self.open_noticed()?;
        self.outcome.letters = letters.of_records() + letters.files.values().map(|rows| rows.len() as u64).sum::<u64>();
        if !letters.records.is_empty() {
            let choice = Choice {
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

    /// The letters, once feeds have noticed which of their files changed: they say so with a letter, and with progress that
    /// would overwrite that of a file read in the meantime.
    fn open_noticed(&self) -> Result<(Snapshot, Letters), Halt> {
        let until = Instant::now() + NOTICE;
        loop {
            // In this order: a snapshot that is read later has the letters of this progress.
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

    fn progress(&self) -> Result<Progress, Halt> {
        self.service
            .wait_for(serve::progress(&self.service.serving.lake, None))
            .map_err(failed)
    }

    fn open(&self) -> Result<(Snapshot, Letters), Halt> {
        let serving = &self.service.serving;
        let input = &serving.dataflow.inputs[self.input];
        self.service.wait_for(async {
            let snapshot = Snapshot::open(&serving.lake, None).await.map_err(failed)?;
            let letters = Letters::read(&snapshot, input).await.map_err(failed)?;
            Ok((snapshot, letters))
        })
    }

    /// Says how many records there are.
    fn feed_history(&mut self, snapshot: &Snapshot, letters: &Letters, choice: Choice) -> Result<u64, Halt> {
        let serving = &self.service.serving;
        let input = &serving.dataflow.inputs[self.input];
        if !snapshot.has(&format!("bronze.{}", input.name)) {
            return Ok(0);
        }
        let condition = match choice.refused {
            true => format!("({}) AND {}", choice.condition, has_letter(input)),
            false => choice.condition.clone(),
        };
        let (runtime, lake) = (&serving.runtime, &serving.lake);
        let truncated = self.newest_truncation(snapshot)?;
        let mut position = 0;
        // Reading goes on a little ahead, on a thread that may wait: feeding asks the runtime too.
        let (pasts_in, pasts) = bounded::<Past>(2);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                runtime.block_on(history::replay_where(snapshot, lake, input, &condition, async |past| {
                    match pasts_in.send(past) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()), // feeding has ended, and says why
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
                .map_err(|panic| Halt::Failed(format!("reading Bronze panicked: {}", contain::message(&*panic))))?
                .map_err(failed)
        })
    }

    /// Feeds records that arrived together, as far as they are chosen.
    fn feed_past(
        &mut self,
        mut past: Past,
        letters: &Letters,
        choice: &Choice,
        truncated: Option<Arrival>,
        position: u64,
    ) -> Result<(), Halt> {
        let input = &self.service.serving.dataflow.inputs[self.input];
        let place = (
            input.feed_name(past.feed).to_string(),
            past.partition.to_string(),
            past.epoch,
        );
        let known = letters.records.get(&place);
        let offsets = past.decoded.raw.offsets.clone();
        let refused = |record: u32| known.is_some_and(|known| known.contains_key(&offsets[record as usize]));
        let arrived = Arrived {
            epoch: past.epoch,
            feed: input.feed_rank(past.feed),
            partition: &past.partition,
            decoded: &past.decoded,
        };
        let kept: Vec<bool> = arrivals(arrived)
            .zip(&past.decoded.record)
            .zip(&past.decoded.ops)
            .map(|((arrival, record), op)| {
                let counts = *op != Op::Truncate && truncated.is_none_or(|truncated| arrival > truncated);
                counts && (!choice.refused || refused(*record))
            })
            .collect();
        let tells = |record: u32| !choice.refused || refused(record);
        past.decoded.rejects.retain(|reject| reject.record.is_some_and(tells));
        past.decoded.keep(&kept);
        let gone = offsets
            .iter()
            .filter_map(|offset| known?.get(offset))
            .flatten()
            .cloned()
            .collect();
        self.feed(Feeding {
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
            letters: gone,
            progress: choice.progress.clone(),
        })
    }

    /// When the input was last emptied by a truncation, where one of its feeds may say so.
    fn newest_truncation(&self, snapshot: &Snapshot) -> Result<Option<Arrival>, Halt> {
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
            let arrived = Arrived {
                epoch: past.epoch,
                feed: input.feed_rank(past.feed),
                partition: &past.partition,
                decoded: &past.decoded,
            };
            let truncations = arrivals(arrived)
                .zip(&past.decoded.ops)
                .filter(|(_, op)| **op == Op::Truncate);
            newest = newest.max(truncations.map(|(arrival, _)| arrival).max());
            ControlFlow::Continue(())
        });
        self.service.wait_for(replayed).map_err(failed)?;
        Ok(newest)
    }

    /// The file of a letter, if a feed of the definition reads it.
    fn lost_file(&self, feed: &str, partition: &str) -> Result<Lost, Halt> {
        let serving = &self.service.serving;
        let input = &serving.dataflow.inputs[self.input];
        let index = input.feeds.iter().position(|declared| declared.name == feed);
        let Some((index, FeedKind::Files { path, rules })) = index.map(|index| (index, &input.feeds[index].kind))
        else {
            let help = "no feed of the definition reads it; backfill it as a file";
            return Err(Halt::Failed(help.to_string()));
        };
        // A letter says which file it is, and others can write letters: it is one of the feed's own, or none.
        let allowed = Allowed::of_feed(path, rules.follow_links);
        let path = source::path_of(&serving.dataflow, path, partition, &serving.runtime).map_err(failed)?;
        Ok(Lost {
            file: self.find(&path, &allowed, None)?,
            feed: index,
            corrects: rules.changed == Changed::Correct,
            id: PartitionId {
                input: input.name.clone(),
                feed: feed.to_string(),
                partition: partition.to_string(),
            },
        })
    }

    /// Whether its feed knows the file as it is now; where feeds are not read, none of them will say otherwise.
    fn is_noticed(&self, lost: &Lost, progress: &Progress) -> bool {
        let known = progress.get(&lost.id).and_then(|position| position.tag.as_deref());
        !self.service.serving.feeds || known == Some(lost.file.tag())
    }

    /// Reads a file that was given up: behind what was taken of it, or all of it where its feed takes other bytes for a
    /// correction. Where it is another file than the one that some records were taken of, its letter stays.
    fn feed_lost_file(&mut self, feed: &str, partition: &str, letters: Vec<Row>) -> Result<FileOutcome, Halt> {
        let lost = self.lost_file(feed, partition)?;
        let progress = self.progress()?;
        if !self.is_noticed(&lost, &progress) {
            let help = "its feed has not noticed yet that it changed; try again";
            return Err(Halt::Failed(help.to_string()));
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
        let plan = Plan {
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
struct Lost {
    file: SingleFile,
    /// Index into `Input::feeds`.
    feed: usize,
    /// Whether its feed takes other bytes for a correction.
    corrects: bool,
    id: PartitionId,
}

/// The condition that a row of Bronze has a dead letter.
fn has_letter(input: &Input) -> String {
    format!(
        "EXISTS (SELECT 1 FROM dead_letters l WHERE l.kind = 'record' AND l.input = '{}' AND l.feed = b.feed \
         AND l.\"partition\" = b.\"partition\" AND l.epoch = b.epoch AND l.\"offset\" >= b.\"offset\" \
         AND l.\"offset\" < b.\"offset\" + b.records)",
        input.name
    )
}

/// A delivery of progress alone.
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

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Halt {
    Halt::Failed(causes::chain(error.into().as_ref()))
}
