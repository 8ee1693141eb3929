//! Reports how many bytes and records each operator of the graph holds.
//!
//! Nothing is counted while the graph works. Instead [`held`], called on the worker's own thread, walks over the
//! batches of every trace, of which there are a few dozen, and adds up what their containers have allocated. For
//! batches at rest that is exact, except for the allocator's rounding. Two things are left out: merges under way,
//! which take up to as much memory again as the batches that they merge, and updates of epochs that are still open.
//! Queues of single rows are estimated ([`about`]).
//!
//! Differential creates a trace from the operator's number alone, so a registry cannot be passed to it. But a timely
//! worker is a thread, so traces register in a thread-local by that number, and [`name`] adds the operator's name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::rc::Rc;

use differential_dataflow::logging::Logger;
use differential_dataflow::trace::implementations::Layout;
use differential_dataflow::trace::implementations::ord_neu::{OrdKeyBatch, OrdValBatch};
use differential_dataflow::trace::{BatchReader, ExertionLogic, Trace, TraceReader};
use timely::dataflow::operators::generic::OperatorInfo;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;
use timely::scheduling::activate::Activator;

use super::{Offsets, Row};

/// How much memory something holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Footprint {
    /// Allocated bytes.
    pub bytes: u64,
    /// Updates or rows.
    pub records: u64,
    /// Whether `bytes` is an estimate.
    pub estimated: bool,
}

impl AddAssign for Footprint {
    fn add_assign(&mut self, other: Footprint) {
        self.bytes += other.bytes;
        self.records += other.records;
        self.estimated |= other.estimated;
    }
}

/// A type that owns memory on the heap.
pub trait Heap {
    /// The bytes allocated for the value, excluding the value itself.
    fn heap(&self) -> usize;
}

impl<T: Copy> Heap for Vec<T> {
    fn heap(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
}

impl<L> Heap for OrdValBatch<L>
where
    L: Layout<
            KeyContainer: Heap,
            ValContainer: Heap,
            TimeContainer: Heap,
            DiffContainer: Heap,
            OffsetContainer = Offsets,
        >,
{
    fn heap(&self) -> usize {
        let (vals, upds) = (&self.storage.vals, &self.storage.upds);
        let offsets = vals.offs.heap() + upds.offs.heap();
        self.storage.keys.heap() + vals.vals.heap() + upds.times.heap() + upds.diffs.heap() + offsets
    }
}

impl<L> Heap for OrdKeyBatch<L>
where
    L: Layout<KeyContainer: Heap, TimeContainer: Heap, DiffContainer: Heap, OffsetContainer = Offsets>,
{
    fn heap(&self) -> usize {
        let upds = &self.storage.upds;
        self.storage.keys.heap() + upds.times.heap() + upds.diffs.heap() + upds.offs.heap()
    }
}

impl<B: Heap> Heap for Rc<B> {
    fn heap(&self) -> usize {
        // An `Rc` also allocates its two counts.
        2 * size_of::<usize>() + size_of::<B>() + B::heap(self)
    }
}

/// The estimated footprint of rows in vectors: the rows of a vector are assumed to be as long, on average, as its
/// first few.
pub fn about<'a, T: 'a>(vectors: impl Iterator<Item = &'a Vec<T>>, row: impl Fn(&T) -> &Row) -> Footprint {
    const LOOKED_AT: usize = 16;
    let mut all = Footprint::default();
    for vector in vectors {
        let looked_at = vector.len().min(LOOKED_AT);
        let heap: usize = vector[..looked_at].iter().map(|of| row(of).heap()).sum();
        let heap = heap * vector.len() / looked_at.max(1);
        all.bytes += (vector.capacity() * size_of::<T>() + heap) as u64;
        all.records += vector.len() as u64;
    }
    all.estimated = all.records > 0;
    all
}

/// Returns a footprint, or `None` once the holder is gone.
type FootprintFn = Box<dyn Fn() -> Option<Footprint>>;

thread_local! {
    static HOLDERS: RefCell<Vec<(usize, FootprintFn)>> = const { RefCell::new(Vec::new()) };
    static NAMES: RefCell<BTreeMap<usize, String>> = const { RefCell::new(BTreeMap::new()) };
}

/// Names an operator of this thread's worker.
pub fn name(operator: usize, name: &str) {
    NAMES.with_borrow_mut(|names| names.insert(operator, name.to_string()));
}

/// Registers something that an operator of this thread's worker holds. `weigh` returns `None` once it is gone.
pub fn note(operator: usize, weigh: impl Fn() -> Option<Footprint> + 'static) {
    HOLDERS.with_borrow_mut(|holders| holders.push((operator, Box::new(weigh))));
}

/// Footprints by number and name of the operator. Numbers are the same in every worker; several operators may share a
/// name.
pub type Footprints = BTreeMap<(usize, String), Footprint>;

/// The footprints of the operators of this thread's worker.
pub fn held() -> Footprints {
    let mut all = Footprints::new();
    NAMES.with_borrow(|names| {
        HOLDERS.with_borrow_mut(|holders| {
            holders.retain(|(operator, weigh)| {
                let Some(footprint) = weigh() else { return false };
                let name = names.get(operator).map_or("unnamed", String::as_str);
                *all.entry((*operator, name.to_string())).or_default() += footprint;
                true
            });
        });
    });
    all
}

/// A trace whose footprint can be taken while its operator uses it.
pub struct WatchedTrace<Tr: TraceReader> {
    trace: Rc<RefCell<Tr>>,
    /// Copies of the trace's compaction frontiers, because a borrow of the shared trace could not be returned.
    logical: Antichain<Tr::Time>,
    physical: Antichain<Tr::Time>,
}

impl<Tr: TraceReader> TraceReader for WatchedTrace<Tr> {
    type Time = Tr::Time;
    type Batch = Tr::Batch;

    fn batches_through(&mut self, upper: AntichainRef<'_, Tr::Time>) -> Option<Vec<Tr::Batch>> {
        self.trace.borrow_mut().batches_through(upper)
    }
    fn set_logical_compaction(&mut self, frontier: AntichainRef<'_, Tr::Time>) {
        self.trace.borrow_mut().set_logical_compaction(frontier);
        self.logical = frontier.to_owned();
    }
    fn get_logical_compaction(&mut self) -> AntichainRef<'_, Tr::Time> {
        self.logical.borrow()
    }
    fn set_physical_compaction(&mut self, frontier: AntichainRef<'_, Tr::Time>) {
        self.trace.borrow_mut().set_physical_compaction(frontier);
        self.physical = frontier.to_owned();
    }
    fn get_physical_compaction(&mut self) -> AntichainRef<'_, Tr::Time> {
        self.physical.borrow()
    }
    fn map_batches<F: FnMut(&Tr::Batch)>(&self, f: F) {
        self.trace.borrow().map_batches(f);
    }
}

impl<Tr: Trace + 'static> Trace for WatchedTrace<Tr>
where
    Tr::Batch: Heap,
{
    fn new(info: OperatorInfo, logging: Option<Logger>, activator: Option<Activator>) -> Self {
        let operator = info.global_id;
        let mut trace = Tr::new(info, logging, activator);
        let (logical, physical) = (
            trace.get_logical_compaction().to_owned(),
            trace.get_physical_compaction().to_owned(),
        );
        let trace = Rc::new(RefCell::new(trace));
        let weak = Rc::downgrade(&trace);
        note(operator, move || {
            let trace = weak.upgrade()?;
            let mut footprint = Footprint::default();
            trace.borrow().map_batches(|batch| {
                footprint.bytes += batch.heap() as u64;
                footprint.records += batch.len() as u64;
            });
            Some(footprint)
        });
        WatchedTrace {
            trace,
            logical,
            physical,
        }
    }
    fn exert(&mut self) {
        self.trace.borrow_mut().exert();
    }
    fn set_exert_logic(&mut self, logic: ExertionLogic) {
        self.trace.borrow_mut().set_exert_logic(logic);
    }
    fn insert(&mut self, batch: Tr::Batch) {
        self.trace.borrow_mut().insert(batch);
    }
    fn close(&mut self) {
        self.trace.borrow_mut().close();
    }
}
