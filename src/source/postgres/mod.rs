//! The `postgres` feed: tables by logical replication (`pgoutput`), straight from PostgreSQL.
//!
//! ```text
//! slot --transaction by transaction--> reader: a record for each change --one epoch for each transaction--> workers
//!   ^                                                                                                          |
//!   '------------------ how far a committed snapshot has come: no more is forgotten at the source -------------'
//! ```
//!
//! 1. Feeds of one address and slot share a connection, in process 0: a transaction is told once, with all that it changed,
//!    and goes into one epoch ([`super::Together`]). What was committed together is never apart in a snapshot.
//! 2. A feed's records are numbered; its position names, in its tag, the place in PostgreSQL's log before which all
//!    transactions are taken ([`lsn::Reached`]). All feeds of a slot are told each step, so that they never differ. Reading
//!    goes on there: the server passes over what commits before it, so nothing is missing or twice.
//! 3. The server is told only of places that a committed snapshot holds; what is behind them it keeps. A slot that is gone,
//!    or was moved behind our place by another, is not read: what is missing could not be named. Its feeds wait with the cause.
//! 4. First rows: a temporary slot is made beside the lasting one, which is there before it. With it comes a view of the
//!    database as of a place in its log. Tables are read by that view, and the stream is taken from that place on. Where
//!    other tables of the slot are read already, the stream is taken up to that place first: then all are at one place.
//!    A feed that was read before, by another slot or up to another place than the slot's other feeds (it was taken out of
//!    the definition for a while), or without one of its tables, begins with them again, behind a truncation of its input.
//!    Until then its position stays what it was. That is refused where the input has other feeds, whose rows would go with it.
//! 5. All first rows go into one epoch. So no snapshot holds a part of them, and a run that ends amid them begins with them
//!    anew, by a new view; the lasting slot, never told of anything, has kept all since. The other way, snapshots of half
//!    the rows whose rest is taken back after a crash, would show readers tables that never were. The price is memory: until
//!    the epoch closes, what the graph holds of the rows is not yet in files.
//! 6. A transaction goes on as it comes once it is larger than a batch, into an epoch that stays open for it. If the
//!    connection breaks then, it is told again from its beginning, and as many changes are passed over as were handed on.
//!    If readers are to stop then, or the server stays away, the run fails rather than commit half of it.
//! 7. Back-pressure: one batch for each feed is held here, the rest waits in the socket and at the server. An epoch is given
//!    [`EPOCH_ROWS`](super::transactions::EPOCH_ROWS) records, then the next is waited for, which the graph must be ready for. Meanwhile the server hears of
//!    us at least every ten seconds, however long workers take nothing.
//!
//! Records are Debezium's envelopes in JSON ([`envelope`]): decoding, Bronze, rebuilds and backfills are those of
//! `debezium-json`. `postgres-protocol` has the wire's messages and logins; around it are one blocking client ([`client`])
//! for SQL, first rows and the stream in one thread, and pgoutput's messages ([`output`]), which it does not know.
//! tokio-postgres cannot start a stream; `pgwire-replication` is sound (it answers the server while its receiver lags) but
//! runs none of the queries by which first rows and stream share a view, so that a second client would be needed beside it;
//! `pg_walstream` is many times as much code as all of this.

mod catalog;
mod check;
mod client;
mod envelope;
mod lsn;
mod output;
mod reader;
mod tls;
mod trouble;
mod types;

pub use check::{Misplaced, check};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::outlet::Hand;
use super::readers::Starter;
use super::{PartitionId, Position, Progress, SourceError};
use crate::definition::{Postgres, PostgresUrl};
use lsn::Reached;

/// What the newest snapshot says of a feed.
struct Known {
    /// How many records came of it by its slot.
    next: u64,
    /// How far it was read by its slot; none: not at all, or another slot has come further since.
    reached: Option<Reached>,
    /// Whether it was read by another slot before.
    otherwise: bool,
}

impl Known {
    fn of(hand: &Hand, slot: &str, resume: &Progress) -> Known {
        let (own, others): (Vec<_>, Vec<_>) = hand.positions(resume).partition(|(partition, _)| *partition == slot);
        let own = own.first().map(|(_, position)| *position);
        let reached = own.and_then(Reached::of);
        let further = others.iter().filter_map(|(_, position)| Reached::of(position));
        let further = further.map(|other| other.lsn).max();
        Known {
            next: own.map_or(0, |position| position.next),
            reached: reached.filter(|own| further.is_none_or(|other| other <= own.lsn)),
            otherwise: !others.is_empty(),
        }
    }
}

/// Feeds by their slots, before they start.
#[derive(Default)]
pub(crate) struct Slots(Vec<Feeds>);

struct Feeds {
    url: PostgresUrl,
    slot: String,
    members: Vec<(Hand, Postgres)>,
    committed: Arc<AtomicU64>,
}

/// What a slot must keep.
pub(crate) struct Kept {
    /// The feeds' inputs and names.
    feeds: Vec<(String, String)>,
    /// Where the newest snapshot has come to; 0: nowhere yet.
    committed: Arc<AtomicU64>,
}

impl Kept {
    pub fn observe_committed(&self, progress: &[(PartitionId, Position)]) {
        let ours = |id: &PartitionId| {
            self.feeds
                .iter()
                .any(|(input, feed)| *input == id.input && *feed == id.feed)
        };
        let reached = progress.iter().filter(|(id, _)| ours(id));
        // By (2), all of one snapshot are the same.
        if let Some(lsn) = reached
            .filter_map(|(_, position)| Reached::of(position))
            .map(|r| r.lsn.0)
            .max()
        {
            self.committed.fetch_max(lsn, Ordering::AcqRel);
        }
    }
}

impl Slots {
    /// A feed will be read by this hand.
    pub fn add(&mut self, hand: Hand, postgres: &Postgres) {
        if hand.share.process != 0 {
            hand.gauges.set_exhausted(true);
            return;
        }
        let slot = postgres.slot(&hand.dataflow.name);
        let member = (hand, postgres.clone());
        match self
            .0
            .iter_mut()
            .find(|feeds| feeds.url == postgres.url && feeds.slot == slot)
        {
            Some(feeds) => feeds.members.push(member),
            None => self.0.push(Feeds {
                url: postgres.url.clone(),
                slot,
                members: vec![member],
                committed: Arc::default(),
            }),
        }
    }

    /// What is to be told of committed snapshots.
    pub fn kept(&self) -> Vec<Kept> {
        let of = |feeds: &Feeds| Kept {
            feeds: feeds
                .members
                .iter()
                .map(|(hand, _)| (hand.input().name.clone(), hand.feed().name.clone()))
                .collect(),
            committed: feeds.committed.clone(),
        };
        self.0.iter().map(of).collect()
    }

    /// Starts a thread for each slot.
    pub fn start(self, starter: &mut Starter, resume: &Progress) -> Result<(), SourceError> {
        for feeds in self.0 {
            let (first, _) = feeds.members.first().expect("a slot has a feed");
            let first = first.clone();
            let (options, decoders) = (starter.options.clone(), starter.decoders.clone());
            let known: Vec<Known> = feeds
                .members
                .iter()
                .map(|(hand, _)| Known::of(hand, &feeds.slot, resume))
                .collect();
            starter.spawn(&first, move |_| {
                let members = feeds.members.into_iter().zip(known);
                let members = members.map(|((hand, postgres), known)| {
                    let decode = decoders(hand.input, hand.feed);
                    reader::Member::new(hand, postgres, decode, known)
                });
                reader::Reader::new(feeds.url, feeds.slot, members.collect(), feeds.committed, options).read()
            })?;
        }
        Ok(())
    }
}
