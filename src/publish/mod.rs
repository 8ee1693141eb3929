//! Snapshots to topics: the changes of chosen tables, each snapshot in one transaction of Kafka.
//!
//! ```text
//!                 /-> worker: channel of some brokers: ledger, snapshots -> changes: rows by key -> transaction -> topics
//! committed epoch --> worker: channel of others
//! ```
//!
//! 1. A snapshot is published after its commit, from what its intent names: the change feed of each table, never a table.
//!    A consumer with `read_committed` sees whole snapshots, in their order.
//! 2. By key: the row as it is now, or a tombstone where it is gone.
//! 3. Exactly once over restarts and troubles: the epoch is kept in Kafka itself, as a group's offset of each topic's first
//!    partition, in the same transaction. A producer that is superseded is fenced by its transactional id.
//! 4. What the ledger does not tell (a topic that is new, brokers that were away for long, a table that was rebuilt) is the
//!    difference of two snapshots, again in one transaction. Rows of a topic that is new are sent as they are read; of others
//!    the keys are held.
//! 5. Brokers that do not answer hold up no snapshot, nor other brokers: the lake goes on, and what is missing follows.

mod avro;
mod changes;
mod channel;
mod difference;
mod encode;
mod error;
mod leap;
mod producer;
mod refusal;
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
pub use channel::Origin;
use encode::Encoder;
pub use error::PublishError;
use producer::{Clusters, Kafka};
use worker::Worker;

/// A table that goes to a topic.
struct Table {
    spec: TableSpec,
    output: Output,
    encoder: Encoder,
    /// Positions of the key's columns; none of dead letters, of which those that come are told.
    key: Vec<usize>,
}

/// A channel's thread.
type Thread = JoinHandle<Result<(), PublishError>>;

/// Publishes, in threads of its own.
pub struct Publisher {
    channels: Vec<(Sender<Epoch>, Thread)>,
}

/// Starts to publish, if the dataflow wants that. `newest` is the lake's snapshot; `failed` is told what cannot get better.
pub fn start(
    dataflow: &Arc<Dataflow>,
    specs: &[TableSpec],
    origin: &Origin,
    newest: Epoch,
    failed: impl Fn(PublishError) + Clone + Send + 'static,
) -> Result<Option<Publisher>, PublishError> {
    let mut channels: BTreeMap<String, Vec<Table>> = BTreeMap::new();
    // What schemas rows have is asked anew by each run.
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
        let table = Table::new(spec, output, &registries)?;
        channels.entry(output.client.brokers.clone()).or_default().push(table);
    }
    if channels.is_empty() {
        return Ok(None);
    }
    let clusters = (channels.len() > 1).then(Clusters::default);
    let mut publisher = Publisher { channels: Vec::new() };
    for tables in channels.into_values() {
        let brokers = Kafka::new(&dataflow.name, &tables[0].output.client, clusters.clone())?;
        let (committed, epochs) = unbounded();
        let worker = Worker::new(Channel::new(brokers, tables, origin.clone()), newest);
        let failed = failed.clone();
        let thread = std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || {
                // What a panic leaves half done ends with the run, and the next one publishes it.
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

impl Table {
    fn new(spec: &TableSpec, output: &Output, registries: &Registries) -> Result<Table, PublishError> {
        let key = output.key.iter().map(|column| spec.schema.index_of(column));
        let key: Vec<usize> = key.collect::<Result<_, _>>().expect("the key's columns were checked");
        Ok(Table {
            encoder: Encoder::new(spec, output, &key, registries)?,
            spec: spec.clone(),
            output: output.clone(),
            key,
        })
    }
}

impl Publisher {
    /// A snapshot is committed.
    pub fn observe_committed(&self, epoch: Epoch) {
        for (committed, _) in &self.channels {
            // A thread that is gone has told why.
            let _ = committed.send(epoch);
        }
    }

    /// Waits until every snapshot is published, for a while.
    pub fn finish(self) -> Result<(), PublishError> {
        // All hang up before one is waited for.
        let threads: Vec<Thread> = self.channels.into_iter().map(|(_, thread)| thread).collect();
        let ended: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
        ended
            .into_iter()
            .try_for_each(|ended| ended.unwrap_or(Err(PublishError::Panicked)))
    }
}
