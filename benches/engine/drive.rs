//! Runs one program in one process: loads it, feeds it small epochs, and measures.

use std::cell::Cell;
use std::hash::Hasher;
use std::rc::Rc;
use std::time::{Duration, Instant};

use differential_dataflow::{AsCollection, VecCollection};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::core::InspectCore;
use timely::worker::Worker;
use twox_hash::XxHash3_64;

use crate::workload::{self, Case, Change};
use crate::{Options, memory};

/// The number of updates that are sent at once; the graph is stepped after each batch.
const BATCH: u64 = 8192;
/// The number of updates in an epoch of the load: as many as a worker of a run takes into one.
const LOAD_EPOCH: u64 = 256 * 1024;

/// A program over events and customers, for either engine.
pub trait Program {
    /// Changes of events, in the program's own types.
    type Events;
    /// Changes of customers.
    type Customers;

    fn new(worker: &mut Worker, case: Case, tally: &Tally) -> Self;
    fn events(&self, changes: &[Change]) -> Self::Events;
    fn customers(&self, keys: std::ops::Range<u64>) -> Self::Customers;
    fn send_events(&mut self, updates: Self::Events);
    fn send_customers(&mut self, updates: Self::Customers);
    fn advance(&mut self, epoch: u64);
    /// Whether epochs before the open one are not finished yet.
    fn is_behind(&self) -> bool;
}

/// Counts the output rows of a program.
#[derive(Clone, Default)]
pub struct Tally {
    rows: Rc<Cell<i64>>,
    /// The checksum of the rows; none if rows are only counted.
    checksum: Option<Rc<Cell<u64>>>,
}

/// A collection whose rows can be counted as they come out.
pub trait Counted<D> {
    /// Counts the rows; if the tally has a checksum, also adds the updates' `checksum` to it.
    fn counted(self, tally: &Tally, checksum: impl Fn(&[(D, u64, i64)]) -> u64 + 'static) -> Self;
}

impl<D: Clone + 'static> Counted<D> for VecCollection<'_, u64, D, i64> {
    fn counted(self, tally: &Tally, checksum: impl Fn(&[(D, u64, i64)]) -> u64 + 'static) -> Self {
        let tally = tally.clone();
        self.inner
            .inspect_container(move |event| {
                if let Ok((_, updates)) = event {
                    let rows: i64 = updates.iter().map(|(_, _, diff)| diff).sum();
                    tally.rows.set(tally.rows.get() + rows);
                    if let Some(sum) = &tally.checksum {
                        sum.set(sum.get().wrapping_add(checksum(updates)));
                    }
                }
            })
            .as_collection()
    }
}

/// The hash of a row, computed from its columns' texts.
pub fn text_hash<T: AsRef<str>>(columns: &[T]) -> u64 {
    let mut hasher = XxHash3_64::with_seed(0);
    for column in columns {
        hasher.write(column.as_ref().as_bytes());
        hasher.write_u8(0xFF);
    }
    hasher.finish()
}

/// The figures of one program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Updates per second during the load, by the process's own time (user and system).
    pub load_per_second: f64,
    /// Updates per second during the load, by the wall clock.
    pub load_per_second_wall: f64,
    /// Live bytes of the loaded program, per loaded record.
    pub bytes_per_record: f64,
    /// Peak RSS in bytes, minus what the process used before the program started.
    pub peak_rss: u64,
    /// The time of a small epoch, from sending its first update until its last result is out, in microseconds of the
    /// process's own time.
    pub epoch_p50: f64,
    pub epoch_p99: f64,
    /// Allocations per loaded record.
    pub allocations_per_record: f64,
    /// The number of rows at the end.
    pub rows: i64,
    /// The checksum of these rows; zero unless it was asked for.
    pub checksum: u64,
}

/// Runs a program from start to end.
pub fn drive<P: Program>(options: &Options, case: Case) -> Measured {
    let options = options.clone();
    timely::execute_directly(move |worker| {
        let tally = Tally {
            rows: Rc::default(),
            checksum: options.check.then(Rc::default),
        };
        let mut program = P::new(worker, case, &tally);
        let before = memory::now();
        let mut measured = Measured::default();
        load(&mut program, worker, &options, case, &mut measured, &before);
        measured.peak_rss = memory::peak_rss().saturating_sub(before.rss);
        rounds(&mut program, worker, &options, &mut measured);
        measured.rows = tally.rows.get();
        measured.checksum = tally.checksum.as_ref().map_or(0, |sum| sum.get());
        measured
    })
}

fn load<P: Program>(
    program: &mut P,
    worker: &mut Worker,
    options: &Options,
    case: Case,
    measured: &mut Measured,
    before: &memory::Memory,
) {
    let mut clock = Clock::default();
    let mut allocations = 0;
    let mut timed = |program: &mut P, worker: &mut Worker, work: &mut dyn FnMut(&mut P)| {
        let counted = memory::now().allocations;
        clock.run(|| {
            work(program);
            while worker.step() && program.is_behind() {}
        });
        allocations += memory::now().allocations - counted;
    };
    let mut epoch = 1;
    let mut updates = 0;
    program.advance(epoch);
    let mut from = 0;
    let customers = if case == Case::Join { options.keys() } else { 0 };
    while from < customers {
        let to = (from + BATCH).min(customers);
        let mut batch = Some(program.customers(from..to));
        timed(program, worker, &mut |program| {
            program.send_customers(batch.take().expect("a batch is sent once"));
        });
        from = to;
    }
    updates += customers;
    let mut from = 0;
    while from < options.records {
        let to = (from + BATCH).min(options.records);
        let mut batch = Some(program.events(&workload::load(options, from, to)));
        let closes = to == options.records || to / LOAD_EPOCH != from / LOAD_EPOCH;
        epoch += u64::from(closes);
        timed(program, worker, &mut |program| {
            program.send_events(batch.take().expect("a batch is sent once"));
            if closes {
                program.advance(epoch);
            }
        });
        from = to;
    }
    clock.run(|| {
        while program.is_behind() {
            worker.step();
        }
    });
    updates += options.records;
    measured.load_per_second = updates as f64 / clock.own.as_secs_f64();
    measured.load_per_second_wall = updates as f64 / clock.wall.as_secs_f64();
    // Idle steps let pending merges finish.
    for _ in 0..1_000 {
        worker.step();
    }
    measured.bytes_per_record = (memory::now().live - before.live) as f64 / updates as f64;
    measured.allocations_per_record = allocations as f64 / updates as f64;
}

fn rounds<P: Program>(program: &mut P, worker: &mut Worker, options: &Options, measured: &mut Measured) {
    let first = 1 << 32;
    program.advance(first);
    let mut times = vec![];
    for round in 0..options.rounds {
        let updates = program.events(&workload::round(options, round));
        let start = memory::own_time();
        program.send_events(updates);
        program.advance(first + round + 1);
        while program.is_behind() {
            worker.step();
        }
        times.push(memory::own_time() - start);
    }
    // The first rounds still merge what the load left, so they are not counted.
    times.drain(..times.len() / 10);
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    measured.epoch_p50 = at(0.50);
    measured.epoch_p99 = at(0.99);
}

/// Adds up wall time and the process's own time.
#[derive(Default)]
struct Clock {
    wall: Duration,
    own: Duration,
}

impl Clock {
    fn run<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (wall, own) = (Instant::now(), memory::own_time());
        let result = work();
        self.wall += wall.elapsed();
        self.own += memory::own_time() - own;
        result
    }
}
