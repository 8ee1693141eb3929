//! A run over a lake that holds a snapshot: the past of every input goes through the graph again, before any feed
//! is read.
//!
//! Bronze is read as of the newest snapshot and handed to the workers, each delivery with the epoch it first
//! arrived in (versions of a key are ordered by it), all at one new epoch of the graph. Inputs without Bronze are read
//! again ([`super::reread`]); letters of files, which no record stands for, are taken from the dead letters. The
//! sinks then compare what the graph says with what the tables hold.

use std::time::Instant;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use crossbeam_channel::Sender;

use super::RunError;
use super::reread::Reread;
use crate::repr::Epoch;
use crate::serve::{QueryError, Snapshot, history};
use crate::source::{Delivery, Position, rejected_file};

/// Hands every input's past to the workers, then hangs up. Says how many records there were.
pub fn replay(past: &Reread<'_>, workers: Vec<Sender<(Epoch, Delivery)>>) -> Result<u64, RunError> {
    let started = Instant::now();
    let mut next = 0;
    // A worker that is gone has told the conductor why. The send may wait: this thread is ours alone.
    let mut hand_over = |arrival: Epoch, delivery: Delivery| {
        next += 1;
        let _ = workers[next % workers.len()].send((arrival, delivery));
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
                let feed = input.feeds.iter().position(|feed| feed.name == letter.feed)?;
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
        Ok::<u64, RunError>(records)
    })?;
    records += past.read(&workers)?;
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
