//! What an operator over several arrangements knows of each of them: batches come in at different moments, and are
//! answered together, up to the moment that all have reached.

use std::collections::VecDeque;

use differential_dataflow::operators::arrange::TraceAgent;
use differential_dataflow::trace::{BatchReader, TraceReader};
use timely::PartialOrder;
use timely::progress::Antichain;

use crate::repr::Epoch;

/// One arrangement.
///
/// 1. Before `lower` everything has been answered, and batches end there: the trace is held uncompacted at it.
/// 2. `queue` is what came behind `lower`, up to `upper`; a batch that ends after the moment that all
///    have reached stays there, partly answered.
pub(super) struct Input<Tr: TraceReader<Time = Epoch>> {
    trace: TraceAgent<Tr>,
    queue: VecDeque<Tr::Batch>,
    lower: Antichain<Epoch>,
    upper: Antichain<Epoch>,
}

impl<Tr: TraceReader<Time = Epoch> + 'static> Input<Tr> {
    /// Of a trace from whose stream nothing has been received.
    pub fn new(trace: TraceAgent<Tr>) -> Self {
        Input {
            trace,
            queue: VecDeque::new(),
            lower: Antichain::from_elem(Epoch::MIN),
            upper: Antichain::from_elem(Epoch::MIN),
        }
    }

    /// Takes the next batch of the arrangement's stream.
    pub fn receive(&mut self, batch: Tr::Batch) {
        // An empty batch may have been seen in the trace before it comes.
        if !PartialOrder::less_equal(batch.upper(), &self.upper) {
            self.upper.clone_from(batch.upper());
            self.queue.push_back(batch);
        }
    }

    /// The moment before which every update has been received.
    pub fn reached(&mut self) -> Epoch {
        // Of empty batches only the trace knows.
        self.trace.advance_upper(&mut self.upper);
        moment(&self.upper)
    }

    /// All batches there are, and how many of them begin before `from`, before which everything has been answered:
    /// only those hold updates before it.
    pub fn batches(&mut self, from: Epoch) -> (Vec<Tr::Batch>, Queued) {
        let mut batches = self
            .trace
            .batches_through(self.lower.borrow())
            .expect("the trace is held uncompacted by (1)");
        let past = batches.len();
        batches.extend(self.queue.iter().cloned());
        let begun = self.queue.iter().take_while(|batch| moment(batch.lower()) < from);
        let begun = past + begun.count();
        (batches, Queued { past, begun })
    }

    /// Everything before `until` has been answered.
    pub fn settle(&mut self, until: Epoch) {
        while let Some(batch) = self.queue.pop_front_if(|batch| moment(batch.upper()) <= until) {
            self.lower.clone_from(batch.upper());
        }
        if self.queue.is_empty() && moment(&self.upper) <= until {
            self.lower.clone_from(&self.upper);
        }
        // Updates before `lower` must stay before it, so that it is known what was there: compaction may move them up to
        // the last moment before it.
        let before: Antichain<Epoch> = self.lower.iter().map(|time| time.saturating_sub(1)).collect();
        self.trace.set_logical_compaction(before.borrow());
        self.trace.set_physical_compaction(self.lower.borrow());
    }

    /// Whether every batch that came has been answered.
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Where the batches of an input begin that were not answered before.
#[derive(Clone, Copy)]
pub(super) struct Queued {
    /// Batches that were answered as a whole.
    pub past: usize,
    /// These, and those that may have been answered in part.
    pub begun: usize,
}

/// A frontier as the first time that is not complete; of a closed one, the last there is.
pub(super) fn moment(frontier: &Antichain<Epoch>) -> Epoch {
    frontier.first().copied().unwrap_or(Epoch::MAX)
}
