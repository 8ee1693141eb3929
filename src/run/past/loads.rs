//! Where a worker feeds the past behind the inputs: one place for each table that stands as it is, and for each aggregate
//! whose accumulators are kept.

use std::collections::HashMap;

use differential_dataflow::AsCollection;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::Input as _;
use timely::dataflow::operators::core::input::Handle;

use super::Place;
use super::sources::{Sources, TableSource};
use crate::plan::NodeId;
use crate::render::{self, Pause, SumStates};
use crate::repr::{Diff, Epoch, Row, Update};

type KeyedUpdate = ((Row, Row), Epoch, Diff);
type Feed<D> = Handle<Epoch, CapacityContainerBuilder<Vec<D>>>;

/// One worker's ends; dropped when the past is over.
pub struct Loads {
    epoch: Epoch,
    rows: HashMap<Place, Feed<Update>>,
    sums: HashMap<NodeId, Feed<KeyedUpdate>>,
}

impl Loads {
    /// The places of these sources, and what the graph is told of them; the past comes up to `epoch`.
    pub fn build<'s>(
        scope: Scope<'s, Epoch>,
        sources: Option<&Sources>,
        pause: Pause,
    ) -> (Option<Loads>, Option<render::Past<'s>>) {
        let Some(sources) = sources else {
            return (None, None);
        };
        let mut loads = Loads {
            epoch: Epoch::MIN,
            rows: HashMap::new(),
            sums: HashMap::new(),
        };
        let mut past = render::Past {
            pause,
            tables: HashMap::new(),
            sums: HashMap::new(),
        };
        let mut rows = |place: Place| {
            let (handle, stream) = scope.new_input::<Vec<Update>>();
            loads.rows.insert(place, handle);
            stream.as_collection()
        };
        for (table, source) in sources.tables.iter().enumerate() {
            if let TableSource::Itself { .. } = source {
                past.tables.insert(table, rows(Place::Table(table)));
            }
        }
        for aggregate in sources.sums.iter().copied() {
            let (handle, sums) = scope.new_input::<Vec<KeyedUpdate>>();
            let errs = rows(Place::Errors(aggregate));
            let sums = sums.as_collection();
            loads.sums.insert(aggregate, handle);
            past.sums.insert(aggregate, SumStates { sums, errs });
        }
        (Some(loads), Some(past))
    }

    /// Closes all epochs before `epoch`, on this worker's part.
    pub fn advance_to(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.rows.values_mut().for_each(|handle| handle.advance_to(epoch));
        self.sums.values_mut().for_each(|handle| handle.advance_to(epoch));
    }

    /// Rows of a table, or errors of rows that an aggregate was made from.
    pub fn send_rows(&mut self, place: Place, rows: Vec<Row>) {
        let mut updates = rows.into_iter().map(|row| (row, self.epoch, 1)).collect();
        let handle = self.rows.get_mut(&place).expect("only what the sources name is read");
        handle.send_batch(&mut updates);
    }

    /// Accumulators of an aggregate.
    pub fn send_sums(&mut self, aggregate: NodeId, sums: Vec<(Row, Row)>) {
        let mut updates = sums.into_iter().map(|sum| (sum, self.epoch, 1)).collect();
        let handle = self
            .sums
            .get_mut(&aggregate)
            .expect("only what the sources name is read");
        handle.send_batch(&mut updates);
    }
}
