//! Brokers and the tables that go to them: from snapshots that are committed to transactions.
//!
//! ```text
//! ledger behind `place` -> next: an intent    -> its changes, of each table        \
//!                                a difference -> of all tables, to one snapshot     > one transaction, of all topics
//! nothing for long               -> refresh: no record                             /
//! ```
//!
//! 1. Every transaction carries the epoch of all topics of the channel: they stand at one snapshot, and move to another
//!    together. So a table that does not change does not stay behind, and a consumer sees whole snapshots.
//! 2. `place` is the newest snapshot of which the topics have everything; what they were told may be older, where nothing
//!    of theirs changed since. They are told again before snapshots as old as that expire, or brokers forget them.
//! 3. The ledger is read entry by entry behind `place`. What it does not tell goes by difference of two snapshots: topics
//!    that are new or were apart, entries and files that were cleaned up, rows that were replaced as a whole.
//! 4. Rows that the tables' definition does not show never go to topics. The channel is held until a snapshot has those
//!    that replace them, which then goes by difference.
//! 5. After any error the producer is opened anew, and asks for what the topics have: an attempt that may have been
//!    committed or not is settled by that. Only the newest generation opens one, else an old run would fence its successor.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::changes::{Changes, ChangesError};
use super::encode::Keyed;
use super::error::ProduceError;
use super::leap::Leap;
use super::{PublishError, Table};
use crate::repr::Epoch;
use crate::sink::Lake;
use crate::sink::ledger::{self, Entry, Intent};

/// Brokers keep a group's offsets for days behind the last that were told.
const REMINDER: Duration = Duration::from_secs(3600);

/// How often it is said again that a channel is held.
const REMIND: Duration = Duration::from_secs(60);

/// What a channel needs of its brokers. After an error only `open` is called.
pub trait Brokers {
    /// Opens a producer: earlier ones are fenced, and what they left open is settled. Answers the newest epoch of each
    /// topic; 0: none.
    fn open(&mut self, topics: &[String]) -> Result<Vec<Epoch>, ProduceError>;
    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), ProduceError>;
    /// A record of the transaction.
    fn put(&mut self, topic: &str, record: &Keyed) -> Result<(), ProduceError>;
    /// Commits the transaction, and with it that these topics have everything of this epoch.
    fn commit(&mut self, epoch: Epoch, topics: &[String]) -> Result<(), ProduceError>;
}

/// Where snapshots are.
#[derive(Clone)]
pub struct Origin {
    pub lake: Lake,
    pub runtime: Handle,
    /// Whose run this is.
    pub generation: u64,
    /// How long snapshots can be read.
    pub history: Duration,
}

/// An intent of the ledger.
#[derive(Clone, Copy, Debug)]
struct Place {
    seq: u64,
    epoch: Epoch,
}

/// Brokers, and the tables that go to them.
pub struct Channel<B> {
    brokers: B,
    tables: Vec<Table>,
    /// Of each table.
    topics: Vec<String>,
    origin: Origin,
    /// Whether a producer is open.
    is_open: bool,
    /// The epoch of each topic, as brokers have it.
    told: Vec<Epoch>,
    /// See (2); none: not known, or the topics are apart.
    place: Option<Place>,
    in_transaction: bool,
    /// See (4): nothing goes before there is a newer snapshot.
    held: Option<Epoch>,
    /// When it was said that the channel is held.
    said: Option<Instant>,
    /// The last transaction of this producer.
    sent: Option<Instant>,
}

enum Next {
    Nothing,
    Intent(Box<Intent>),
    /// By (3).
    Difference,
}

impl<B: Brokers> Channel<B> {
    /// Nothing is asked of the brokers yet.
    pub fn new(brokers: B, tables: Vec<Table>, origin: Origin) -> Channel<B> {
        Channel {
            told: vec![0; tables.len()],
            topics: tables.iter().map(|table| table.output.topic.clone()).collect(),
            brokers,
            tables,
            origin,
            is_open: false,
            place: None,
            in_transaction: false,
            held: None,
            said: None,
            sent: None,
        }
    }

    /// The newest snapshot that all topics have.
    pub fn published(&self) -> Epoch {
        let place = self.place.map(|place| place.epoch);
        place.unwrap_or_else(|| self.told.iter().copied().min().unwrap_or(0))
    }

    /// Publishes every snapshot there is, to this one.
    pub fn catch_up(&mut self, upto: Epoch) -> Result<(), PublishError> {
        let done = self.advance(upto);
        self.settle(done)
    }

    /// When the topics are to be told again how far they are.
    pub fn due(&self) -> Option<Instant> {
        let (Some(sent), Some(place)) = (self.sent, self.place) else {
            return None;
        };
        let is_told = self.told.iter().all(|told| *told == place.epoch);
        Some(match is_told {
            true => sent + REMINDER,
            false => sent + REMINDER.min(self.origin.history / 4),
        })
    }

    /// By (2).
    pub fn refresh(&mut self) -> Result<(), PublishError> {
        match self.place {
            // Never of an older one than they have.
            Some(place) if self.is_open && self.told.iter().all(|told| *told <= place.epoch) => {
                let done = self.transact(place, vec![]);
                self.settle(done)
            }
            _ => Ok(()),
        }
    }

    /// By (5).
    fn settle(&mut self, done: Result<(), PublishError>) -> Result<(), PublishError> {
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
            match self.next(upto)? {
                Next::Nothing => break,
                Next::Intent(intent) => self.publish_intent(&intent, upto)?,
                Next::Difference => match self.newest(upto)? {
                    Some(newest) => self.publish_difference(newest, upto)?,
                    None => break,
                },
            }
        }
        // That this run goes on from here, if it sends nothing for as long as it lasts.
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
        let found = self.brokers.open(&self.topics)?;
        // What we know beyond that holds only where brokers know what we told them.
        if common(&found).is_none() || found.iter().zip(&self.told).any(|(found, told)| found < told) {
            self.place = None;
        }
        (self.told, self.sent) = (found, None);
        (self.is_open, self.in_transaction) = (true, false);
        Ok(())
    }

    /// What is to be done now.
    fn next(&mut self, upto: Epoch) -> Result<Next, PublishError> {
        if self.held.is_some_and(|held| upto <= held) {
            return Ok(Next::Nothing);
        }
        self.held = None;
        let Some(told) = common(&self.told) else {
            return Ok(Next::Difference);
        };
        if self.place.is_none() {
            self.place = self.newest(told)?;
        }
        while let Some(place) = &mut self.place {
            let read = ledger::read(&self.origin.lake, place.seq + 1);
            match self.origin.runtime.block_on(read)? {
                Some(Entry::Intent(intent)) if intent.epoch > upto => return Ok(Next::Nothing), // not applied yet
                Some(Entry::Intent(intent)) if intent.epoch > told => return Ok(Next::Intent(Box::new(intent))),
                Some(Entry::Intent(Intent { seq, epoch, .. })) => *place = Place { seq, epoch },
                Some(Entry::Fence(_)) => place.seq += 1,
                None if place.epoch >= upto => return Ok(Next::Nothing),
                // Entries are dense and a newer one was put: this one is cleaned up.
                None => break,
            }
        }
        Ok(Next::Difference)
    }

    /// The newest intent of a snapshot up to this one.
    fn newest(&self, upto: Epoch) -> Result<Option<Place>, PublishError> {
        let lake = &self.origin.lake;
        self.block_on(async {
            for seq in ledger::list(lake).await?.into_iter().rev() {
                if let Some(Entry::Intent(intent)) = ledger::read(lake, seq).await?
                    && intent.epoch <= upto
                {
                    let epoch = intent.epoch;
                    return Ok(Some(Place { seq, epoch }));
                }
            }
            Ok(None)
        })
    }

    fn publish_intent(&mut self, intent: &Intent, upto: Epoch) -> Result<(), PublishError> {
        let place = Place {
            seq: intent.seq,
            epoch: intent.epoch,
        };
        let mut changed = Vec::new();
        for (index, table) in self.tables.iter().enumerate() {
            let Some(of_table) = intent.tables.iter().find(|of| of.table == table.spec.name) else {
                continue;
            };
            let changes = Changes::of_intent(&self.origin.lake, &table.spec, &table.key, of_table);
            match self.origin.runtime.block_on(changes) {
                Ok(Some(changes)) if changes.is_empty() => {}
                Ok(Some(changes)) => changed.push((index, changes)),
                Ok(None) => return self.publish_difference(place, upto),
                Err(ChangesError::Gone { .. } | ChangesError::Form { .. }) => {
                    let newest = self.newest(upto)?.unwrap_or(place);
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

    /// One transaction of changes that are there.
    fn transact(&mut self, place: Place, changed: Vec<(usize, Changes)>) -> Result<(), PublishError> {
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

    fn put(&mut self, index: usize, changes: &Changes) -> Result<(), PublishError> {
        let table = &mut self.tables[index];
        for record in table.encoder.encode(changes)? {
            self.brokers.put(&table.output.topic, &record)?;
        }
        Ok(())
    }

    fn commit(&mut self, place: Place) -> Result<(), PublishError> {
        self.brokers.commit(place.epoch, &self.topics)?;
        self.told = vec![place.epoch; self.topics.len()];
        (self.place, self.sent) = (Some(place), Some(Instant::now()));
        (self.in_transaction, self.said) = (false, None);
        Ok(())
    }

    /// By (3), in one transaction of all tables; by (4) of a newer snapshot, or not yet.
    fn publish_difference(&mut self, to: Place, upto: Epoch) -> Result<(), PublishError> {
        let misfit = match self.send_difference(to) {
            Err(PublishError::Changes(error @ ChangesError::Form { .. })) => error,
            sent => return sent,
        };
        if self.in_transaction {
            self.is_open = false;
            self.open()?;
        }
        match self.newest(upto)? {
            Some(newest) if newest.epoch > to.epoch => self.publish_difference(newest, upto),
            _ => {
                if self.said.is_none_or(|said| said.elapsed() > REMIND) {
                    let reason = &misfit as &dyn std::error::Error;
                    tracing::warn!(reason, "topics wait for rows of their tables' definition");
                    self.said = Some(Instant::now());
                }
                self.held = Some(upto);
                Ok(())
            }
        }
    }

    fn send_difference(&mut self, to: Place) -> Result<(), PublishError> {
        let runtime = self.origin.runtime.clone();
        let bases: Vec<Epoch> = match self.place {
            Some(place) => vec![place.epoch; self.tables.len()],
            None => self.told.clone(),
        };
        let leap = Leap::prepare(&self.origin.lake, &self.tables, &bases, to.epoch);
        let mut leap = runtime.block_on(leap)?;
        for table in &mut self.tables {
            table.encoder.prepare()?;
        }
        self.begin()?;
        for step in leap.take_steps() {
            let index = step.table;
            let mut told = runtime.block_on(leap.told(step, &self.tables[index]))?;
            while let Some(changes) = runtime.block_on(told.next())? {
                self.put(index, &changes)?;
            }
        }
        self.commit(to)
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.origin.runtime.block_on(future)
    }
}

/// The epoch of all topics, if they have one.
fn common(told: &[Epoch]) -> Option<Epoch> {
    let first = *told.first()?;
    (first > 0 && told.iter().all(|epoch| *epoch == first)).then_some(first)
}

/// Whose the newest entry of the ledger is; 0 where there is none.
async fn newest_generation(lake: &Lake) -> Result<u64, PublishError> {
    let Some(seq) = ledger::list(lake).await?.pop() else {
        return Ok(0);
    };
    Ok(ledger::read(lake, seq).await?.map_or(0, |entry| entry.generation()))
}
