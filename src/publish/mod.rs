//! Publishes snapshots to topics: the changes of chosen tables, each snapshot in one Kafka transaction.
//!
//! ```text
//!                 /-> worker, channel of one cluster: ledger, snapshots -> changes by key -> transaction -> topics
//! committed epoch --> worker, channel of another cluster
//! ```
//!
//! 1. A snapshot is published after its commit, from the files that its intent names: usually the change data feed of
//!    each table, not the whole table. A consumer with `read_committed` sees whole snapshots, in order.
//! 2. Records go by key: the row as it is now, or a tombstone if the row is gone.
//! 3. Each snapshot is published exactly once, in spite of restarts and failures: Kafka itself stores the epoch, as a
//!    group's offset of each topic's first partition, in the same transaction. The transactional id fences a producer
//!    that has been superseded.
//! 4. Where the ledger does not suffice (a new topic, brokers that were away for long, a rebuilt table), the
//!    difference of two snapshots is published, again in one transaction. For a new topic rows are sent as they are
//!    read; for others the keys are held in memory.
//! 5. Brokers that do not answer delay no commit, and no other brokers: the lake goes on, and the missing snapshots
//!    follow later.

mod avro;
mod changes;
mod channel;
mod difference;
mod encode;
mod error;
mod producer;
mod refusal;
mod snapshot_diff;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};

use crate::definition::{Dataflow, Output};
use crate::registry::Registries;
use crate::repr::Epoch;
use crate::sink::TableSpec;
use channel::Channel;
pub use channel::SnapshotSource;
use encode::RecordEncoder;
pub use error::PublishError;
use producer::{Clusters, KafkaProducer};
use worker::PublishWorker;

/// A table that is published to a topic.
struct ChannelTable {
    spec: TableSpec,
    output: Output,
    encoder: RecordEncoder,
    /// Positions of the key's columns. Empty for dead letters, of which only new ones are published.
    key: Vec<usize>,
}

/// A channel's thread.
type ChannelThread = JoinHandle<Result<(), PublishError>>;

/// Publishes snapshots in threads of its own.
pub struct Publisher {
    channels: Vec<(Sender<Epoch>, ChannelThread)>,
}

/// Starts publishing, if the dataflow has outputs. `newest` is the epoch of the lake's snapshot; `failed` receives
/// errors that a retry cannot solve.
pub fn start(
    dataflow: &Arc<Dataflow>,
    specs: &[TableSpec],
    origin: &SnapshotSource,
    newest: Epoch,
    failed: impl Fn(PublishError) + Clone + Send + 'static,
) -> Result<Option<Publisher>, PublishError> {
    let mut channels: BTreeMap<String, Vec<ChannelTable>> = BTreeMap::new();
    // Each run asks the registry anew for its schemas.
    let registries = Registries::new(None);
    let tables = dataflow
        .tables
        .iter()
        .map(|table| (table.qualified_name(), &table.output));
    let letters = ("dead_letters".to_string(), &dataflow.dead_letters);
    for (name, output) in tables.chain([letters]) {
        let Some(output) = output else { continue };
        let spec = specs
            .iter()
            .find(|spec| spec.name == name)
            .expect("every table is the sink's");
        let table = ChannelTable::new(spec, output, &registries)?;
        channels.entry(output.client.brokers.clone()).or_default().push(table);
    }
    if channels.is_empty() {
        return Ok(None);
    }
    let clusters = (channels.len() > 1).then(Clusters::default);
    let mut publisher = Publisher { channels: Vec::new() };
    for tables in channels.into_values() {
        let brokers = KafkaProducer::new(&dataflow.name, &tables[0].output.client, clusters.clone())?;
        let (committed, epochs) = unbounded();
        let worker = PublishWorker::new(Channel::new(brokers, tables, origin.clone()), newest);
        let failed = failed.clone();
        let thread = std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || {
                // A panic ends the run, and the next run publishes what was left unfinished.
                let published = catch_unwind(AssertUnwindSafe(|| worker.publish(&epochs)));
                match published.unwrap_or(Err(PublishError::Panicked)) {
                    Err(error @ PublishError::Behind { .. }) => Err(error),
                    Err(error) => {
                        failed(error);
                        Ok(())
                    }
                    Ok(()) => Ok(()),
                }
            })
            .map_err(PublishError::Spawn)?;
        publisher.channels.push((committed, thread));
    }
    Ok(Some(publisher))
}

impl ChannelTable {
    fn new(spec: &TableSpec, output: &Output, registries: &Registries) -> Result<ChannelTable, PublishError> {
        let key = output.key.iter().map(|column| spec.schema.index_of(column));
        let key: Vec<usize> = key.collect::<Result<_, _>>().expect("the key's columns were checked");
        Ok(ChannelTable {
            encoder: RecordEncoder::new(spec, output, &key, registries)?,
            spec: spec.clone(),
            output: output.clone(),
            key,
        })
    }
}

impl Publisher {
    /// Notifies the channels of a committed snapshot.
    pub fn observe_committed(&self, epoch: Epoch) {
        for (committed, _) in &self.channels {
            // A thread that has ended has reported why.
            let _ = committed.send(epoch);
        }
    }

    /// Waits, for a limited time, until every snapshot is published.
    pub fn finish(self) -> Result<(), PublishError> {
        // All channels are closed before the first thread is joined, so that they finish concurrently.
        let threads: Vec<ChannelThread> = self.channels.into_iter().map(|(_, thread)| thread).collect();
        let ended: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
        ended
            .into_iter()
            .try_for_each(|ended| ended.unwrap_or(Err(PublishError::Panicked)))
    }
}
