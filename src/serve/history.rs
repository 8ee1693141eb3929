//! Replays an input's past: decodes its Bronze rows again, with the decoders that decoded them on arrival.
//!
//! Records come in the order of their epochs (a range of epochs at a time, see [`super::epoch_ranges`]), and within an
//! epoch by feed, partition and offset. Each has the epoch at which it arrived, so that versions of a key are ordered
//! as they were. Bronze also holds refused records, which are refused again. Records that `run --skip` left out are
//! left out again: the snapshot's dead letters name them.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use thiserror::Error;

use super::LakeSnapshot;
use super::archive::{Archive, archived_rows};
use super::epoch_ranges::{EpochRange, EpochRangeLimits, EpochRanges};
use crate::decode::skip::{REASON, Skip, Skips};
use crate::decode::{CutRecord, DecodeError, Decoded, Decoder, Payloads, Raw};
use crate::definition::Input;
use crate::lake::{Lake, bronze_table, table_folder};
use crate::registry::{Registries, Unready};
use crate::repr::{CodecError, Epoch, batch_slices, normalise_batch};
use crate::sink::bronze::{self, BronzeContent, BronzeRun};

/// Records that arrived together.
pub struct PastDelivery {
    /// The epoch at which they arrived.
    pub epoch: Epoch,
    /// The feed's index, see [`Input::feed`].
    pub feed: usize,
    /// The partition.
    pub partition: Arc<str>,
    /// The records, and the changes that they make.
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
    /// The table's columns are not those of Bronze.
    #[error("could not read bronze.{input} as Bronze")]
    Columns {
        /// Which input.
        input: String,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// Bronze holds records of a feed that is not in the definition.
    #[error(
        "bronze.{input} holds records of feed {feed:?}, which the definition does not name; put the feed back, or start a new lake"
    )]
    UnknownFeed {
        /// Which input.
        input: String,
        /// Which feed.
        feed: String,
    },
    /// A decoder could not be created.
    #[error("could not decode bronze.{input}")]
    Decoder {
        /// Which input.
        input: String,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// Schemas of records are not in the lake, and the registry does not return them.
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

/// Passes an input's past to `each`, in order, as of a snapshot that has the input's Bronze table. Returns the number
/// of records.
pub async fn replay(
    snapshot: &LakeSnapshot,
    lake: &Lake,
    input: &Input,
    mut each: impl AsyncFnMut(PastDelivery),
) -> Result<u64, HistoryError> {
    replay_where(snapshot, lake, input, "TRUE", async |past| {
        each(past).await;
        ControlFlow::Continue(())
    })
    .await
}

/// Passes the records of an input's past that meet a condition on Bronze's columns (the table is called `b`), until
/// `each` breaks.
pub async fn replay_where(
    snapshot: &LakeSnapshot,
    lake: &Lake,
    input: &Input,
    condition: &str,
    each: impl AsyncFnMut(PastDelivery) -> ControlFlow<()>,
) -> Result<u64, HistoryError> {
    replay_ranges(snapshot, lake, input, (condition, EpochRangeLimits::default()), each).await
}

async fn replay_ranges(
    snapshot: &LakeSnapshot,
    lake: &Lake,
    input: &Input,
    (condition, limits): (&str, EpochRangeLimits),
    mut each: impl AsyncFnMut(PastDelivery) -> ControlFlow<()>,
) -> Result<u64, HistoryError> {
    let table = |source| HistoryError::Table {
        input: input.name.clone(),
        source,
    };
    let bronze = bronze_table(&input.name);
    let version = snapshot.versions().get(&bronze).copied().unwrap_or_default();
    let ranges = EpochRanges::read(lake, &table_folder(&bronze), version, limits).await;
    let ranges = ranges.map_err(|error| table(DataFusionError::External(Box::new(error))))?;
    let session = ranges.session(snapshot.context()).map_err(table)?;
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
        archive: Archive::new(lake, archived_rows),
        skips,
        records: 0,
    };
    for range in &ranges.ranges {
        let sql = sorted(input, condition, *range);
        let mut batches = opened(&session, &sql).await.map_err(table)?;
        // Rows that were passed on, and how many of them will be repeated.
        let (mut given, mut again, mut in_memory) = (0, 0, false);
        while let Some(batch) = batches.next().await {
            let mut batch = match batch {
                // A sort of large rows may need more than its share of memory: slow in memory is better than not at
                // all. The order has no ties, so the rows that were passed on come first again.
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
            match past.pass_on(batch, &mut each).await? {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(()) => return Ok(past.records),
            }
        }
    }
    Ok(past.records)
}

/// The query for a range of an input's past, in order.
fn sorted(input: &Input, condition: &str, EpochRange { from, until }: EpochRange) -> String {
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

/// A replay in progress.
struct Replay<'a> {
    input: &'a Input,
    decoders: Decoders<'a>,
    archive: Archive<'a>,
    skips: Skips,
    /// The number of records that were passed on.
    records: u64,
}

impl Replay<'_> {
    /// Passes the records of some rows of Bronze to `each`, until it breaks.
    async fn pass_on(
        &mut self,
        batch: RecordBatch,
        each: &mut impl AsyncFnMut(PastDelivery) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, HistoryError> {
        let input = self.input;
        let batch = bronze::completed(batch);
        // Normalising turns view columns into columns whose arrays hold less than 2 GiB.
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

    async fn decode(&mut self, run: BronzeRun) -> Result<PastDelivery, HistoryError> {
        let input = self.input;
        let BronzeRun {
            feed,
            partition,
            epoch,
            content,
        } = run;
        let (feed, decoder) = self.decoders.decoder_of(&feed)?;
        let raw = match content {
            BronzeContent::Records(raw) => raw,
            BronzeContent::Archived {
                reference,
                first,
                records,
                cut_from,
                place,
            } => {
                let format = input.feed(feed).format;
                let rows = self
                    .archive
                    .rows(format, &reference, first.saturating_sub(place.base), records);
                let batch = rows.await.map_err(|source| HistoryError::Archive {
                    input: input.name.clone(),
                    reference: reference.clone(),
                    source,
                })?;
                let cut = cut_from.map(|length| CutRecord { record: 0, length });
                Raw {
                    offsets: (first..first + batch.num_rows() as u64).collect(),
                    payloads: Payloads::Columns {
                        batch,
                        path: reference.into(),
                        tag: "".into(),
                    },
                    header: None,
                    cut: cut.into_iter().collect(),
                    place,
                }
            }
        };
        let mut decoded = decoder.decode(raw).map_err(|waiting| HistoryError::Schemas {
            input: input.name.clone(),
            source: waiting.unready,
        })?;
        self.skips
            .apply((&input.name, input.feed_name(feed)), &partition, &mut decoded);
        Ok(PastDelivery {
            epoch,
            feed,
            partition,
            decoded,
        })
    }
}

/// The records of one input, or of all, that the dead letters name as skipped.
///
/// # Errors
/// The dead letters cannot be read.
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

/// One decoder per feed, created when it is first needed.
struct Decoders<'a> {
    input: &'a Input,
    registries: Registries,
    decoders: HashMap<usize, Decoder>,
}

impl Decoders<'_> {
    fn decoder_of(&mut self, name: &str) -> Result<(usize, &mut Decoder), HistoryError> {
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

/// About the most bytes of Bronze that are processed at once, unless a single record has more.
const SLICE: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::load;
    use crate::run::{self, Options};

    /// The offsets of records by epoch and partition, in the order of the replay.
    async fn past(
        snapshot: &LakeSnapshot,
        lake: &Lake,
        input: &Input,
        limits: EpochRangeLimits,
    ) -> Vec<(Epoch, String, Vec<u64>)> {
        let mut records: Vec<(Epoch, String, Vec<u64>)> = vec![];
        let each = async |past: PastDelivery| {
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
        let count = replay_ranges(snapshot, lake, input, condition, each).await.unwrap();
        assert_eq!(
            count as usize,
            records.iter().map(|(.., offsets)| offsets.len()).sum::<usize>()
        );
        records
    }

    #[test]
    fn the_past_comes_in_one_order_whatever_the_ranges() {
        // All of Bronze was once sorted at once, in memory.
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
        // Each run adds a file and its own snapshots.
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
            let snapshot = LakeSnapshot::open(&lake, None).await.unwrap();
            let version = snapshot.versions()["bronze.rows"];
            let small = EpochRangeLimits { enough: 1, most: 1 };
            let ranges = EpochRanges::read(&lake, "bronze/rows", version, small).await.unwrap();
            assert!(ranges.ranges.len() > 2, "{:?}", ranges.ranges);
            let whole = past(&snapshot, &lake, &dataflow.inputs[0], EpochRangeLimits::default()).await;
            assert_eq!(whole.iter().map(|(.., offsets)| offsets.len()).sum::<usize>(), 18);
            assert!(whole.is_sorted_by_key(|(epoch, ..)| *epoch));
            assert_eq!(past(&snapshot, &lake, &dataflow.inputs[0], small).await, whole);
        });
    }
}
