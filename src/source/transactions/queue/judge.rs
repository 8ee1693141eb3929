//! Judges a transaction: whether it is complete, and whether it will never be.

use std::time::{Duration, Instant};

use super::backlog::{PartitionBacklog, TransactionId};
use super::{SETTLING, TransactionQueue};

/// The answer to a question about a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// Unknown until the present ends of partitions are known, so readers must be asked.
    Ask,
}

impl TransactionQueue {
    pub(super) fn is_whole(&self, id: &TransactionId, now: Instant) -> Verdict {
        let transaction = &self.transactions[id];
        if transaction.end.is_none() {
            return Verdict::No;
        }
        // By (5).
        if transaction.resumed {
            let settled = transaction.since + SETTLING;
            let partitions = 0..self.backlogs.len();
            return match self.have_passed(partitions, id, settled) {
                true => Verdict::Yes,
                false if now >= settled => Verdict::Ask,
                false => Verdict::No,
            };
        }
        match self.lacking(id).next() {
            None => Verdict::Yes,
            Some(_) => Verdict::No,
        }
    }

    /// Whether to give up a transaction, by (6).
    pub(super) fn must_give_up(&self, id: &TransactionId, now: Instant) -> Verdict {
        let transaction = &self.transactions[id];
        let deadline = transaction.since + self.patience(id);
        if now < deadline {
            return Verdict::No;
        }
        let certain = if transaction.end.is_none() {
            let brings_no_more =
                |partition: usize| self.has_passed(partition, id, deadline) || self.is_over(partition, id, deadline);
            self.has_no_end(id, deadline) && transaction.segments.keys().copied().all(brings_no_more)
        } else if (0..self.backlogs.len()).any(|partition| self.is_stuck_behind(partition, id)) {
            // A partition that is full with this transaction cannot deliver the rest, so the transaction is streamed
            // instead, by (7).
            return Verdict::No;
        } else if transaction.resumed {
            self.have_passed(0..self.backlogs.len(), id, deadline)
        } else {
            let mut lacking = self.lacking(id);
            lacking.all(|topic| {
                let of_topic = self.backlogs.iter().enumerate().filter(|(_, s)| s.topic == *topic);
                self.have_passed(of_topic.map(|(partition, _)| partition), id, deadline)
            })
        };
        match certain {
            true => Verdict::Yes,
            false => Verdict::Ask,
        }
    }

    /// How long a transaction may remain incomplete; by (8), less if it is old.
    pub(super) fn patience(&self, id: &TransactionId) -> Duration {
        match self.is_history(id) {
            true => self.wait.min(SETTLING),
            false => self.wait,
        }
    }

    /// The topics that have not delivered as many events as the END states.
    fn lacking<'a>(&'a self, id: &TransactionId) -> impl Iterator<Item = &'a super::FeedTopic> {
        let transaction = &self.transactions[id];
        let seen_of = |topic: &super::FeedTopic| -> u64 {
            let seen = transaction.seen.iter();
            let of_topic = seen.filter(|(partition, _)| self.backlogs[**partition].topic == *topic);
            of_topic.map(|(_, (count, _))| count).sum()
        };
        let expected = transaction.expected.iter();
        expected
            .filter(move |(topic, events)| seen_of(topic) < **events)
            .map(|(topic, _)| topic)
    }

    fn have_passed(&self, mut partitions: impl Iterator<Item = usize>, id: &TransactionId, at: Instant) -> bool {
        partitions.all(|partition| self.has_passed(partition, id, at))
    }

    /// Whether a partition delivers nothing more of a transaction, because everything that existed at time `at` was
    /// read, or because the partition holds something later.
    fn has_passed(&self, partition: usize, id: &TransactionId, at: Instant) -> bool {
        let backlog = &self.backlogs[partition];
        backlog.ends.is_read(at) || self.holds_later(backlog, id)
    }

    /// Whether a partition holds a transaction that follows this one in the order of commits. Records without a
    /// transaction prove nothing, because a tombstone follows each delete in the middle of its transaction.
    fn holds_later(&self, backlog: &PartitionBacklog, id: &TransactionId) -> bool {
        let number = |id: &TransactionId| self.transactions.get(id)?.end.as_ref().map(|end| end.number);
        let Some(own) = number(id) else {
            // Without an END, the last record of the partition decides: if it is another transaction's, that is
            // later.
            return backlog.newest().next().is_some_and(|newest| newest != id);
        };
        let mut open = false;
        for other in backlog.newest() {
            if other == id {
                return open;
            }
            match number(other) {
                Some(number) if number > own => return true,
                Some(_) => return open,
                // Without an END, it is later than all ENDs read, or earlier than them and so than this transaction.
                None => open = true,
            }
        }
        open && backlog.released_ended
    }

    /// Whether a transaction will never have an END, because all markers are read or a later transaction has its END.
    fn has_no_end(&self, id: &TransactionId, at: Instant) -> bool {
        let transaction = &self.transactions[id];
        let ended = |other: &TransactionId| {
            let other = self.transactions.get(other);
            other.is_some_and(|other| other.end.is_some() && !other.resumed)
        };
        let mut partitions = transaction.segments.keys().map(|partition| &self.backlogs[*partition]);
        if self.marker_ends.is_read(at) {
            return true;
        }
        // If no partition can be read further, the next ENDs lack records that lie behind this transaction. So this
        // one precedes all ENDs that arrived, and its own was not read.
        let is_still = |partition| self.is_full(partition) || self.backlogs[partition].ends.is_read(at);
        if self.are_markers_full() && (0..self.backlogs.len()).all(is_still) {
            return true;
        }
        partitions.any(|backlog| backlog.newest().take_while(|other| *other != id).any(ended))
    }

    /// Whether a partition that is full with a transaction, and is therefore not read, would deliver nothing more of
    /// it, as far as can be known: its source has begun other transactions since, or nothing was written for `wait`.
    fn is_over(&self, partition: usize, id: &TransactionId, at: Instant) -> bool {
        let others = self
            .began
            .as_ref()
            .is_some_and(|(began, other)| *began >= at && other != id);
        self.is_full(partition) && (others || self.backlogs[partition].ends.is_silent(at, self.wait))
    }

    /// Whether a full partition begins with this transaction.
    pub(super) fn is_stuck_behind(&self, partition: usize, id: &TransactionId) -> bool {
        self.is_full(partition) && self.backlogs[partition].head() == Some(id)
    }
}
