//! What the gate makes of a transaction: whether it is whole, or will never be.

use std::time::{Duration, Instant};

use super::stash::{Id, Stash};
use super::{Gate, SETTLING};

/// What is known of a question about a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// No, unless partitions turn out to have nothing more: somebody must look at their ends.
    Ask,
}

impl Gate {
    pub(super) fn is_whole(&self, id: &Id, now: Instant) -> Verdict {
        let transaction = &self.transactions[id];
        if transaction.end.is_none() {
            return Verdict::No;
        }
        // By (5).
        if transaction.resumed {
            let settled = transaction.since + SETTLING;
            let partitions = 0..self.stashes.len();
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

    /// By (6).
    pub(super) fn must_give_up(&self, id: &Id, now: Instant) -> Verdict {
        let transaction = &self.transactions[id];
        let deadline = transaction.since + self.patience(id);
        if now < deadline {
            return Verdict::No;
        }
        let certain = if transaction.end.is_none() {
            let brings_no_more =
                |partition: usize| self.has_passed(partition, id, deadline) || self.is_over(partition, id, deadline);
            self.has_no_end(id, deadline) && transaction.segments.keys().copied().all(brings_no_more)
        } else if (0..self.stashes.len()).any(|partition| self.is_stuck_behind(partition, id)) {
            // What a partition that is full with it would bring goes on as it comes instead.
            return Verdict::No;
        } else if transaction.resumed {
            self.have_passed(0..self.stashes.len(), id, deadline)
        } else {
            let mut lacking = self.lacking(id);
            lacking.all(|topic| {
                let of_topic = self.stashes.iter().enumerate().filter(|(_, s)| s.topic == *topic);
                self.have_passed(of_topic.map(|(partition, _)| partition), id, deadline)
            })
        };
        match certain {
            true => Verdict::Yes,
            false => Verdict::Ask,
        }
    }

    /// How long a transaction may lack something: by (8) less, where it is old.
    pub(super) fn patience(&self, id: &Id) -> Duration {
        match self.is_history(id) {
            true => self.wait.min(SETTLING),
            false => self.wait,
        }
    }

    /// Topics that have not brought as many events as the END says.
    fn lacking<'a>(&'a self, id: &Id) -> impl Iterator<Item = &'a super::Topic> {
        let transaction = &self.transactions[id];
        let seen_of = |topic: &super::Topic| -> u64 {
            let seen = transaction.seen.iter();
            let of_topic = seen.filter(|(partition, _)| self.stashes[**partition].topic == *topic);
            of_topic.map(|(_, (count, _))| count).sum()
        };
        let expected = transaction.expected.iter();
        expected
            .filter(move |(topic, events)| seen_of(topic) < **events)
            .map(|(topic, _)| topic)
    }

    fn have_passed(&self, mut partitions: impl Iterator<Item = usize>, id: &Id, at: Instant) -> bool {
        partitions.all(|partition| self.has_passed(partition, id, at))
    }

    /// Whether a partition brings nothing more of a transaction: all was read that was there at that time, or it holds
    /// something that is behind it.
    fn has_passed(&self, partition: usize, id: &Id, at: Instant) -> bool {
        let stash = &self.stashes[partition];
        stash.ends.is_read(at) || self.holds_later(stash, id)
    }

    /// Whether a partition holds a transaction that is behind this one in the order of commits. Records of none say nothing:
    /// a tombstone follows each delete, amid its transaction.
    fn holds_later(&self, stash: &Stash, id: &Id) -> bool {
        let number = |id: &Id| self.transactions.get(id)?.end.as_ref().map(|end| end.number);
        let Some(own) = number(id) else {
            // What is behind it was written later, whatever it is.
            return stash.newest().next().is_some_and(|newest| newest != id);
        };
        let mut open = false;
        for other in stash.newest() {
            if other == id {
                return open;
            }
            match number(other) {
                Some(number) if number > own => return true,
                Some(_) => return open,
                // Its END is behind all that are read, or before them, and then it is before this one.
                None => open = true,
            }
        }
        open && stash.told
    }

    /// Whether a transaction's END will not come: all markers are read, or there is something behind it that has one.
    fn has_no_end(&self, id: &Id, at: Instant) -> bool {
        let transaction = &self.transactions[id];
        let ended = |other: &Id| {
            let other = self.transactions.get(other);
            other.is_some_and(|other| other.end.is_some() && !other.resumed)
        };
        let mut partitions = transaction.segments.keys().map(|partition| &self.stashes[*partition]);
        if self.marker_ends.is_read(at) {
            return true;
        }
        // Where nothing more can be read, what is next lacks what is behind this one: this is before all ENDs that came.
        let is_still = |partition| self.is_full(partition) || self.stashes[partition].ends.is_read(at);
        if self.are_markers_full() && (0..self.stashes.len()).all(is_still) {
            return true;
        }
        partitions.any(|stash| stash.newest().take_while(|other| *other != id).any(ended))
    }

    /// Whether a partition that is full with a transaction, and so is not read on, would bring nothing more of it as far as
    /// can be known: its source has begun others since, or nothing was written for the wait.
    fn is_over(&self, partition: usize, id: &Id, at: Instant) -> bool {
        let others = self
            .began
            .as_ref()
            .is_some_and(|(began, other)| *began >= at && other != id);
        self.is_full(partition) && (others || self.stashes[partition].ends.is_silent(at, self.wait))
    }

    /// Whether a full partition begins with a transaction.
    pub(super) fn is_stuck_behind(&self, partition: usize, id: &Id) -> bool {
        self.is_full(partition) && self.stashes[partition].head() == Some(id)
    }
}
