//! Snapshots to topics: the changes of chosen tables, each snapshot in one transaction of Kafka.
//!
//! ```text
//! ledger's intents (what each snapshot changes) -> changes: rows by key -> one transaction a snapshot -> topics
//! ```
//!
//! 1. A snapshot is published after its commit, from what its intent names: the change feed of each table, never a table.
//!    A consumer with `read_committed` sees whole snapshots, in their order.
//! 2. By key: the row as it is now, or a tombstone where it is gone.
//! 3. Exactly once over restarts: the epoch is kept in Kafka itself, as a group's offset of each topic's first partition,
//!    in the same transaction. A producer that is superseded is fenced by its transactional id.
//! 4. What lies further back than the ledger reaches (a topic that is new, or a broker that was away for long) is the
//!    difference of two snapshots, again in one transaction.
//! 5. Brokers that do not answer hold up no snapshot: the lake goes on, and what is missing follows.

mod avro;
mod changes;
mod encode;
mod producer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use thiserror::Error;
use tokio::runtime::Handle;

use crate::definition::{Dataflow, Output};
use crate::registry::Registries;
use crate::repr::Epoch;
use crate::serve::{QueryError, Snapshot};
use crate::sink::ledger::{self, Entry, Intent};
use crate::sink::{Lake, LedgerError, TableSpec};
use changes::{Changes, ChangesError};
use encode::{EncodeError, Encoder};
use producer::{Channel, ProduceError};

/// How long a run that ends waits until its last snapshots are published.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first pause before a channel is tried again; it doubles, up to the longest.
const BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Why snapshots could not be published.
#[derive(Debug, Error)]
pub enum PublishError {
    /// See [`ProduceError`].
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// See [`EncodeError`].
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// See [`ChangesError`].
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A snapshot could not be read.
    #[error("could not read snapshot {epoch}, which topics were written up to; write them anew under other names")]
    Snapshot {
        /// Which.
        epoch: Epoch,
        /// Why.
        #[source]
        source: Box<QueryError>,
    },
    /// The thread could not be started.
    #[error("could not start the thread that publishes snapshots")]
    Spawn(#[source] std::io::Error),
    /// Brokers did not take the last snapshots in time.
    #[error(
        "snapshots behind {published} are not published yet: brokers did not take them within {patience:?}; the next run publishes them"
    )]
    Behind {
        /// The newest that is published.
        published: Epoch,
        /// How long it was waited.
        patience: Duration,
    },
    /// The thread panicked.
    #[error("the thread that publishes snapshots panicked; this is a fault in alluvium, please report it")]
    Panicked,
}

impl PublishError {
    /// Whether the same may succeed later.
    fn may_pass(&self) -> bool {
        match self {
            PublishError::Produce(error) => error.may_pass(),
            PublishError::Encode(error) => error.may_pass(),
            _ => false,
        }
    }
}

/// A table that goes to a topic.
struct Table {
    spec: TableSpec,
    output: Output,
    encoder: Encoder,
    /// Positions of the key's columns; none of dead letters, of which those that come are told.
    key: Vec<usize>,
    /// The newest snapshot that the topic has.
    published: Epoch,
}

/// Publishes, in a thread of its own.
pub struct Publisher {
    committed: Sender<Epoch>,
    thread: JoinHandle<Result<(), PublishError>>,
}

/// Starts to publish, if the dataflow wants that. `newest` is the lake's snapshot; `failed` is told what cannot get better.
pub fn start(
    dataflow: &Arc<Dataflow>,
    specs: &[TableSpec],
    (lake, runtime): (&Lake, &Handle),
    newest: Epoch,
    failed: impl Fn(PublishError) + Send + 'static,
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
        let key = output.key.iter().map(|column| spec.schema.index_of(column));
        let key: Vec<usize> = key.collect::<Result<_, _>>().expect("the key's columns were checked");
        channels.entry(output.client.brokers.clone()).or_default().push(Table {
            encoder: Encoder::new(spec, output, &key, &registries)?,
            spec: spec.clone(),
            output: output.clone(),
            key,
            published: 0,
        });
    }
    if channels.is_empty() {
        return Ok(None);
    }
    let mut ways = Vec::new();
    for tables in channels.into_values() {
        ways.push(Way {
            channel: Channel::open(&dataflow.name, &tables[0].output.client)?,
            tables,
            found: false,
        });
    }
    let (committed, epochs) = unbounded();
    let mut work = Work {
        lake: lake.clone(),
        runtime: runtime.clone(),
        ways,
        newest,
        seen: BTreeMap::new(),
    };
    let thread = std::thread::Builder::new()
        .name("publisher".into())
        .spawn(move || {
            let done = work.publish(&epochs);
            match done {
                Err(error @ PublishError::Behind { .. }) => Err(error),
                Err(error) => {
                    failed(error);
                    Ok(())
                }
                Ok(()) => Ok(()),
            }
        })
        .map_err(PublishError::Spawn)?;
    Ok(Some(Publisher { committed, thread }))
}

impl Publisher {
    /// A snapshot is committed.
    pub fn observe_committed(&self, epoch: Epoch) {
        // A thread that is gone has told why.
        let _ = self.committed.send(epoch);
    }

    /// Waits until every snapshot is published, for a while.
    pub fn finish(self) -> Result<(), PublishError> {
        drop(self.committed);
        self.thread.join().unwrap_or(Err(PublishError::Panicked))
    }
}

/// Brokers, and the tables that go to them.
struct Way {
    channel: Channel,
    tables: Vec<Table>,
    /// Whether it is known what the topics have.
    found: bool,
}

struct Work {
    lake: Lake,
    runtime: Handle,
    ways: Vec<Way>,
    /// The newest snapshot that is committed.
    newest: Epoch,
    /// By epoch, intents that are still to be published or were last.
    seen: BTreeMap<Epoch, Intent>,
}

impl Work {
    /// Publishes what is committed, until nothing more will be.
    fn publish(&mut self, epochs: &Receiver<Epoch>) -> Result<(), PublishError> {
        let mut ended: Option<Instant> = None;
        let mut pause = BACK_OFF;
        // What an earlier run left.
        let mut due = true;
        loop {
            if !due && ended.is_none() {
                match epochs.recv() {
                    Ok(epoch) => self.newest = self.newest.max(epoch),
                    Err(_) => ended = Some(Instant::now()),
                }
            }
            self.newest = epochs.try_iter().fold(self.newest, Epoch::max);
            match self.catch_up() {
                Ok(()) => {
                    (due, pause) = (false, BACK_OFF);
                    if ended.is_some() && epochs.is_empty() {
                        return Ok(());
                    }
                }
                Err(error) if error.may_pass() => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "snapshots wait for their topics"
                    );
                    if ended.is_some_and(|ended| ended.elapsed() > PATIENCE) {
                        return Err(PublishError::Behind {
                            published: self.published(),
                            patience: PATIENCE,
                        });
                    }
                    due = true;
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST);
                    // Whoever ends the run hangs up.
                    if ended.is_none()
                        && matches!(epochs.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
                    {
                        ended = Some(Instant::now());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The newest snapshot that all topics have.
    fn published(&self) -> Epoch {
        let tables = self.ways.iter().flat_map(|way| &way.tables);
        tables.map(|table| table.published).min().unwrap_or(0)
    }

    /// Publishes every snapshot there is.
    fn catch_up(&mut self) -> Result<(), PublishError> {
        for way in &mut self.ways {
            if !way.found {
                let topics: Vec<&str> = way.tables.iter().map(|table| table.output.topic.as_str()).collect();
                let found = way.channel.find(&topics)?;
                way.tables
                    .iter_mut()
                    .zip(found)
                    .for_each(|(table, epoch)| table.published = epoch);
                way.found = true;
            }
        }
        self.read_ledger()?;
        let Work {
            lake,
            runtime,
            ways,
            seen,
            ..
        } = self;
        for way in ways.iter_mut() {
            way.catch_up(lake, runtime, seen)?;
        }
        // One that is published stays, to show that nothing lies between.
        if let Some((newest, _)) = self.seen.range(..=self.published()).next_back() {
            let newest = *newest;
            self.seen.retain(|epoch, _| *epoch >= newest);
        }
        Ok(())
    }

    /// Reads the intents that were not read yet.
    fn read_ledger(&mut self) -> Result<(), PublishError> {
        let published = self.published();
        let (lake, seen, upto) = (&self.lake, &mut self.seen, self.newest);
        let newest = seen.last_key_value().map(|(_, intent)| intent.seq);
        self.runtime.block_on(async {
            match newest {
                Some(newest) => {
                    let mut seq = newest + 1;
                    while let Some(entry) = ledger::read(lake, seq).await? {
                        if let Entry::Intent(intent) = entry {
                            if intent.epoch > upto {
                                break; // not applied yet
                            }
                            seen.insert(intent.epoch, intent);
                        }
                        seq += 1;
                    }
                }
                None => {
                    for seq in ledger::list(lake).await?.into_iter().rev() {
                        let Some(Entry::Intent(intent)) = ledger::read(lake, seq).await? else {
                            continue;
                        };
                        if intent.epoch > upto {
                            continue;
                        }
                        let reaches = intent.epoch <= published;
                        seen.insert(intent.epoch, intent);
                        if reaches {
                            break;
                        }
                    }
                }
            }
            Ok(())
        })
    }
}

impl Way {
    fn catch_up(
        &mut self,
        lake: &Lake,
        runtime: &Handle,
        intents: &BTreeMap<Epoch, Intent>,
    ) -> Result<(), PublishError> {
        // By (4): tables whose past the intents do not reach.
        let Some(oldest) = intents.keys().next().copied() else {
            return Ok(());
        };
        let newest = *intents.keys().next_back().expect("there is an oldest");
        let mut apart = Vec::new();
        for (index, table) in self.tables.iter().enumerate() {
            if table.published < oldest {
                let changes = runtime.block_on(difference(lake, table, newest))?;
                apart.push((index, changes));
            }
        }
        if !apart.is_empty() {
            self.send(newest, apart)?;
        }
        for (epoch, intent) in intents {
            let mut changed = Vec::new();
            for (index, table) in self.tables.iter().enumerate() {
                let Some(of_table) = intent.tables.iter().find(|of| of.table == table.spec.name) else {
                    continue;
                };
                if *epoch > table.published {
                    let changes = runtime.block_on(Changes::of_intent(lake, &table.spec, &table.key, of_table))?;
                    changed.push((index, changes));
                }
            }
            if !changed.is_empty() {
                self.send(*epoch, changed)?;
            }
        }
        Ok(())
    }

    /// One transaction.
    fn send(&mut self, epoch: Epoch, changed: Vec<(usize, Changes)>) -> Result<(), PublishError> {
        let mut topics = Vec::with_capacity(changed.len());
        for (index, changes) in &changed {
            let table = &mut self.tables[*index];
            topics.push((table.output.topic.clone(), table.encoder.encode(changes)?));
        }
        self.channel.transact(epoch, &topics)?;
        for (index, _) in changed {
            self.tables[index].published = epoch;
        }
        Ok(())
    }
}

/// What has changed of a table since the snapshot that its topic has.
async fn difference(lake: &Lake, table: &Table, upto: Epoch) -> Result<Changes, PublishError> {
    let rows = async |epoch: Epoch| {
        let wanted = |name: &str| name == table.spec.name;
        let fail = |source| PublishError::Snapshot {
            epoch,
            source: Box::new(source),
        };
        let snapshot = Snapshot::open_tables(lake, Some(epoch), wanted).await.map_err(fail)?;
        match snapshot.has(&table.spec.name) {
            true => Ok::<_, PublishError>(snapshot.rows(&table.spec.name).await.map_err(fail)?.1),
            false => Ok(vec![]),
        }
    };
    let now = rows(upto).await?;
    let before = match table.published {
        0 => vec![],
        epoch => rows(epoch).await?,
    };
    Ok(Changes::between(&table.spec, &table.key, before, now)?)
}
