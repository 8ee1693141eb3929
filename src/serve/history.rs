//! An input's past: its Bronze rows, decoded again by the same decoders that saw them arrive.
//!
//! Records come in the order of their epochs (a portion of them at a time, see [`super::portions`]), and inside an epoch by feed, partition and offset; each with the
//! epoch it arrived in, so that versions of a key are ordered as they were. Bronze holds refused records too:
//! they are refused again. So are those that `run --skip` passed by: the dead letters of the snapshot name them.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use bytes::{Buf, Bytes};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use thiserror::Error;

use super::Snapshot;
use super::portions::{Portion, PortionLimits, Portions};
use crate::decode::avro::read_container;
use crate::decode::skip::{REASON, Skip, Skips};
use crate::decode::{CutRecord, DecodeError, Decoded, Decoder, FilePlace, Payloads, Raw, parquet};
use crate::definition::{Format, Input};
use crate::registry::{Registries, Unready};
use crate::repr::{CodecError, Epoch, batch_slices, normalise_batch};
use crate::sink::Lake;
use crate::sink::bronze::{self, Content, Run};

/// Records that arrived together.
pub struct Past {
    /// When.
    pub epoch: Epoch,
    /// See [`Input::feed`].
    pub feed: usize,
    /// The partition.
    pub partition: Arc<str>,
    /// The records and what they change.
    pub decoded: Decoded,
}

/// Why Bronze could not be read back.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The table cannot be read.
    #[error("could not read bronze.{input}")]
    Table {
        /// Which input.
        input: String,
        /// Why.
        #[source]
        source: DataFusionError,
    },
    /// Its columns are not Bronze's.
    #[error("could not read bronze.{input} as Bronze")]
    Columns {
        /// Which input.
        input: String,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// A feed of Bronze is not in the definition.
    #[error(
        "bronze.{input} holds records of feed {feed:?}, which the definition does not name; put the feed back, or start a new lake"
    )]
    UnknownFeed {
        /// Which input.
        input: String,
        /// Which feed.
        feed: String,
    },
    /// A decoder could not be made.
    #[error("could not decode bronze.{input}")]
    Decoder {
        /// Which input.
        input: String,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// Schemas of records are neither in the lake nor to be had.
    #[error("could not decode bronze.{input}: its schemas are not all in the lake")]
    Schemas {
        /// Which input.
        input: String,
        /// Why.
        #[source]
        source: Unready,
    },
    /// An archived file is gone or broken.
    #[error("could not read {reference} in the lake, which bronze.{input} refers to")]
    Archive {
        /// Which input.
        input: String,
        /// Which file.
        reference: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Gives an input's past to `each`, in order, as of a snapshot that has the input's Bronze. Says how many records there were.
pub async fn replay(
    snapshot: &Snapshot,
    lake: &Lake,
    input: &Input,
    mut each: impl AsyncFnMut(Past),
) -> Result<u64, HistoryError> {
    replay_where(snapshot, lake, input, "TRUE", async |past| {
        each(past).await;
        ControlFlow::Continue(())
    })
    .await
}

/// Gives those records of an input's past that meet a condition on Bronze's columns (the table is called `b`), until
/// `each` has had enough.
pub async fn replay_where(
    snapshot: &Snapshot,
    lake: &Lake,
    input: &Input,
    condition: &str,
    each: impl AsyncFnMut(Past) -> ControlFlow<()>,
) -> Result<u64, HistoryError> {
    replay_portions(snapshot, lake, input, (condition, PortionLimits::default()), each).await
}

async fn replay_portions(
    snapshot: &Snapshot,
    lake: &Lake,
    input: &Input,
    (condition, limits): (&str, PortionLimits),
    mut each: impl AsyncFnMut(Past) -> ControlFlow<()>,
) -> Result<u64, HistoryError> {
    let table = |source| HistoryError::Table {
        input: input.name.clone(),
        source,
    };
    let bronze = format!("bronze.{}", input.name);
    let version = snapshot.versions().get(&bronze).copied().unwrap_or_default();
    let portions = Portions::read(lake, &bronze.replacen('.', "/", 1), version, limits).await;
    let portions = portions.map_err(|error| table(DataFusionError::External(Box::new(error))))?;
    let session = portions.session(snapshot.context()).map_err(table)?;
    let skips: Skips = skipped(snapshot.context(), Some(input))
        .await
        .map_err(table)?
        .into_iter()
        .collect();
    let mut past = Replay {
        input,
        decoders: Decoders {
            input,
            registries: Registries::new(Some(lake.clone())),
            decoders: HashMap::new(),
        },
        archive: Archive {
            input,
            lake,
            open: vec![],
        },
        skips,
        records: 0,
    };
    for portion in &portions.portions {
        let sql = sorted(input, condition, *portion);
        let mut batches = opened(&session, &sql).await.map_err(table)?;
        // Rows that were given, and how many of those come again.
        let (mut given, mut again, mut in_memory) = (0, 0, false);
        while let Some(batch) = batches.next().await {
            let mut batch = match batch {
                // A sort may need more than its share for rows that are large: better slow on memory than not at all. The order
                // has no ties, so the rows that were given come first again.
                Err(error) if !in_memory && is_exhausted(&error) => {
                    tracing::warn!(
                        input = input.name,
                        "could not sort within memory and on disk; sorting in memory"
                    );
                    (again, in_memory) = (given, true);
                    batches = opened(snapshot.context(), &sql).await.map_err(table)?;
                    continue;
                }
                batch => batch.map_err(table)?,
            };
            let passed = again.min(batch.num_rows());
            again -= passed;
            batch = batch.slice(passed, batch.num_rows() - passed);
            if batch.num_rows() == 0 {
                continue;
            }
            given += batch.num_rows();
            match past.give(batch, &mut each).await? {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(()) => return Ok(past.records),
            }
        }
    }
    Ok(past.records)
}

/// What asks for a portion of an input's past, in order.
fn sorted(input: &Input, condition: &str, Portion { from, until }: Portion) -> String {
    let mut within = String::new();
    if from > i64::MIN {
        within += &format!(" AND epoch >= {from}");
    }
    if until < i64::MAX {
        within += &format!(" AND epoch < {until}");
    }
    format!(
        "SELECT b.* FROM bronze.\"{}\" b WHERE ({condition}){within} ORDER BY epoch, feed, \"partition\", \"offset\"",
        input.name
    )
}

async fn opened(context: &SessionContext, sql: &str) -> Result<SendableRecordBatchStream, DataFusionError> {
    context.sql(sql).await?.execute_stream().await
}

fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

/// A past that is being replayed.
struct Replay<'a> {
    input: &'a Input,
    decoders: Decoders<'a>,
    archive: Archive<'a>,
    skips: Skips,
    /// How many were given.
    records: u64,
}

impl Replay<'_> {
    /// Gives the records of some rows of Bronze to `each`, until it has had enough.
    async fn give(
        &mut self,
        batch: RecordBatch,
        each: &mut impl AsyncFnMut(Past) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, HistoryError> {
        let input = self.input;
        let batch = bronze::completed(batch);
        // Columns of views become columns that hold less than 2 GiB.
        for slice in batch_slices(&batch, SLICE) {
            let slice = normalise_batch(&bronze::schema(), &slice).map_err(|source| HistoryError::Columns {
                input: input.name.clone(),
                source,
            })?;
            for run in bronze::runs(&slice) {
                let past = self.decode(run).await?;
                self.records += past.decoded.raw.len() as u64;
                if each(past).await.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn decode(&mut self, run: Run) -> Result<Past, HistoryError> {
        let input = self.input;
        let Run {
            feed,
            partition,
            epoch,
            content,
        } = run;
        let (feed, decoder) = self.decoders.of(&feed)?;
        let raw = match content {
            Content::Records(raw) => raw,
            Content::Archived {
                reference,
                first,
                records,
                cut_from,
                place,
            } => {
                let format = input.feed(feed).format;
                let raw = self
                    .archive
                    .read(format, reference, (place.base, first), records)
                    .await?;
                let cut = cut_from.map(|length| CutRecord { record: 0, length });
                Raw {
                    cut: cut.into_iter().collect(),
                    place,
                    ..raw
                }
            }
        };
        let mut decoded = decoder.decode(raw).map_err(|waiting| HistoryError::Schemas {
            input: input.name.clone(),
            source: waiting.unready,
        })?;
        self.skips
            .apply((&input.name, input.feed_name(feed)), &partition, &mut decoded);
        Ok(Past {
            epoch,
            feed,
            partition,
            decoded,
        })
    }
}

/// Records that the dead letters say are skipped: of one input, or of all.
///
/// # Errors
/// Dead letters that cannot be read.
pub async fn skipped(context: &SessionContext, input: Option<&Input>) -> Result<Vec<Skip>, DataFusionError> {
    if !context.table_exist("dead_letters")? {
        return Ok(vec![]);
    }
    let of_input = input.map_or(String::new(), |input| format!(" AND input = '{}'", input.name));
    let sql = format!(
        "SELECT arrow_cast(input, 'Utf8'), arrow_cast(feed, 'Utf8'), arrow_cast(\"partition\", 'Utf8'), \"offset\" \
         FROM dead_letters WHERE kind = 'record' AND reason = '{REASON}' AND input IS NOT NULL AND feed IS NOT NULL \
         AND \"partition\" IS NOT NULL AND \"offset\" IS NOT NULL{of_input}"
    );
    let mut skips = Vec::new();
    for batch in context.sql(&sql).await?.collect().await? {
        let text = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_string();
        let offsets = batch.column(3).as_primitive::<Int64Type>();
        skips.extend((0..batch.num_rows()).map(|row| Skip {
            input: text(0, row),
            feed: text(1, row),
            partition: text(2, row),
            offsets: offsets.value(row) as u64..=offsets.value(row) as u64,
        }));
    }
    Ok(skips)
}

/// One decoder for each feed, made when it is first needed.
struct Decoders<'a> {
    input: &'a Input,
    registries: Registries,
    decoders: HashMap<usize, Decoder>,
}

impl Decoders<'_> {
    fn of(&mut self, name: &str) -> Result<(usize, &mut Decoder), HistoryError> {
        let input = self.input;
        let Some(feed) = input.feed_index(name) else {
            return Err(HistoryError::UnknownFeed {
                input: input.name.clone(),
                feed: name.to_string(),
            });
        };
        let decoder = match self.decoders.entry(feed) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(
                Decoder::new(input, &input.feed(feed), &self.registries).map_err(|source| HistoryError::Decoder {
                    input: input.name.clone(),
                    source,
                })?,
            ),
        };
        Ok((feed, decoder))
    }
}

/// Bytes of Bronze that are taken apart at once, but for one record among them.
const SLICE: u64 = 64 << 20;
/// What is read of an archived file at once: rows, and about how many bytes of them.
const ROWS: usize = 1024;
const BYTES: u64 = 8 << 20;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// Archived files that are open at once: as many as are read at the same time, in common. Each is in memory.
const OPEN_FILES: usize = 4;

/// Reads rows of archived files; rows of a file are asked for in order, so its reader stays open in between.
struct Archive<'a> {
    input: &'a Input,
    lake: &'a Lake,
    /// By reference; what was read last is the last.
    open: Vec<(String, OpenFile)>,
}

struct OpenFile {
    next: u64,
    batches: Batches,
    /// What is left of the batch that was read last.
    rest: Option<RecordBatch>,
}

impl Archive<'_> {
    /// Records of a file whose first row has the number `base`.
    async fn read(
        &mut self,
        format: Format,
        reference: String,
        (base, first): (u64, u64),
        records: u64,
    ) -> Result<Raw, HistoryError> {
        let batch = self
            .rows(format, &reference, first.saturating_sub(base), records as usize)
            .await
            .map_err(|source| HistoryError::Archive {
                input: self.input.name.clone(),
                reference: reference.clone(),
                source,
            })?;
        let offsets = (first..first + batch.num_rows() as u64).collect();
        Ok(Raw {
            payloads: Payloads::Columns {
                batch,
                path: reference.into(),
                tag: "".into(),
            },
            offsets,
            header: None,
            cut: Vec::new(),
            place: FilePlace::default(),
        })
    }

    /// Rows of a file, from those that are read on where the file is open. What is read in batches may meet damage that is
    /// behind the rows asked for; so a batch that fails is read again as it was when it was archived: these rows alone.
    async fn rows(
        &mut self,
        format: Format,
        reference: &str,
        first: u64,
        records: usize,
    ) -> Result<RecordBatch, Unreadable> {
        if let Ok(rows) = self.next_rows(format, reference, first, records).await {
            return Ok(rows);
        }
        self.open.retain(|(open, _)| open != reference);
        let bytes = self.lake.store.get(&Path::from(reference)).await?.bytes().await?;
        let mut alone = OpenFile {
            next: first,
            batches: open(format, bytes, first, records)?,
            rest: None,
        };
        alone.rows(first, records)
    }

    async fn next_rows(
        &mut self,
        format: Format,
        reference: &str,
        first: u64,
        records: usize,
    ) -> Result<RecordBatch, Unreadable> {
        let known = self.open.iter().position(|(open, _)| open == reference);
        let known = known
            .map(|at| self.open.remove(at))
            .filter(|(_, file)| file.next <= first);
        let mut file = match known {
            Some((_, file)) => file,
            None => {
                if self.open.len() >= OPEN_FILES {
                    self.open.remove(0);
                }
                let bytes = self.lake.store.get(&Path::from(reference)).await?.bytes().await?;
                OpenFile {
                    next: first,
                    batches: open(format, bytes, first, ROWS)?,
                    rest: None,
                }
            }
        };
        let rows = file.rows(first, records)?;
        self.open.push((reference.to_string(), file));
        Ok(rows)
    }
}

impl OpenFile {
    /// Rows that come next, or later.
    fn rows(&mut self, first: u64, records: usize) -> Result<RecordBatch, Unreadable> {
        let mut taken: Vec<RecordBatch> = Vec::new();
        let mut wanted = records;
        while wanted > 0 {
            let batch = match self.rest.take() {
                Some(rest) => Some(rest),
                None => self.batches.next().transpose()?,
            };
            let Some(batch) = batch else {
                return Err(format!("it has {} rows, {} were archived", self.next, first + records as u64).into());
            };
            let skip = (first.saturating_sub(self.next) as usize).min(batch.num_rows());
            let take = wanted.min(batch.num_rows() - skip);
            if take > 0 {
                taken.push(batch.slice(skip, take));
                wanted -= take;
            }
            self.next += (skip + take) as u64;
            if skip + take < batch.num_rows() {
                self.rest = Some(batch.slice(skip + take, batch.num_rows() - skip - take));
            }
        }
        let schema = taken.first().map(RecordBatch::schema).ok_or("no rows were asked for")?;
        Ok(arrow::compute::concat_batches(&schema, &taken)?)
    }
}

/// Rows of an archived file from row `next` on, by the rules that its feed was read by.
fn open(format: Format, bytes: Bytes, next: u64, rows: usize) -> Result<Batches, Unreadable> {
    // By its feed, as it was first read: damage may have changed the bytes that would tell.
    if format == Format::Parquet {
        return Ok(Box::new(parquet::batches(
            move || Ok(bytes.clone()),
            next,
            (rows, BYTES),
        )?));
    }
    Ok(Box::new(read_container(bytes.reader(), next, rows)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::load;
    use crate::run::{self, Options};

    /// The offsets of records by epoch and partition, and how many portions they came in.
    async fn past(
        snapshot: &Snapshot,
        lake: &Lake,
        input: &Input,
        limits: PortionLimits,
    ) -> Vec<(Epoch, String, Vec<u64>)> {
        let mut records: Vec<(Epoch, String, Vec<u64>)> = vec![];
        let each = async |past: Past| {
            let offsets = past.decoded.raw.offsets;
            match records.last_mut() {
                Some((epoch, partition, known)) if (*epoch, partition.as_str()) == (past.epoch, &*past.partition) => {
                    known.extend(offsets);
                }
                _ => records.push((past.epoch, past.partition.to_string(), offsets)),
            }
            ControlFlow::Continue(())
        };
        let condition = ("feed = 'drops' OR \"offset\" < 0", limits);
        let count = replay_portions(snapshot, lake, input, condition, each).await.unwrap();
        assert_eq!(
            count as usize,
            records.iter().map(|(.., offsets)| offsets.len()).sum::<usize>()
        );
        records
    }

    #[test]
    fn the_past_comes_in_one_order_whatever_the_portions() {
        // All of Bronze was sorted at once, in memory.
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "dataflow.toml",
            "name = \"x\"\nepoch = \"1ms\"\ncommit = \"1ms\"\ndurability = \"none\"\n",
        );
        write(
            "inputs/rows.toml",
            "[columns]\nid = \"BIGINT\"\n[[feeds]]\nname = \"drops\"\nkind = \"files\"\nformat = \"csv\"\npath = \"drops/*.csv\"\n",
        );
        write("silver/rows.sql", "SELECT * FROM rows");
        // Each run adds a file, and snapshots of its own.
        for run in 0..6 {
            write(&format!("drops/{run}.csv"), &format!("id\n{run}1\n{run}2\n{run}3\n"));
            let options = Options {
                until_caught_up: true,
                ..Options::default()
            };
            run::run(Arc::new(load(folder.path(), &|_| None).unwrap()), &options).unwrap();
        }
        let dataflow = load(folder.path(), &|_| None).unwrap();
        let lake = Lake::open(&dataflow.lake, &dataflow.store_options).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let snapshot = Snapshot::open(&lake, None).await.unwrap();
            let version = snapshot.versions()["bronze.rows"];
            let small = PortionLimits { enough: 1, most: 1 };
            let portions = Portions::read(&lake, "bronze/rows", version, small).await.unwrap();
            assert!(portions.portions.len() > 2, "{:?}", portions.portions);
            let whole = past(&snapshot, &lake, &dataflow.inputs[0], PortionLimits::default()).await;
            assert_eq!(whole.iter().map(|(.., offsets)| offsets.len()).sum::<usize>(), 18);
            assert!(whole.is_sorted_by_key(|(epoch, ..)| *epoch));
            assert_eq!(past(&snapshot, &lake, &dataflow.inputs[0], small).await, whole);
        });
    }
}
