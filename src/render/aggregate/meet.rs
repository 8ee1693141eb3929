//! The inputs of an operator over several arrangements. Their batches arrive at different moments, and are processed
//! together up to the time that all inputs have reached.

use std::collections::VecDeque;

use differential_dataflow::operators::arrange::TraceAgent;
use differential_dataflow::trace::{BatchReader, TraceReader};
use timely::PartialOrder;
use timely::progress::Antichain;

use crate::repr::Epoch;

/// One arrangement as an input.
///
/// 1. Everything before `lower` has been processed, and `lower` is the upper bound of a batch. The trace is held there
///    uncompacted.
/// 2. `queue` has the batches from `lower` to `upper`. A batch that ends behind the time that all inputs have reached
///    stays in it, partly processed.
pub(super) struct ArrangedInput<Tr: TraceReader<Time = Epoch>> {
    trace: TraceAgent<Tr>,
    queue: VecDeque<Tr::Batch>,
    lower: Antichain<Epoch>,
    upper: Antichain<Epoch>,
}

impl<Tr: TraceReader<Time = Epoch> + 'static> ArrangedInput<Tr> {
    /// An input for a trace from whose stream nothing has been received yet.
    pub fn new(trace: TraceAgent<Tr>) -> Self {
        ArrangedInput {
            trace,
            queue: VecDeque::new(),
            lower: Antichain::from_elem(Epoch::MIN),
            upper: Antichain::from_elem(Epoch::MIN),
        }
    }

    /// Receives the next batch of the arrangement's stream.
    pub fn receive(&mut self, batch: Tr::Batch) {
        // The upper bound of an empty batch may already have been read from the trace.
        if !PartialOrder::less_equal(batch.upper(), &self.upper) {
            self.upper.clone_from(batch.upper());
            self.queue.push_back(batch);
        }
    }

    /// The time before which every update has been received.
    pub fn reached(&mut self) -> Epoch {
        // Empty batches may not be sent, and then only the trace knows them.
        self.trace.advance_upper(&mut self.upper);
        moment(&self.upper)
    }

    /// All batches, and how many of them begin before `from`, the time before which everything has been processed.
    /// Only these batches have updates before `from`.
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

    /// Takes note that everything before `until` has been processed.
    pub fn mark_processed(&mut self, until: Epoch) {
        while let Some(batch) = self.queue.pop_front_if(|batch| moment(batch.upper()) <= until) {
            self.lower.clone_from(batch.upper());
        }
        if self.queue.is_empty() && moment(&self.upper) <= until {
            self.lower.clone_from(&self.upper);
        }
        // Updates before `lower` must stay distinguishable from later ones. So compaction may advance them to the last
        // moment before `lower`, but not to `lower` itself.
        let before: Antichain<Epoch> = self.lower.iter().map(|time| time.saturating_sub(1)).collect();
        self.trace.set_logical_compaction(before.borrow());
        self.trace.set_physical_compaction(self.lower.borrow());
    }

    /// Whether every received batch has been processed.
    pub fn is_processed(&self) -> bool {
        self.queue.is_empty()
    }
}

/// How the batches of an input are divided.
#[derive(Clone, Copy)]
pub(super) struct Queued {
    /// How many batches have been processed completely.
    pub past: usize,
    /// How many batches have been processed completely or may have been processed in part.
    pub begun: usize,
}

/// A frontier as the first time that is not complete; `Epoch::MAX` for the empty frontier.
pub(super) fn moment(frontier: &Antichain<Epoch>) -> Epoch {
    frontier.first().copied().unwrap_or(Epoch::MAX)
}
