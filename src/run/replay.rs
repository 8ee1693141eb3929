//! A run over a lake that holds a snapshot: the past of every input goes through the graph again, before any feed
//! is read.
//!
//! Bronze is read as of the newest snapshot and handed to the workers, each delivery with the epoch it first
//! arrived in (versions of a key are ordered by it), all at one new epoch of the graph. The sinks then compare
//! what the graph says with what the tables hold.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use tokio::runtime::Handle;

use super::RunError;
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::serve::Snapshot;
use crate::serve::history;
use crate::sink::Lake;
use crate::source::{Delivery, Position};

/// Hands every input's past to the workers, then hangs up. Says how many records there were.
pub fn replay(
    runtime: &Handle,
    lake: &Lake,
    dataflow: &Arc<Dataflow>,
    workers: Vec<Sender<(Epoch, Delivery)>>,
) -> Result<u64, RunError> {
    let started = Instant::now();
    if let Some(input) = dataflow.inputs.iter().find(|input| !input.bronze) {
        return Err(RunError::NoBronze {
            input: input.name.clone(),
        });
    }
    let records = runtime.block_on(async {
        let snapshot = Snapshot::open(lake, None).await?;
        let mut next = 0;
        let mut records = 0;
        for (index, input) in dataflow.inputs.iter().enumerate() {
            if !snapshot.has(&format!("bronze.{}", input.name)) {
                continue; // a new input
            }
            records += history::replay(snapshot.context(), lake, input, async |past| {
                let delivery = Delivery {
                    input: index,
                    feed: past.feed,
                    partition: past.partition,
                    decoded: past.decoded,
                    position: Position {
                        next: 0,
                        done: false,
                        tag: None,
                    },
                    arrived: started,
                };
                next += 1;
                // A worker that is gone has told the conductor why. The send may wait: this thread is ours alone.
                let _ = workers[next % workers.len()].send((past.epoch, delivery));
            })
            .await?;
        }
        Ok::<u64, RunError>(records)
    })?;
    tracing::info!(
        records,
        seconds = started.elapsed().as_secs_f64(),
        "replayed the past from Bronze"
    );
    Ok(records)
}
