//! Finds the records that may have caused a panic: those that workers have taken and the graph has not closed yet.
//!
//! An operator that panics does not report which record it worked on. But records of closed epochs are through the
//! graph, so only few are left. A worker notes each delivery before it goes in, and forgets it once its epoch has
//! closed. If the panic comes while a delivery goes in, that delivery alone is suspect. Consecutive notes of one
//! partition are merged, so that few are kept.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::decode::skip::Skip;
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::source::Delivery;

/// How many stretches of records ([`RecordRange`]) an error names.
const NAMED: usize = 6;
/// How many stretches of records are kept for each worker; the oldest are dropped.
const KEPT: usize = 4096;

/// Consecutive records of one partition, taken at one epoch. `first` and `last` are offsets, both inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RecordRange {
    epoch: Epoch,
    input: usize,
    feed: usize,
    partition: Arc<str>,
    first: u64,
    last: u64,
}

/// What one worker has taken.
#[derive(Debug, Default)]
struct TakenRecords {
    stretches: VecDeque<RecordRange>,
    /// Whether the newest stretch is just going into the graph.
    goes_in: bool,
}

/// See the module's header. Indexed by worker of this process.
#[derive(Debug, Default)]
pub struct SuspectBoard(Vec<Mutex<TakenRecords>>);

impl SuspectBoard {
    /// For this number of workers.
    pub fn new(workers: usize) -> SuspectBoard {
        SuspectBoard((0..workers).map(|_| Mutex::default()).collect())
    }

    /// A worker is about to put a delivery into the graph at `epoch`.
    pub fn observe_taken(&self, worker: usize, epoch: Epoch, delivery: &Delivery) {
        let offsets = &delivery.decoded.raw.offsets;
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
            return;
        };
        let mut taken = self.taken_by(worker);
        taken.goes_in = true;
        taken.stretches.push_back(RecordRange {
            epoch,
            input: delivery.input,
            feed: delivery.feed,
            partition: delivery.partition.clone(),
            first: *first,
            last: *last,
        });
    }

    /// The delivery of the last [`SuspectBoard::observe_taken`] is in the graph.
    pub fn observe_in(&self, worker: usize) {
        let mut taken = self.taken_by(worker);
        if !std::mem::take(&mut taken.goes_in) {
            return;
        }
        let Some(newest) = taken.stretches.pop_back() else {
            return;
        };
        match taken.stretches.back_mut() {
            Some(before) if before.goes_on_with(&newest) => before.last = newest.last,
            _ => taken.stretches.push_back(newest),
        }
        if taken.stretches.len() > KEPT {
            taken.stretches.pop_front();
        }
    }

    /// Every epoch before `frontier` has closed in the graph.
    pub fn observe_closed(&self, worker: usize, frontier: Epoch) {
        let stretches = &mut self.taken_by(worker).stretches;
        while stretches.front().is_some_and(|stretch| stretch.epoch < frontier) {
            stretches.pop_front();
        }
    }

    /// The records that may have caused a panic of this worker.
    pub fn named(&self, worker: usize, dataflow: &Dataflow) -> SkippableRecords {
        let own = self.taken_by(worker);
        let alone = own.stretches.back().filter(|_| own.goes_in).cloned();
        drop(own);
        let stretches: Vec<RecordRange> = match alone {
            Some(alone) => vec![alone],
            // Workers exchange rows, so this one may have worked on what another one took.
            None => (0..self.0.len())
                .flat_map(|worker| self.taken_by(worker).stretches.clone())
                .collect(),
        };
        let skip = |stretch: RecordRange| {
            let input = &dataflow.inputs[stretch.input];
            Skip {
                input: input.name.clone(),
                feed: input.feed_name(stretch.feed).to_string(),
                partition: stretch.partition.to_string(),
                offsets: stretch.first..=stretch.last,
            }
        };
        SkippableRecords(stretches.into_iter().map(skip).collect())
    }

    fn taken_by(&self, worker: usize) -> MutexGuard<'_, TakenRecords> {
        // A panic of a worker poisons the lock, but the notes are still valid.
        self.0[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordRange {
    fn goes_on_with(&self, next: &RecordRange) -> bool {
        let place = |stretch: &RecordRange| (stretch.epoch, stretch.input, stretch.feed, stretch.partition.clone());
        place(self) == place(next) && self.last < next.first
    }
}

/// Records that may have caused a panic. Displays them as `run --skip` takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippableRecords(Vec<Skip>);

impl fmt::Display for SkippableRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = "what is committed stays; to go on without the record, as a dead letter:";
        match self.0.as_slice() {
            [] => write!(
                f,
                "while it held no records of feeds; if it comes again, run with --recompute, or as before the last change of \
                 the definition"
            ),
            [one] if one.offsets.start() == one.offsets.end() => {
                write!(f, "on record {one}; {remedy} run with --skip {one}")
            }
            some => {
                let names: Vec<String> = some.iter().take(NAMED).map(Skip::to_string).collect();
                let more = match some.len() - names.len() {
                    0 => String::new(),
                    more => format!(" and {more} more stretches"),
                };
                write!(
                    f,
                    "on one of the records {}{more}; {remedy} run with --one-by-one once, which names it, and then with \
                     --skip INPUT.FEED:PARTITION:OFFSET",
                    names.join(", ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::repr::Position;
    use crate::source::{self};

    fn dataflow() -> Dataflow {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(folder.path().join("inputs")).unwrap();
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write("dataflow.toml", "name = \"t\"\n");
        let feed = "[columns]\nid = \"BIGINT\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n";
        write("inputs/orders.toml", feed);
        crate::definition::load(folder.path(), &|_| None).unwrap()
    }

    fn delivery(dataflow: &Dataflow, partition: &str, offsets: std::ops::Range<u64>) -> Delivery {
        let mut decoded = source::no_records(&dataflow.inputs[0]);
        decoded.raw.offsets = offsets.collect();
        Delivery {
            input: 0,
            feed: 0,
            partition: partition.into(),
            decoded,
            position: Position::default(),
            arrived: Instant::now(),
            epoch: None,
            room: None,
        }
    }

    #[test]
    fn what_has_not_closed_is_named_and_what_goes_in_alone() {
        let dataflow = dataflow();
        let suspects = SuspectBoard::new(2);
        let take = |worker, epoch, partition: &str, offsets| {
            suspects.observe_taken(worker, epoch, &delivery(&dataflow, partition, offsets));
        };
        let named = |worker| suspects.named(worker, &dataflow).to_string();
        assert!(named(0).contains("no records of feeds"));
        take(0, 5, "0", 0..10);
        suspects.observe_in(0);
        take(0, 5, "0", 10..20);
        suspects.observe_in(0);
        take(0, 6, "0", 20..21);
        suspects.observe_in(0);
        take(1, 6, "1", 0..3);
        suspects.observe_in(1);
        let message = named(0);
        assert!(
            message.contains("on one of the records orders.live:0:0-19, orders.live:0:20, orders.live:1:0-2; "),
            "{message}"
        );
        assert!(message.contains("--one-by-one"), "{message}");
        take(1, 6, "1", 3..4);
        assert!(named(1).contains("on record orders.live:1:3; "), "{}", named(1));
        assert!(named(1).contains("run with --skip orders.live:1:3"), "{}", named(1));
        assert!(named(0).contains("orders.live:1:3"), "another worker may hold its rows");
        suspects.observe_in(1);
        (0..2).for_each(|worker| suspects.observe_closed(worker, 6));
        assert!(
            named(0).contains("records orders.live:0:20, orders.live:1:0-3;"),
            "{}",
            named(0)
        );
        (0..2).for_each(|worker| suspects.observe_closed(worker, 7));
        assert!(named(0).contains("no records of feeds"));
        take(0, 7, "0", 0..0);
        assert!(
            named(0).contains("no records of feeds"),
            "a delivery of progress alone is about none"
        );
    }
}
