//! The `postgres` feed: tables by logical replication (`pgoutput`), straight from PostgreSQL.
//!
//! ```text
//! slot --transaction by transaction--> reader: a record for each change --one epoch for each transaction--> workers
//!   ^                                                                                                          |
//!   '------------------ how far a committed snapshot has come: the source forgets nothing behind that ---------'
//! ```
//!
//! 1. Feeds with the same address and slot share a connection, in process 0: the server sends a transaction once,
//!    with all its changes, and it goes into one epoch ([`super::OpenEpochDeliveries`]). So one snapshot holds all
//!    changes of a transaction.
//! 2. A feed's records are numbered. The tag of its position is the LSN before which all transactions were read
//!    ([`lsn::SlotPosition`]). All feeds of a slot get each step of progress, so that their LSNs never differ.
//!    Reading resumes there: the server skips transactions that commit before it, so nothing is lost or read twice.
//! 3. The server is only told LSNs that a committed snapshot holds; it retains everything behind them. If a slot is
//!    gone, or another client moved it past our LSN, it is not read, because the missing changes could not be
//!    identified. Its feeds wait and report the cause.
//! 4. Initial copy: a temporary slot is created beside the permanent one, which exists before it. It exports a
//!    snapshot of the database as of an LSN. The tables are read in that snapshot, and the stream is read from that
//!    LSN on. If other tables of the slot were read already, the stream is read up to that LSN first, so that all are
//!    at one LSN. A feed starts with the copy again, after a truncation of its input, if it was read before by
//!    another slot, or up to another LSN than the slot's other feeds (because the feed was out of the definition for
//!    a while), or without one of its tables (because that table was). Until then its position stays unchanged. This
//!    is refused if the input has other feeds, whose rows the truncation would delete.
//! 5. The whole initial copy goes into one epoch. So no snapshot holds a part of it, and a run that ends in the
//!    middle of it starts it again with a new snapshot of the database; the permanent slot was never confirmed and
//!    has retained everything since. The alternative, to commit parts of the copy and retract them after a crash,
//!    would show readers tables that never existed. The price is memory: until the epoch closes, the rows that the
//!    graph holds are not yet in files.
//! 6. A transaction larger than a batch is handed over while it arrives, into an epoch that stays open for it. If the
//!    connection then breaks, the server sends it again from its beginning, and the changes already handed over are
//!    skipped. If readers are then to stop, or the server stays unreachable, the run fails rather than commit half of
//!    it.
//! 7. Back-pressure: one batch for each feed is held here, and the rest waits in the socket and at the server. An
//!    epoch gets at most about [`EPOCH_ROWS`](super::transactions::EPOCH_ROWS) records; then the reader waits for the
//!    next epoch, for which the graph must be ready. Meanwhile it sends the server a status at least every ten
//!    seconds, however long workers accept nothing.
//!
//! Records are Debezium's envelopes in JSON ([`envelope`]): decoding, Bronze, rebuilds and backfills are those of
//! `debezium-json`. The crate `postgres-protocol` has the wire's messages and logins. Around it are one blocking
//! client ([`client`]) for SQL, the initial copy and the stream in one thread, and a parser for pgoutput's messages
//! ([`output`]), which the crate lacks. Alternatives: tokio-postgres cannot start a stream. `pgwire-replication` is
//! sound (it answers the server while its receiver lags) but cannot run the queries by which the copy and the stream
//! share a snapshot, so that a second client would be needed beside it. `pg_walstream` is many times as much code as
//! all of this.

mod catalog;
mod check;
mod client;
mod connector;
mod envelope;
mod error;
mod lsn;
mod output;
mod reader;
mod tls;
mod types;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::SourceError;
use super::feed_handle::FeedHandle;
use super::starter::{FeedGroup, RunningFeeds, Starter};
use crate::definition::{Postgres, PostgresUrl};
use crate::repr::{FeedPositions, PartitionId, Position};
use lsn::SlotPosition;

/// What the newest snapshot holds of a feed.
struct KnownProgress {
    /// How many records were read through its slot.
    next: u64,
    /// How far it was read through its slot; none: not at all, or another slot has come further since.
    reached: Option<SlotPosition>,
    /// Whether it was read through another slot before.
    had_other_slot: bool,
}

impl KnownProgress {
    fn of_feed(handle: &FeedHandle, slot: &str, resume: &FeedPositions) -> KnownProgress {
        let (own, others): (Vec<_>, Vec<_>) = handle.positions(resume).partition(|(partition, _)| *partition == slot);
        let own = own.first().map(|(_, position)| *position);
        let reached = own.and_then(SlotPosition::from_position);
        let further = others
            .iter()
            .filter_map(|(_, position)| SlotPosition::from_position(position));
        let further = further.map(|other| other.lsn).max();
        KnownProgress {
            next: own.map_or(0, |position| position.next),
            reached: reached.filter(|own| further.is_none_or(|other| other <= own.lsn)),
            had_other_slot: !others.is_empty(),
        }
    }
}

/// The feeds of a run by slot, before they start.
#[derive(Default)]
pub(crate) struct FeedsBySlot(Vec<SlotFeeds>);

struct SlotFeeds {
    url: PostgresUrl,
    slot: String,
    members: Vec<(FeedHandle, Postgres)>,
    committed: Arc<AtomicU64>,
}

/// For the slots of a run, what the server must retain.
struct RetainedSlots(Vec<SlotRetention>);

/// For one slot, what the server must retain.
struct SlotRetention {
    /// The feeds, by input name and feed name.
    feeds: Vec<(String, String)>,
    /// The LSN that the newest snapshot holds; 0 if none does.
    committed: Arc<AtomicU64>,
}

impl RunningFeeds for RetainedSlots {
    fn observe_committed(&self, progress: &[(PartitionId, Position)]) {
        self.0.iter().for_each(|slot| slot.observe_committed(progress));
    }
}

impl SlotRetention {
    fn observe_committed(&self, progress: &[(PartitionId, Position)]) {
        let ours = |id: &PartitionId| {
            self.feeds
                .iter()
                .any(|(input, feed)| *input == id.input && *feed == id.feed)
        };
        let reached = progress.iter().filter(|(id, _)| ours(id));
        // By (2), all positions in one snapshot have the same LSN.
        if let Some(lsn) = reached
            .filter_map(|(_, position)| SlotPosition::from_position(position))
            .map(|r| r.lsn.0)
            .max()
        {
            self.committed.fetch_max(lsn, Ordering::AcqRel);
        }
    }
}

impl FeedsBySlot {
    /// Adds the handle through which a feed will be read.
    pub fn add(&mut self, handle: FeedHandle, postgres: &Postgres) {
        if handle.share.process != 0 {
            handle.gauges.set_exhausted(true);
            return;
        }
        let slot = postgres.slot(&handle.dataflow.name);
        let member = (handle, postgres.clone());
        match self
            .0
            .iter_mut()
            .find(|feeds| feeds.url == postgres.url && feeds.slot == slot)
        {
            Some(feeds) => feeds.members.push(member),
            None => self.0.push(SlotFeeds {
                url: postgres.url.clone(),
                slot,
                members: vec![member],
                committed: Arc::default(),
            }),
        }
    }

    /// The receivers of committed progress.
    fn retained_slots(&self) -> RetainedSlots {
        let retention = |feeds: &SlotFeeds| SlotRetention {
            feeds: feeds
                .members
                .iter()
                .map(|(handle, _)| (handle.input().name.clone(), handle.feed().name.clone()))
                .collect(),
            committed: feeds.committed.clone(),
        };
        RetainedSlots(self.0.iter().map(retention).collect())
    }
}

impl FeedGroup for FeedsBySlot {
    /// Starts a thread for each slot.
    fn start(
        self: Box<Self>,
        starter: &mut Starter,
        resume: &FeedPositions,
    ) -> Result<Option<Box<dyn RunningFeeds>>, SourceError> {
        let retained = self.retained_slots();
        for feeds in self.0 {
            let (first, _) = feeds.members.first().expect("a slot has a feed");
            let first = first.clone();
            let (options, decoders) = (starter.options.clone(), starter.decoders.clone());
            let known: Vec<KnownProgress> = feeds
                .members
                .iter()
                .map(|(handle, _)| KnownProgress::of_feed(handle, &feeds.slot, resume))
                .collect();
            starter.spawn(&first, move |_| {
                let members = feeds.members.into_iter().zip(known);
                let members = members.map(|((handle, postgres), known)| {
                    let decode = decoders(handle.input, handle.feed);
                    reader::SlotMember::new(handle, postgres, decode, known)
                });
                reader::PostgresReader::new(feeds.url, feeds.slot, members.collect(), feeds.committed, options).read()
            })?;
        }
        Ok(Some(Box::new(retained)))
    }
}
