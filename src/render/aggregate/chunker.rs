//! Sorts updates on their way into an arrangement, in large chunks.
//!
//! Differential's own chunker makes chunks of 8 KiB, about a hundred rows, and leaves the rest to merging, level
//! after level. One sort of thousands of rows costs as many comparisons and moves each row far less often.

use std::collections::VecDeque;

use differential_dataflow::Data;
use differential_dataflow::consolidation::consolidate_updates;
use differential_dataflow::difference::Semigroup;
use timely::container::{ContainerBuilder, PushInto};

use crate::repr::Epoch;

/// Updates that are sorted together.
const CHUNK: usize = 1 << 15;

/// Makes sorted, consolidated chunks of updates.
pub(super) struct Chunker<D, R> {
    pending: Vec<(D, Epoch, R)>,
    ready: VecDeque<Vec<(D, Epoch, R)>>,
    handed_out: Vec<(D, Epoch, R)>,
}

impl<D, R> Default for Chunker<D, R> {
    fn default() -> Self {
        Chunker {
            pending: vec![],
            ready: VecDeque::new(),
            handed_out: vec![],
        }
    }
}

impl<D: Data, R: Semigroup + 'static> Chunker<D, R> {
    fn seal(&mut self) {
        let full = self.pending.len();
        consolidate_updates(&mut self.pending);
        // What shrinks a lot stays, to meet more of its kind.
        if self.pending.len() > full / 2 {
            self.ready.push_back(std::mem::take(&mut self.pending));
        }
    }
}

impl<D: Data, R: Semigroup + 'static> PushInto<&mut Vec<(D, Epoch, R)>> for Chunker<D, R> {
    fn push_into(&mut self, updates: &mut Vec<(D, Epoch, R)>) {
        self.pending.append(updates);
        if self.pending.len() >= CHUNK {
            self.seal();
        }
    }
}

impl<D: Data, R: Semigroup + 'static> ContainerBuilder for Chunker<D, R> {
    type Container = Vec<(D, Epoch, R)>;

    fn extract(&mut self) -> Option<&mut Self::Container> {
        self.handed_out = self.ready.pop_front()?;
        Some(&mut self.handed_out)
    }

    fn finish(&mut self) -> Option<&mut Self::Container> {
        if !self.pending.is_empty() {
            consolidate_updates(&mut self.pending);
            let chunk = std::mem::take(&mut self.pending);
            if !chunk.is_empty() {
                self.ready.push_back(chunk);
            }
        }
        self.extract()
    }
}
