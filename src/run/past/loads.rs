//! The inputs by which a worker feeds restored rows behind the dataflow's inputs: one for each table that is not
//! computed again, and one for each aggregate whose accumulators are kept.

use std::collections::HashMap;

use differential_dataflow::AsCollection;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::Input as _;
use timely::dataflow::operators::core::input::Handle;

use super::FeedPoint;
use super::sources::{PastSources, TableSource};
use crate::plan::NodeId;
use crate::render::{self, Pause, SumStates};
use crate::repr::{Diff, Epoch, Row, Update};

type KeyedUpdate = ((Row, Row), Epoch, Diff);
type Feed<D> = Handle<Epoch, CapacityContainerBuilder<Vec<D>>>;

/// The handles of one worker; dropped when the past is over.
pub struct LoadedParts {
    epoch: Epoch,
    rows: HashMap<FeedPoint, Feed<Update>>,
    sums: HashMap<NodeId, Feed<KeyedUpdate>>,
}

impl LoadedParts {
    /// Makes the handles for these sources, and the collections that the graph is built with. The past is fed before
    /// `pause`.
    pub fn build<'s>(
        scope: Scope<'s, Epoch>,
        sources: Option<&PastSources>,
        pause: Pause,
    ) -> (Option<LoadedParts>, Option<render::GraphPast<'s>>) {
        let Some(sources) = sources else {
            return (None, None);
        };
        let mut loads = LoadedParts {
            epoch: Epoch::MIN,
            rows: HashMap::new(),
            sums: HashMap::new(),
        };
        let mut past = render::GraphPast {
            pause,
            tables: HashMap::new(),
            sums: HashMap::new(),
        };
        let mut rows = |place: FeedPoint| {
            let (handle, stream) = scope.new_input::<Vec<Update>>();
            loads.rows.insert(place, handle);
            stream.as_collection()
        };
        for (table, source) in sources.tables.iter().enumerate() {
            if let TableSource::Itself { .. } = source {
                past.tables.insert(table, rows(FeedPoint::Table(table)));
            }
        }
        for aggregate in sources.sums.iter().copied() {
            let (handle, sums) = scope.new_input::<Vec<KeyedUpdate>>();
            let errs = rows(FeedPoint::Errors(aggregate));
            let sums = sums.as_collection();
            loads.sums.insert(aggregate, handle);
            past.sums.insert(aggregate, SumStates { sums, errs });
        }
        (Some(loads), Some(past))
    }

    /// Closes all epochs before `epoch` at these inputs.
    pub fn advance_to(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.rows.values_mut().for_each(|handle| handle.advance_to(epoch));
        self.sums.values_mut().for_each(|handle| handle.advance_to(epoch));
    }

    /// Feeds rows of a table, or errors of rows that an aggregate was computed from.
    pub fn send_rows(&mut self, place: FeedPoint, rows: Vec<Row>) {
        let mut updates = rows.into_iter().map(|row| (row, self.epoch, 1)).collect();
        let handle = self.rows.get_mut(&place).expect("only what the sources name is read");
        handle.send_batch(&mut updates);
    }

    /// Feeds accumulators of an aggregate.
    pub fn send_sums(&mut self, aggregate: NodeId, sums: Vec<(Row, Row)>) {
        let mut updates = sums.into_iter().map(|sum| (sum, self.epoch, 1)).collect();
        let handle = self
            .sums
            .get_mut(&aggregate)
            .expect("only what the sources name is read");
        handle.send_batch(&mut updates);
    }
}
