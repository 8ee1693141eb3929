//! A run over a lake that holds a snapshot: the past of every input goes through the graph again, before any feed
//! is read.
//!
//! Bronze is read as of the newest snapshot and handed to the workers, each delivery with the epoch it first
//! arrived in (versions of a key are ordered by it), all at one new epoch of the graph. Inputs without Bronze are read
//! again ([`super::reread`]). Letters that no record of the past says again are taken from the dead letters: those of
//! files, and those of rows that reached a table too late for its retention, which the graph could only judge by the
//! time of the replay. The sinks then compare what the graph says with what the tables hold.

use std::sync::atomic::Ordering;
use std::time::Instant;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use crossbeam_channel::Sender;

use super::RunError;
use super::reread::Reread;
use super::worker::Past;
use crate::render::{LATE, still_late};
use crate::repr::{Epoch, Row, RowCodec, normalise_batch};
use crate::serve::{QueryError, Snapshot, history};
use crate::sink::dead_letters;
use crate::source::{Delivery, Position, rejected_file};

/// Hands every input's past to the workers, and at last its end. Says how many records there were.
pub fn replay(past: &Reread<'_>, workers: &[Sender<Past>]) -> Result<u64, RunError> {
    let started = Instant::now();
    let mut next = 0;
    // A worker that is gone has told the conductor why. The send may wait: this thread is ours alone.
    let mut hand_over = |arrival: Epoch, delivery: Delivery| {
        next += 1;
        let _ = workers[next % workers.len()].send(Past::Delivery(arrival, Box::new(delivery)));
    };
    let Reread { dataflow, lake, .. } = past;
    let mut records = past.runtime.block_on(async {
        let snapshot = Snapshot::open(lake, None).await?;
        let mut records = 0;
        for (index, input) in dataflow.inputs.iter().enumerate() {
            if !input.bronze || !snapshot.has(&format!("bronze.{}", input.name)) {
                continue; // read again, or new
            }
            records += history::replay(snapshot.context(), lake, input, async |past| {
                let delivery = Delivery {
                    input: index,
                    feed: past.feed,
                    partition: past.partition,
                    decoded: past.decoded,
                    position: Position::default(),
                    arrived: started,
                };
                hand_over(past.epoch, delivery);
            })
            .await?;
        }
        for letter in letters_of_files(&snapshot).await? {
            let of_feed = dataflow.inputs.iter().enumerate().find_map(|(index, input)| {
                let feed = input.feed_index(&letter.feed)?;
                (input.name == letter.input).then_some((index, feed))
            });
            // A feed that is no more owes no files.
            if let Some((input, feed)) = of_feed {
                let delivery = Delivery {
                    input,
                    feed,
                    partition: letter.partition.into(),
                    decoded: rejected_file(&dataflow.inputs[input], letter.reason),
                    position: Position::default(),
                    arrived: started,
                };
                hand_over(letter.epoch, delivery);
            }
        }
        let letters = letters_of_late_rows(&snapshot, past).await?;
        if !letters.is_empty() {
            let _ = workers[0].send(Past::Letters(letters));
        }
        Ok::<u64, RunError>(records)
    })?;
    records += past.read(workers)?;
    for worker in workers {
        let _ = worker.send(Past::End);
    }
    tracing::info!(records, seconds = started.elapsed().as_secs_f64(), "replayed the past");
    Ok(records)
}

/// A dead letter of a file as a whole.
struct FileLetter {
    input: String,
    feed: String,
    partition: String,
    reason: String,
    epoch: Epoch,
}

/// The letters of rows that came too late for a table's retention, and still are.
async fn letters_of_late_rows(snapshot: &Snapshot, past: &Reread<'_>) -> Result<Vec<Row>, RunError> {
    let retained = past.dataflow.tables.iter().filter_map(|table| {
        let retention = table.retention.as_ref()?;
        Some((table.qualified_name(), retention))
    });
    let (mut letters, mut codec) = (Vec::new(), None);
    if !snapshot.has("dead_letters") {
        return Ok(letters);
    }
    let epoch = past.shared.open.load(Ordering::Acquire);
    let schema = dead_letters::schema();
    let columns: Vec<String> = schema.fields().iter().map(|f| format!("{:?}", f.name())).collect();
    for (table, retention) in retained {
        let sql = format!(
            "SELECT {} FROM dead_letters WHERE kind = 'row' AND table_name = '{table}' AND starts_with(reason, '{LATE}')",
            columns.join(", ")
        );
        for batch in snapshot.query(&sql).await?.1 {
            let batch = normalise_batch(&schema, &batch)?;
            let payloads = batch
                .column_by_name("payload")
                .expect("letters have it")
                .as_binary::<i32>();
            let late = BooleanArray::from(still_late(payloads, retention, epoch));
            let late = filter_record_batch(&batch, &late).expect("there is a verdict for each row");
            let codec = match &codec {
                Some(codec) => codec,
                None => codec.insert(RowCodec::new(schema.clone())?),
            };
            letters.extend(codec.encode_rows(late.columns(), late.num_rows())?);
        }
    }
    Ok(letters)
}

async fn letters_of_files(snapshot: &Snapshot) -> Result<Vec<FileLetter>, QueryError> {
    if !snapshot.has("dead_letters") {
        return Ok(vec![]);
    }
    let text = |column: &str| format!("arrow_cast({column}, 'Utf8')");
    let sql = format!(
        "SELECT {}, {}, {}, {}, epoch FROM dead_letters WHERE kind = 'file'",
        text("input"),
        text("feed"),
        text("\"partition\""),
        text("reason")
    );
    let (_, batches) = snapshot.query(&sql).await?;
    let mut letters = Vec::new();
    for batch in batches {
        let [input, feed, partition, reason] = [0, 1, 2, 3].map(|i| batch.column(i).as_string::<i32>());
        let epochs = batch.column(4).as_primitive::<Int64Type>();
        letters.extend(
            (0..batch.num_rows())
                .filter(|i| epochs.is_valid(*i))
                .map(|i| FileLetter {
                    input: input.value(i).to_string(),
                    feed: feed.value(i).to_string(),
                    partition: partition.value(i).to_string(),
                    reason: reason.value(i).to_string(),
                    epoch: epochs.value(i) as Epoch,
                }),
        );
    }
    Ok(letters)
}
