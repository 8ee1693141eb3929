//! Decides how a run over a lake with a past restores it. Reads nothing.
//!
//! Every table must come to hold what its SELECT yields over all input so far. For that, not every input has to be fed
//! again: the content of the *first arrangement* on each path from a feed is enough, and the lake keeps it.
//!
//! | on the path from a feed                           | kept as                           | fed again            |
//! |---------------------------------------------------|-----------------------------------|----------------------|
//! | an input that holds rows (key, dedup_key, ...)    | `_alluvium/state/inputs/<name>`   | its state            |
//! | a table computed row by row from append-only input | the table itself                 | its rows, if needed  |
//! | an aggregate of sums alone over such rows         | in the log `_alluvium/state/sums` | its accumulators     |
//! | anything else                                     | Bronze, or the feeds              | records              |
//!
//! 1. State is used only if the lake's blueprint agrees with the definition about everything that it was computed
//!    from.
//! 2. Rows that are fed at one place do not also arrive there from upstream ([`crate::render::GraphPast`]), so each
//!    row counts once, whatever else is fed.
//! 3. A table whose rows are not computed again is not audited, and keeps its dead letters.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::blueprint::{Blueprint, PartStanding};
use crate::definition::{Dataflow, Input};
use crate::input::has_state;
use crate::plan::{Graph, NodeId, Op, PlanHash, meanings};
use crate::render::holds_sums_alone;
use crate::repr::Epoch;

/// The first arrangements whose content the lake keeps, besides the tables.
#[derive(Clone, Debug, Default)]
pub struct StatefulParts {
    /// Inputs that hold rows.
    pub inputs: Vec<usize>,
    /// Aggregates of sums alone, over rows of append-only inputs.
    pub sums: Vec<NodeId>,
    /// By table of the graph: whether each of its rows is computed from one record of an append-only input.
    by_record: Vec<bool>,
    /// By node: a hash of what it computes ([`meanings`]), which identifies its state in the lake.
    pub meanings: Vec<PlanHash>,
}

/// How an input is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputSource {
    /// Nothing needs its rows.
    None,
    /// From its state table.
    State {
        /// Whether its columns have changed, so that the state table is written anew.
        reformed: bool,
    },
    /// By replaying its records from Bronze.
    Bronze,
    /// By reading its records from the feeds again.
    Feeds,
}

/// How a table is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableSource {
    /// It is computed again, and audited.
    Graph,
    /// Its stored rows are kept.
    Itself {
        /// Whether they are fed, because something reads them.
        fed: bool,
    },
}

/// See the module's header. Every process of a run builds its graph by the same sources.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PastSources {
    /// By input of the definition.
    pub inputs: Vec<InputSource>,
    /// By table of the graph.
    pub tables: Vec<TableSource>,
    /// Aggregates whose accumulators are fed.
    pub sums: BTreeSet<NodeId>,
    /// For each of [`StatefulParts::sums`]: the epoch since which the log of sums is complete for it, see
    /// [`sums::number`].
    pub since: BTreeMap<NodeId, Epoch>,
}

/// What is known of the lake's newest snapshot.
pub struct StoredState<'a> {
    /// Its blueprint, where that is known.
    pub blueprint: Option<&'a Blueprint>,
    /// Tables of the graph whose stored rows may differ from the snapshot's, or that have rows refused for their keys.
    pub unfit: BTreeSet<usize>,
    /// Inputs whose state table may differ from the snapshot's.
    pub unfit_inputs: BTreeSet<usize>,
    /// Whether the log of sums may differ from the snapshot's.
    pub unfit_sums: bool,
}

impl StatefulParts {
    /// The parts of a dataflow whose state is kept.
    pub fn from_graph(dataflow: &Dataflow, graph: &Graph) -> StatefulParts {
        let by_record = by_record(dataflow, graph);
        let of_events = |node: NodeId| graph.nodes[node].inputs.iter().all(|input| by_record[*input]);
        let has_sums = |node: &NodeId| of_events(*node) && holds_sums_alone(graph, *node);
        StatefulParts {
            inputs: (0..dataflow.inputs.len())
                .filter(|i| has_state(&dataflow.inputs[*i]))
                .collect(),
            sums: (0..graph.nodes.len()).filter(has_sums).collect(),
            by_record: graph.tables.iter().map(|table| by_record[table.node]).collect(),
            meanings: meanings(dataflow, graph),
        }
    }
}

/// By node: whether each of its rows is computed from one record, and is never removed.
fn by_record(dataflow: &Dataflow, graph: &Graph) -> Vec<bool> {
    let mut answer: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let inputs = node.inputs.iter().all(|input| answer[*input]);
        answer.push(match &node.op {
            Op::Input(input) => {
                let input = &dataflow.inputs[*input];
                !has_state(input) && input.retention.is_none()
            }
            Op::Table(table) => {
                let table = &dataflow.tables[graph.tables[*table].table];
                inputs && table.key.is_empty() && table.retention.is_none()
            }
            Op::Mfp(_) | Op::Unnest(_) | Op::Union => inputs,
            _ => false,
        });
    }
    answer
}

impl PastSources {
    /// Decides for a lake whose newest snapshot is `epoch`.
    pub fn decide(
        dataflow: &Dataflow,
        graph: &Graph,
        first: &StatefulParts,
        now: &Blueprint,
        (epoch, stored): (Epoch, &StoredState<'_>),
    ) -> PastSources {
        let unknown = Blueprint::default();
        let then = stored.blueprint.unwrap_or(&unknown);
        // By (1).
        let agrees = |input: usize| then.input(now, &dataflow.inputs[input].name).standing == PartStanding::Unchanged;
        let agree = |node: NodeId| graph.inputs_of(node).into_iter().all(agrees);
        let itself = |table: usize| {
            let planned = &graph.tables[table];
            let retained = dataflow.tables[planned.table].retention.is_some();
            first.by_record[table]
                && !retained
                && !stored.unfit.contains(&table)
                && then.table(now, &planned.name) == PartStanding::Unchanged
                && agree(planned.node)
        };
        let state = |(index, input): (usize, &Input)| {
            let standing = then.input(now, &input.name);
            let reformed = standing.reformed;
            let fit = has_state(input) && !stored.unfit_inputs.contains(&index);
            (fit && standing.covered).then_some(InputSource::State { reformed })
        };
        let sums = first.sums.iter().filter(|_| !stored.unfit_sums);
        let sums = sums.filter_map(|node| Some((*node, then.sums_since(first.meanings[*node])?)));
        let stored_sums: BTreeMap<NodeId, Epoch> = sums.filter(|(node, _)| agree(*node)).collect();
        let mut need = NeededParts {
            dataflow,
            graph,
            itself: (0..graph.tables.len()).map(itself).collect(),
            sums: stored_sums.keys().copied().collect(),
            states: dataflow.inputs.iter().enumerate().map(state).collect(),
            seen: BTreeSet::new(),
            sources: PastSources {
                inputs: vec![InputSource::None; dataflow.inputs.len()],
                tables: vec![TableSource::Graph; graph.tables.len()],
                sums: BTreeSet::new(),
                since: BTreeMap::new(),
            },
        };
        for table in 0..graph.tables.len() {
            need.table(table);
        }
        // The state of an input is kept up to date, even if no table reads the input.
        first.inputs.iter().for_each(|input| need.input(*input));
        let mut sources = need.sources;
        let since = |node: &NodeId| match sources.sums.contains(node) {
            true => (*node, stored_sums[node]),
            false => (*node, epoch + 1),
        };
        sources.since = first.sums.iter().map(since).collect();
        sources
    }
}

/// Walks from the tables to everything that they need.
struct NeededParts<'a> {
    dataflow: &'a Dataflow,
    graph: &'a Graph,
    /// Which tables may keep their rows. Likewise, in the next two fields, which sums and states of inputs may be
    /// loaded.
    itself: Vec<bool>,
    sums: BTreeSet<NodeId>,
    states: Vec<Option<InputSource>>,
    seen: BTreeSet<NodeId>,
    sources: PastSources,
}

impl NeededParts<'_> {
    /// Restores the rows of a table.
    fn table(&mut self, table: usize) {
        if !self.itself[table] {
            return self.rows(self.graph.tables[table].node);
        }
        let keyed = !self.dataflow.tables[self.graph.tables[table].table].key.is_empty();
        let source = &mut self.sources.tables[table];
        if *source == TableSource::Graph {
            // The check for duplicate keys needs all rows.
            *source = TableSource::Itself { fed: keyed };
        }
    }

    /// Restores the rows of an input.
    fn input(&mut self, input: usize) {
        let again = match self.dataflow.inputs[input].bronze {
            true => InputSource::Bronze,
            false => InputSource::Feeds,
        };
        self.sources.inputs[input] = self.states[input].unwrap_or(again);
    }

    /// Restores the rows that a node outputs.
    fn rows(&mut self, node: NodeId) {
        if !self.seen.insert(node) {
            return;
        }
        let graph = self.graph;
        match graph.nodes[node].op {
            Op::Input(input) => self.input(input),
            Op::Table(table) if self.itself[table] => self.sources.tables[table] = TableSource::Itself { fed: true },
            Op::Table(table) => self.rows(graph.tables[table].node),
            Op::Aggregate(_) if self.sums.contains(&node) => drop(self.sources.sums.insert(node)),
            _ => graph.nodes[node].inputs.iter().for_each(|input| self.rows(*input)),
        }
    }
}
