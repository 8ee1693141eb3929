//! A channel publishes tables to the topics of one Kafka cluster: it turns committed snapshots into transactions.
//!
//! ```text
//! ledger after `place` -> next: an intent    -> its changes, of each table         \
//!                               a difference -> of all tables, to one snapshot      > one transaction, of all topics
//! no transaction for long        -> refresh: no record                             /
//! ```
//!
//! 1. Every transaction carries the epoch for all topics of the channel: they are at one snapshot, and move to the
//!    next together. So a table that does not change does not fall behind, and a consumer sees whole snapshots.
//! 2. `place` is the newest snapshot whose changes the topics have completely. The epoch that brokers store may be
//!    older, if nothing of the channel's tables changed since. It is stored again before that old snapshot expires in
//!    the lake, or before brokers forget it.
//! 3. The ledger is read entry by entry after `place`. If it does not suffice, the difference of two snapshots is
//!    published: for topics that are new or were at different epochs, if entries or files have been cleaned up, and
//!    for tables whose rows were all replaced.
//! 4. Rows that do not fit the tables' definition are never published. The channel is held until a snapshot has the
//!    rows that replace them, which is then published as a difference.
//! 5. After any error the producer is opened anew, and reads the epochs of the topics: these show whether the last
//!    attempt was committed. Only the newest generation opens a producer, because an old run would otherwise fence its
//!    successor.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::changes::{ChangesError, PublishedChanges};
use super::encode::EncodedRecord;
use super::error::ProduceError;
use super::snapshot_diff::SnapshotDiff;
use super::{ChannelTable, PublishError};
use crate::lake::Lake;
use crate::repr::Epoch;
use crate::sink::ledger::{self, Intent, LedgerEntry};

/// Brokers keep a group's offsets for days after the last commit; this is the interval at which they are committed
/// again.
const REMINDER: Duration = Duration::from_secs(3600);

/// The interval at which the warning that a channel is held is repeated.
const REMIND: Duration = Duration::from_secs(60);

/// The operations that a channel needs of its brokers. After an error, the next call must be `open`.
pub trait Brokers {
    /// Opens a producer: fences earlier ones, and settles their open transactions. Returns the newest epoch of each
    /// topic; 0 if it has none.
    fn open(&mut self, topics: &[String]) -> Result<Vec<Epoch>, ProduceError>;
    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), ProduceError>;
    /// Adds a record to the transaction.
    fn put(&mut self, topic: &str, record: &EncodedRecord) -> Result<(), ProduceError>;
    /// Commits the transaction, together with `epoch` as the newest epoch of these topics.
    fn commit(&mut self, epoch: Epoch, topics: &[String]) -> Result<(), ProduceError>;
}

/// The lake that holds the snapshots.
#[derive(Clone)]
pub struct SnapshotSource {
    pub lake: Lake,
    pub runtime: Handle,
    /// The generation of this run.
    pub generation: u64,
    /// How long snapshots stay readable.
    pub history: Duration,
}

/// The place of an intent in the ledger.
#[derive(Clone, Copy, Debug)]
struct LedgerPlace {
    seq: u64,
    epoch: Epoch,
}

/// Publishes tables to the topics of one cluster.
pub struct Channel<B> {
    brokers: B,
    tables: Vec<ChannelTable>,
    /// Of each table.
    topics: Vec<String>,
    origin: SnapshotSource,
    /// Whether a producer is open.
    is_open: bool,
    /// The epoch of each topic, as brokers store it.
    topic_epochs: Vec<Epoch>,
    /// See (2). None if it is not known, or if the topics are at different epochs.
    place: Option<LedgerPlace>,
    in_transaction: bool,
    /// See (4): nothing is published until a snapshot newer than this one exists.
    held_at: Option<Epoch>,
    /// When the warning that the channel is held was last logged.
    hold_warned: Option<Instant>,
    /// When this producer committed its last transaction.
    sent: Option<Instant>,
}

enum NextStep {
    Nothing,
    Intent(Box<Intent>),
    /// The difference to a snapshot, by (3).
    Difference,
}

impl<B: Brokers> Channel<B> {
    /// A channel that has not contacted its brokers yet.
    pub fn new(brokers: B, tables: Vec<ChannelTable>, origin: SnapshotSource) -> Channel<B> {
        Channel {
            topic_epochs: vec![0; tables.len()],
            topics: tables.iter().map(|table| table.output.topic.clone()).collect(),
            brokers,
            tables,
            origin,
            is_open: false,
            place: None,
            in_transaction: false,
            held_at: None,
            hold_warned: None,
            sent: None,
        }
    }

    /// The newest snapshot that all topics have.
    pub fn published(&self) -> Epoch {
        let place = self.place.map(|place| place.epoch);
        place.unwrap_or_else(|| self.topic_epochs.iter().copied().min().unwrap_or(0))
    }

    /// Publishes every snapshot up to this one.
    pub fn catch_up(&mut self, upto: Epoch) -> Result<(), PublishError> {
        let done = self.advance(upto);
        self.close_after_error(done)
    }

    /// When the topics' epoch must be stored again, by (2).
    pub fn due(&self) -> Option<Instant> {
        let (Some(sent), Some(place)) = (self.sent, self.place) else {
            return None;
        };
        let is_everywhere = self.topic_epochs.iter().all(|epoch| *epoch == place.epoch);
        Some(match is_everywhere {
            true => sent + REMINDER,
            false => sent + REMINDER.min(self.origin.history / 4),
        })
    }

    /// Stores the epoch again without records, by (2).
    pub fn refresh(&mut self) -> Result<(), PublishError> {
        match self.place {
            // The stored epoch must never go back.
            Some(place) if self.is_open && self.topic_epochs.iter().all(|epoch| *epoch <= place.epoch) => {
                let done = self.transact(place, vec![]);
                self.close_after_error(done)
            }
            _ => Ok(()),
        }
    }

    /// Gives up the producer after an error, by (5).
    fn close_after_error(&mut self, done: Result<(), PublishError>) -> Result<(), PublishError> {
        let error = match done {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        self.is_open = false;
        if let PublishError::Produce(ProduceError::Refused { refusal, .. }) = &error
            && refusal.is_too_large()
            && let Some(table) = self.tables.iter_mut().find(|table| table.output.topic == refusal.topic)
            && table.encoder.shorten(refusal.size)
        {
            tracing::warn!(
                topic = refusal.topic,
                bytes = refusal.size,
                "dead letters of this size and more go to their topic without their values"
            );
        }
        Err(error)
    }

    fn advance(&mut self, upto: Epoch) -> Result<(), PublishError> {
        if !self.is_open {
            self.open()?;
        }
        loop {
            match self.next_step(upto)? {
                NextStep::Nothing => break,
                NextStep::Intent(intent) => self.publish_intent(&intent, upto)?,
                NextStep::Difference => match self.newest_intent(upto)? {
                    Some(newest) => self.publish_difference(newest, upto)?,
                    None => break,
                },
            }
        }
        // This stores the epoch once, even if this run never publishes a change: the next run goes on from there.
        match self.sent {
            None => self.refresh(),
            Some(_) => Ok(()),
        }
    }

    fn open(&mut self) -> Result<(), PublishError> {
        let ours = self.origin.generation;
        let theirs = self.block_on(newest_generation(&self.origin.lake))?;
        if theirs > ours {
            return Err(PublishError::Superseded { ours, theirs });
        }
        let stored_now = self.brokers.open(&self.topics)?;
        // What we know is valid only if the brokers still have the epochs that we stored.
        if common_epoch(&stored_now).is_none()
            || stored_now
                .iter()
                .zip(&self.topic_epochs)
                .any(|(stored_now, stored)| stored_now < stored)
        {
            self.place = None;
        }
        (self.topic_epochs, self.sent) = (stored_now, None);
        (self.is_open, self.in_transaction) = (true, false);
        Ok(())
    }

    /// Decides what to do next.
    fn next_step(&mut self, upto: Epoch) -> Result<NextStep, PublishError> {
        if self.held_at.is_some_and(|epoch| upto <= epoch) {
            return Ok(NextStep::Nothing);
        }
        self.held_at = None;
        let Some(published) = common_epoch(&self.topic_epochs) else {
            return Ok(NextStep::Difference);
        };
        if self.place.is_none() {
            self.place = self.newest_intent(published)?;
        }
        while let Some(place) = &mut self.place {
            let read = ledger::read(&self.origin.lake, place.seq + 1);
            match self.origin.runtime.block_on(read)? {
                Some(LedgerEntry::Intent(intent)) if intent.epoch > upto => return Ok(NextStep::Nothing), // not applied yet
                Some(LedgerEntry::Intent(intent)) if intent.epoch > published => {
                    return Ok(NextStep::Intent(Box::new(intent)));
                }
                Some(LedgerEntry::Intent(Intent { seq, epoch, .. })) => *place = LedgerPlace { seq, epoch },
                Some(LedgerEntry::Fence(_)) => place.seq += 1,
                None if place.epoch >= upto => return Ok(NextStep::Nothing),
                // Entries are dense, and a newer one exists: so this one has been cleaned up.
                None => break,
            }
        }
        Ok(NextStep::Difference)
    }

    /// The newest intent of a snapshot up to this epoch.
    fn newest_intent(&self, upto: Epoch) -> Result<Option<LedgerPlace>, PublishError> {
        let lake = &self.origin.lake;
        self.block_on(async {
            for seq in ledger::list(lake).await?.into_iter().rev() {
                if let Some(LedgerEntry::Intent(intent)) = ledger::read(lake, seq).await?
                    && intent.epoch <= upto
                {
                    let epoch = intent.epoch;
                    return Ok(Some(LedgerPlace { seq, epoch }));
                }
            }
            Ok(None)
        })
    }

    fn publish_intent(&mut self, intent: &Intent, upto: Epoch) -> Result<(), PublishError> {
        let place = LedgerPlace {
            seq: intent.seq,
            epoch: intent.epoch,
        };
        let mut changed = Vec::new();
        for (index, table) in self.tables.iter().enumerate() {
            let Some(of_table) = intent.tables.iter().find(|of| of.table == table.spec.name) else {
                continue;
            };
            let changes = PublishedChanges::of_intent(&self.origin.lake, &table.spec, &table.key, of_table);
            match self.origin.runtime.block_on(changes) {
                Ok(Some(changes)) if changes.is_empty() => {}
                Ok(Some(changes)) => changed.push((index, changes)),
                Ok(None) => return self.publish_difference(place, upto),
                Err(ChangesError::Gone { .. } | ChangesError::Form { .. }) => {
                    let newest = self.newest_intent(upto)?.unwrap_or(place);
                    return self.publish_difference(newest, upto);
                }
                Err(error) => return Err(error.into()),
            }
        }
        match changed.is_empty() {
            true => {
                self.place = Some(place);
                Ok(())
            }
            false => self.transact(place, changed),
        }
    }

    /// Publishes these changes in one transaction.
    fn transact(&mut self, place: LedgerPlace, changed: Vec<(usize, PublishedChanges)>) -> Result<(), PublishError> {
        for (index, _) in &changed {
            self.tables[*index].encoder.prepare()?;
        }
        self.begin()?;
        for (index, changes) in changed {
            self.put(index, &changes)?;
        }
        self.commit(place)
    }

    fn begin(&mut self) -> Result<(), PublishError> {
        self.in_transaction = true;
        Ok(self.brokers.begin()?)
    }

    fn put(&mut self, index: usize, changes: &PublishedChanges) -> Result<(), PublishError> {
        let table = &mut self.tables[index];
        for record in table.encoder.encode(changes)? {
            self.brokers.put(&table.output.topic, &record)?;
        }
        Ok(())
    }

    fn commit(&mut self, place: LedgerPlace) -> Result<(), PublishError> {
        self.brokers.commit(place.epoch, &self.topics)?;
        self.topic_epochs = vec![place.epoch; self.topics.len()];
        (self.place, self.sent) = (Some(place), Some(Instant::now()));
        (self.in_transaction, self.hold_warned) = (false, None);
        Ok(())
    }

    /// Publishes the difference to snapshot `to` in one transaction of all tables, by (3). If its rows do not fit the
    /// definition, tries a newer snapshot or holds the channel, by (4).
    fn publish_difference(&mut self, to: LedgerPlace, upto: Epoch) -> Result<(), PublishError> {
        let misfit = match self.send_difference(to) {
            Err(PublishError::Changes(error @ ChangesError::Form { .. })) => error,
            sent => return sent,
        };
        if self.in_transaction {
            self.is_open = false;
            self.open()?;
        }
        match self.newest_intent(upto)? {
            Some(newest) if newest.epoch > to.epoch => self.publish_difference(newest, upto),
            _ => {
                if self
                    .hold_warned
                    .is_none_or(|hold_warned| hold_warned.elapsed() > REMIND)
                {
                    let reason = &misfit as &dyn std::error::Error;
                    tracing::warn!(reason, "topics wait for rows of their tables' definition");
                    self.hold_warned = Some(Instant::now());
                }
                self.held_at = Some(upto);
                Ok(())
            }
        }
    }

    fn send_difference(&mut self, to: LedgerPlace) -> Result<(), PublishError> {
        let runtime = self.origin.runtime.clone();
        let bases: Vec<Epoch> = match self.place {
            Some(place) => vec![place.epoch; self.tables.len()],
            None => self.topic_epochs.clone(),
        };
        let diff = SnapshotDiff::prepare(&self.origin.lake, &self.tables, &bases, to.epoch);
        let mut diff = runtime.block_on(diff)?;
        for table in &mut self.tables {
            table.encoder.prepare()?;
        }
        self.begin()?;
        for step in diff.take_steps() {
            let index = step.table;
            let mut rows = runtime.block_on(diff.rows_of(step, &self.tables[index]))?;
            while let Some(changes) = runtime.block_on(rows.next())? {
                self.put(index, &changes)?;
            }
        }
        self.commit(to)
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.origin.runtime.block_on(future)
    }
}

/// The common epoch of all topics; none if they differ, or have none.
fn common_epoch(topic_epochs: &[Epoch]) -> Option<Epoch> {
    let first = *topic_epochs.first()?;
    (first > 0 && topic_epochs.iter().all(|epoch| *epoch == first)).then_some(first)
}

/// The generation of the ledger's newest entry; 0 if the ledger is empty.
async fn newest_generation(lake: &Lake) -> Result<u64, PublishError> {
    let Some(seq) = ledger::list(lake).await?.pop() else {
        return Ok(0);
    };
    Ok(ledger::read(lake, seq).await?.map_or(0, |entry| entry.generation()))
}
