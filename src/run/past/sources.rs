//! Where a run over a lake with a past gets it from: decides, reads nothing.
//!
//! Every table must come to hold what its SELECT yields over all input so far. For that the rows of each input need not
//! be fed again: what the *first arrangement* on each path from a feed holds is enough, and the lake keeps it.
//!
//! | on the path from a feed                          | kept as                         | fed again                    |
//! |--------------------------------------------------|---------------------------------|------------------------------|
//! | an input that holds rows (key, dedup_key, ...)   | `_alluvium/state/inputs/<name>` | its states                   |
//! | a table made row by row from an append-only input| the table itself                | its rows, if somebody reads them |
//! | an aggregate over such rows, of sums alone       | in the log `_alluvium/state/sums` | its accumulators           |
//! | anything else                                    | Bronze, or the feeds            | records                      |
//!
//! 1. A source stands only for what it was made of: the lake's blueprint must agree on all of it.
//! 2. What is fed at one place is kept from coming through what lies before it ([`crate::render::Past`]), so each row
//!    counts once, whatever else is fed.
//! 3. A table whose rows are not made again is not audited, and keeps its dead letters.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::blueprint::{Blueprint, Standing};
use crate::definition::{Dataflow, Input};
use crate::input::has_state;
use crate::plan::{Graph, NodeId, Op, meanings};
use crate::render::holds_sums_alone;
use crate::repr::Epoch;

/// The first arrangements that the lake keeps, beside the tables themselves.
#[derive(Clone, Debug, Default)]
pub struct First {
    /// Inputs that hold rows.
    pub inputs: Vec<usize>,
    /// Aggregates over rows of append-only inputs that hold sums alone.
    pub sums: Vec<NodeId>,
    /// By table of the graph: whether each of its rows is made of one record of an append-only input.
    by_record: Vec<bool>,
    /// By node: what it computes ([`meanings`]), which names what is kept of it.
    pub meanings: Vec<u64>,
}

/// Where an input's past comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputSource {
    /// Nobody needs it.
    None,
    /// What it held.
    State {
        /// In another form: it is told anew.
        reformed: bool,
    },
    /// Its records in Bronze.
    Bronze,
    /// Its records, read from the feeds again.
    Feeds,
}

/// Where a table's past comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableSource {
    /// It is computed again, and audited.
    Graph,
    /// It stands as it is; whether its rows are fed to what reads it.
    Itself {
        /// Somebody needs them.
        fed: bool,
    },
}

/// See the module's header. Every process of a run builds its graph by the same ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sources {
    /// By input of the definition.
    pub inputs: Vec<InputSource>,
    /// By table of the graph.
    pub tables: Vec<TableSource>,
    /// Aggregates whose accumulators are fed.
    pub sums: BTreeSet<NodeId>,
    /// Of each of [`First::sums`]: the epoch from which on the log has all that it summed up, see [`sums::number`].
    pub since: BTreeMap<NodeId, Epoch>,
}

/// What the lake holds.
pub struct Stored<'a> {
    /// What its newest snapshot was computed by; none: not known.
    pub blueprint: Option<&'a Blueprint>,
    /// Tables of the graph whose rows may be others than the snapshot's, or that have rows refused for their keys.
    pub unfit: BTreeSet<usize>,
    /// Inputs whose states may be others than the snapshot's.
    pub unfit_inputs: BTreeSet<usize>,
    /// Whether the log of sums may be another than the snapshot's.
    pub unfit_sums: bool,
}

impl First {
    /// Of a dataflow.
    pub fn of(dataflow: &Dataflow, graph: &Graph) -> First {
        let by_record = by_record(dataflow, graph);
        let of_events = |node: NodeId| graph.nodes[node].inputs.iter().all(|input| by_record[*input]);
        let kept = |node: &NodeId| of_events(*node) && holds_sums_alone(graph, *node);
        First {
            inputs: (0..dataflow.inputs.len())
                .filter(|i| has_state(&dataflow.inputs[*i]))
                .collect(),
            sums: (0..graph.nodes.len()).filter(kept).collect(),
            by_record: graph.tables.iter().map(|table| by_record[table.node]).collect(),
            meanings: meanings(dataflow, graph),
        }
    }
}

/// By node: whether each of its rows is made of one record, and stays for ever.
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

impl Sources {
    /// Decides for a lake whose newest snapshot is `epoch`.
    pub fn of(
        dataflow: &Dataflow,
        graph: &Graph,
        first: &First,
        now: &Blueprint,
        (epoch, stored): (Epoch, &Stored<'_>),
    ) -> Sources {
        let unknown = Blueprint::default();
        let then = stored.blueprint.unwrap_or(&unknown);
        // By (1).
        let agrees = |input: usize| then.input(now, &dataflow.inputs[input].name).standing == Standing::Unchanged;
        let agree = |node: NodeId| graph.inputs_of(node).into_iter().all(agrees);
        let itself = |table: usize| {
            let planned = &graph.tables[table];
            let retained = dataflow.tables[planned.table].retention.is_some();
            first.by_record[table]
                && !retained
                && !stored.unfit.contains(&table)
                && then.table(now, &planned.name) == Standing::Unchanged
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
        let kept: BTreeMap<NodeId, Epoch> = sums.filter(|(node, _)| agree(*node)).collect();
        let mut need = Need {
            dataflow,
            graph,
            itself: (0..graph.tables.len()).map(itself).collect(),
            sums: kept.keys().copied().collect(),
            states: dataflow.inputs.iter().enumerate().map(state).collect(),
            seen: BTreeSet::new(),
            sources: Sources {
                inputs: vec![InputSource::None; dataflow.inputs.len()],
                tables: vec![TableSource::Graph; graph.tables.len()],
                sums: BTreeSet::new(),
                since: BTreeMap::new(),
            },
        };
        for table in 0..graph.tables.len() {
            need.table(table);
        }
        // What an input holds is kept whether or not a table reads it.
        first.inputs.iter().for_each(|input| need.input(*input));
        let mut sources = need.sources;
        let since = |node: &NodeId| match sources.sums.contains(node) {
            true => (*node, kept[node]),
            false => (*node, epoch + 1),
        };
        sources.since = first.sums.iter().map(since).collect();
        sources
    }
}

/// Walks from the tables to what they need.
struct Need<'a> {
    dataflow: &'a Dataflow,
    graph: &'a Graph,
    /// Tables that may stand as they are, and sums and states of inputs that may be loaded.
    itself: Vec<bool>,
    sums: BTreeSet<NodeId>,
    states: Vec<Option<InputSource>>,
    seen: BTreeSet<NodeId>,
    sources: Sources,
}

impl Need<'_> {
    /// A table must come to hold its rows.
    fn table(&mut self, table: usize) {
        if !self.itself[table] {
            return self.rows(self.graph.tables[table].node);
        }
        let keyed = !self.dataflow.tables[self.graph.tables[table].table].key.is_empty();
        let source = &mut self.sources.tables[table];
        if *source == TableSource::Graph {
            // The check of a key holds all rows.
            *source = TableSource::Itself { fed: keyed };
        }
    }

    /// An input's rows must flow.
    fn input(&mut self, input: usize) {
        let again = match self.dataflow.inputs[input].bronze {
            true => InputSource::Bronze,
            false => InputSource::Feeds,
        };
        self.sources.inputs[input] = self.states[input].unwrap_or(again);
    }

    /// A node's rows must flow.
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
